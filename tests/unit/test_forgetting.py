"""A user who was a typing error is forgotten: shown no more, and nothing of the history lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsync.coordinator.forgetting import forget
from hwsync.protocol.errors import DatabaseError, NotFound, Refused
from hwsync.store.checking import check
from tests.support.coordinator import Lab, brief, request, sent, use


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """With one whole cycle, one refused message and one command under way."""
    use(lab)
    return lab


def test_a_forgotten_user_is_published_again_only_when_something_is_new(
    lab: Lab, path: Path
) -> None:
    lab.hear("cancel", b'{"id":"c2"}')
    seq = lab.record.seq
    lab.stop()
    cleared: list[bool] = []
    forget(path, "pi1", lambda: cleared.append(True))
    assert cleared == [True]
    assert list(check(path)) == []
    lab.start()
    assert lab.connect() == []
    (answer,) = sent(lab.hear("query", b""), "status")
    assert (answer.retain, answer.json["seq"]) == (False, seq + 1)
    lab.hear("heartbeat", b'{"online":true,"journal":"j1","boot":1,"seen":[9,9]}', user="pi2")
    assert lab.restart() == []  # a new epoch does not bring it back either
    (status,) = sent(lab.hear("request", request("c3")), "status")
    assert (status.retain, status.json["seq"]) == (True, seq + 3)


def test_what_is_open_or_unknown_is_not_forgotten(lab: Lab, path: Path) -> None:
    with pytest.raises(DatabaseError, match="another coordinator"):
        forget(path, "pi1", lambda: None)
    lab.stop()
    with pytest.raises(Refused, match="c2 is in state 1"):
        forget(path, "pi1", lambda: None)
    with pytest.raises(NotFound, match="pi9 has never been seen"):
        forget(path, "pi9", lambda: None)


def test_nothing_is_forgotten_where_the_broker_cannot_be_reached(lab: Lab, path: Path) -> None:
    lab.hear("cancel", b'{"id":"c2"}')
    lab.stop()

    def fail() -> None:
        raise RuntimeError("no broker")

    with pytest.raises(RuntimeError):
        forget(path, "pi1", fail)
    lab.start()
    assert brief(lab.connect()) == ["status 0"]


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="there is no database"):
        forget(tmp_path / "none.db", "pi1", lambda: None)
    assert list(tmp_path.iterdir()) == []
