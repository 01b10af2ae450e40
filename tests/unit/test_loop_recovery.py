"""A database that fails in the middle: what is read anew, what goes on, what is told then.

``failing`` makes one method of the store fail once; with ``stored`` it does its work first.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwsync.coordinator.loop import SAVE_AGAIN_S
from hwsync.protocol.errors import StoreError
from hwsync.protocol.record import State
from tests.support.coordinator import Lab, brief, heartbeat, request, result, sent

Failing = Callable[..., None]


@pytest.fixture
def failing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Failing:
    def fail(name: str, *, stored: bool = False) -> None:
        real = getattr(lab.store, name)

        def once(*arguments: object) -> object:
            monkeypatch.setattr(lab.store, name, real)
            if stored:
                real(*arguments)
            raise StoreError("disk I/O error")

        monkeypatch.setattr(lab.store, name, once)

    return fail


def test_a_deadline_outlives_a_failed_save_and_a_failed_reading(lab: Lab, failing: Failing) -> None:
    lab.device(2, expires=0, timeout=5, grace=7)
    failing("save")
    failing("load")
    lab.later(12.0)
    lab.later(SAVE_AGAIN_S)
    lab.later(SAVE_AGAIN_S)
    assert lab.record.state is State.RETURNED


def test_a_failed_save_puts_off_no_deadline(lab: Lab, failing: Failing) -> None:
    lab.device(1, expires=300)
    lab.later(299.0)
    failing("save")
    lab.hear("request", b"1", user="pi2")
    lab.later(SAVE_AGAIN_S)
    assert lab.record.state is State.REST


def test_an_analyser_is_due_though_the_commit_of_state_3_raised(lab: Lab, failing: Failing) -> None:
    lab.device(2, analysis="outcome")
    failing("save", stored=True)
    lab.hear("response", result())
    lab.later(SAVE_AGAIN_S)
    lab.later(SAVE_AGAIN_S)
    assert lab.record.state is State.REST


def test_what_was_stored_though_the_commit_raised_is_told(lab: Lab, failing: Failing) -> None:
    lab.device(1, expires=20)
    failing("save", stored=True)
    assert lab.later(20.0) == []
    assert brief(lab.later(SAVE_AGAIN_S)) == ["status 0"]


def test_a_command_that_was_stored_is_not_overwritten_when_reading_fails_too(
    lab: Lab, failing: Failing
) -> None:
    failing("save", stored=True)
    failing("load")
    assert lab.hear("request", request(), mid=7) == []
    assert brief(lab.later(SAVE_AGAIN_S)) == ["error"]  # degraded
    told = brief(lab.later(SAVE_AGAIN_S))
    assert told[:2] == ["status 1", "command"]
    assert told[-1] == 7
    assert lab.record.seq == 1


def test_a_database_that_cannot_be_read_delays_a_message(lab: Lab, failing: Failing) -> None:
    failing("command")
    assert lab.hear("request", request(), mid=7) == []
    assert brief(lab.later(SAVE_AGAIN_S)) == ["status 1", "command", 7]


@pytest.mark.parametrize(
    "between", [("query", b'{"id":"c9"}'), ("heartbeat", heartbeat()), ("request", b"")]
)
def test_any_message_ends_what_is_known_of_its_packet_identifier(
    lab: Lab, between: tuple[str, bytes]
) -> None:
    lab.hear("reset", b"", mid=7)
    lab.hear(*between, mid=7)
    lab.hear("reset", b"", mid=7, dup=True)
    assert lab.record.seq == 2


def test_a_persons_analysis_in_the_same_round_wins_over_the_analyser(lab: Lab) -> None:
    lab.device(3, analysis="outcome")
    told = lab.step(lab.delivery("analysis", b"mine"))
    assert sent(told, "error") == []
    assert lab.record.current is not None
    assert lab.record.current.analysis == "mine"


def test_the_will_of_a_device_that_was_replaced_does_not_count(lab: Lab) -> None:
    lab.hear("heartbeat", heartbeat("old", 50))
    lab.hear("heartbeat", heartbeat("new", 1))
    lab.hear("heartbeat", heartbeat("old", 50, online=False))
    lab.hear("request", request(expires=0))
    assert brief(lab.later(1.0)) == ["command"]


def test_a_retained_heartbeat_that_is_broken_is_a_bad_payload(lab: Lab) -> None:
    (error,) = sent(lab.hear("heartbeat", b"{", retain=True), "error")
    assert error.json["error"] == "bad_payload"
