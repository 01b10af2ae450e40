"""A disk that takes nothing: it is said, queries are answered, nothing is lost, it heals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.coordinator import degraded
from hwsync.coordinator.deliveries import message_of
from hwsync.coordinator.loop import SAVE_AGAIN_S
from hwsync.protocol import limits
from hwsync.protocol.errors import StoreError
from hwsync.protocol.wire.messages import named_id
from tests.support.coordinator import Acknowledged, Lab, brief, heartbeat, request, sent


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The disk is full; ``monkeypatch.undo()`` empties it."""
    with Lab(tmp_path / "hwsync.db") as opened:
        opened.device(1)

        def full(*_: object) -> None:
            raise StoreError("database or disk is full")

        monkeypatch.setattr(opened.store, "save", full)
        yield opened


def test_who_waits_is_told_once_a_minute_and_nothing_is_acknowledged(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.hear("cancel", b'{"id":"c1"}', mid=7) == []  # once may be nothing
    deeds = lab.later(SAVE_AGAIN_S)
    assert brief(deeds) == ["error"]
    (error,) = sent(deeds, "error")
    assert (error.json["error"], error.json["id"], error.json["state"]) == ("degraded", "c1", 1)
    assert error.json["topic"] == "hw/pi1/cancel"
    assert "disk is full" in error.json["message"]
    assert error.json["hint"]
    for _ in range(int(limits.DEGRADED_S) - 1):
        assert lab.later(SAVE_AGAIN_S) == []
    assert brief(lab.later(SAVE_AGAIN_S)) == ["error"]
    # Another user is told at once; names of no user, never.
    assert brief(lab.hear("request", b"1", user="pi2")) == []
    told = lab.later(SAVE_AGAIN_S)
    assert [error.topic for error in sent(told, "error")] == ["hw/pi2/error"]
    lab.hear("request", b"1", user="-bad")
    assert lab.later(SAVE_AGAIN_S) == []
    monkeypatch.undo()
    healed = brief(lab.later(SAVE_AGAIN_S))
    assert healed[:2] == ["status 0", "status 1"]
    assert healed[-3] == 7
    assert lab.rows("transitions", "id, state")[-1] == ("c1", 1)


def test_queries_are_answered_and_acknowledged_meanwhile(lab: Lab) -> None:
    lab.hear("cancel", b"", mid=7)
    assert brief(lab.hear("query", b"", mid=8)) == [8, "status 1"]
    # One that names an id may ask what became of the cancel: it waits behind it.
    assert lab.hear("query", b'{"id":"c1"}', mid=9) == []
    assert brief(lab.later(SAVE_AGAIN_S)) == ["error"]
    assert brief(lab.hear("query", b"nonsense", mid=10)) == []  # its row cannot be stored


def test_a_named_query_of_a_user_of_whom_nothing_waits_is_answered(lab: Lab) -> None:
    lab.hear("request", b"1", user="pi2")
    assert brief(lab.hear("query", b'{"id":"c1"}', mid=9)) == [9, "status 1", "result/c1"]


def test_a_query_in_the_step_that_fails_is_answered_too(lab: Lab) -> None:
    deeds = lab.step(lab.delivery("cancel", mid=7), lab.delivery("query", mid=8))
    assert brief(deeds) == [8, "status 1"]


def test_of_qos_0_no_more_waits_than_there_is_room_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody else keeps it; a flood of it filled the memory."""
    monkeypatch.setattr(degraded, "UNSAVED", 3 * limits.KIB + 100)

    def flood() -> None:
        for number in range(5):
            asked = lab.delivery("request", request(f"f{number}"), user="pi2", mid=0)
            lab.step(replace(asked, qos=0))

    flood()
    flood()
    beat = replace(lab.delivery("heartbeat", heartbeat(), mid=0), qos=0)
    lab.step(beat)
    assert beat in lab.coordinator._waiting
    kept = [one for one in lab.coordinator._waiting if one.qos == 0 and one is not beat]
    assert [named_id(message_of(one), lab.coordinator.topics) for one in kept] == ["f0", "f1"]
    assert lab.coordinator.counts["dropped"] == 8
    assert caplog.text.count("messages of QoS 0 wait for the database") == 1
    # What the broker keeps waits, and a query of QoS 0 is answered.
    lab.hear("cancel", b'{"id":"c1"}', mid=7)
    assert brief(lab.step(replace(lab.delivery("query", mid=0), qos=0)))[-1] == "status 1"
    monkeypatch.undo()
    assert 7 in brief(lab.later(SAVE_AGAIN_S))
    assert lab.rows("commands", "id") == [("c1",), ("f0",)]  # f1 was refused: pi2 is busy


def test_what_a_broker_sends_again_meanwhile_waits_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = lab.delivery("request", request("c2", queue=True), mid=7)
    lab.step(asked)
    lab.later(SAVE_AGAIN_S)
    for _ in range(500):
        lab.step(replace(asked, dup=True))
    assert len(lab.coordinator._waiting) == 1
    monkeypatch.undo()
    deeds = lab.later(SAVE_AGAIN_S)
    assert [deed for deed in deeds if isinstance(deed, Acknowledged)] == [Acknowledged(7)]
    assert lab.record.queue == ("c2",)


def test_the_network_is_served_between_two_saves_that_block(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one thread: a database that another process holds stops it for seconds."""

    def blocks(*_: object) -> None:
        lab.clock.now += 5.0
        raise StoreError("database is locked")

    monkeypatch.setattr(lab.store, "save", blocks)
    lab.hear("cancel", b'{"id":"c1"}')
    assert lab.coordinator.wait() == SAVE_AGAIN_S


def test_a_turn_of_the_queue_grows_no_younger_by_a_save_that_failed(tmp_path: Path) -> None:
    with Lab(tmp_path / "hwsync.db") as lab:
        lab.hear("request", request("c1"))
        lab.hear("request", request("c2", queue=True))
        lab.hear("reset")
        lab.later(limits.AMBIGUOUS_S)
        with pytest.MonkeyPatch.context() as patch:

            def full(*_: object) -> None:
                raise StoreError("database or disk is full")

            patch.setattr(lab.store, "save", full)
            lab.hear("cancel", b'{"id":"never"}')
        lab.later(SAVE_AGAIN_S)
        assert brief(lab.hear("collected"))[0] == "status 2"
