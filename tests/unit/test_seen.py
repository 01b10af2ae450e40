"""Whether a board was ever seen: what the broker keeps, else the coordinator's answer."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from hwsync.cli.seen import APPEARS_S, _was_seen
from hwsync.operator.conversation import Conversation
from hwsync.protocol.record import Command, Outcome, Ran, Record, Request, RunReport
from hwsync.protocol.topics import Topics
from hwsync.protocol.wire.status import encode_status
from hwsync.transport import Delivery
from tests.support.coordinator import Clock, heartbeat


class Talk:
    """A talk that is driven by hand, on a clock that stands still unless it waits."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.said: list[tuple[str, bytes]] = []
        self.one = Conversation(
            Topics(), "pi1", lambda topic, payload: self.said.append((topic, payload)),
            monotonic=self.clock.monotonic,
        )  # fmt: skip
        self.talk: Generator[float, Any, Any] = _was_seen(self.one)
        self.patience = next(self.talk)

    def hear(self, kind: str, payload: bytes, *, kept: bool = False) -> Any:
        """What it is worth, once it has ended; else None."""
        return self._send(Delivery(f"hw/pi1/{kind}", payload, 0, kept, False, 0, 1))

    def wait(self) -> Any:
        self.clock.now += self.patience
        return self._send(None)

    def _send(self, signal: Any) -> Any:
        try:
            self.patience = self.talk.send(signal)
        except StopIteration as end:
            return end.value
        return None


def status(**given: Any) -> bytes:
    return encode_status(Record("pi1", **given))


def test_a_kept_heartbeat_is_enough_and_nothing_is_asked() -> None:
    talk = Talk()
    answered = Command("pi1", "c1", Request("1"), report=RunReport(Outcome.OK, Ran.YES))
    assert talk.patience == 0.0
    assert talk.hear("status", status(seq=4, current=answered), kept=True) is None
    known, beat = talk.hear("heartbeat", heartbeat(online=False), kept=True)
    assert known
    assert beat["online"] is False
    assert talk.said == []


@pytest.mark.parametrize(
    ("record", "known"),
    [
        ({}, False),
        ({"seq": 1, "current": Command("pi1", "c1", Request("1"))}, False),
        ({"seq": 4, "settled": (("c0", "j1"),)}, True),
    ],
)
def test_else_the_coordinator_says_whether_anybody_has_ever_answered(
    record: dict[str, Any], known: bool
) -> None:
    talk = Talk()
    assert talk.wait() is None
    assert talk.said == [("hw/pi1/query", b"")]
    end = talk.hear("status", status(**record))
    if "current" in record:
        assert end is None
        told = {"error": "not_current", "message": "", "hint": "", "topic": "hw/pi1/query",
                "id": "c1", "journal": None, "state": 0}  # fmt: skip
        end = talk.hear("error", json.dumps(told).encode())
    if known:
        assert end == (True, None)
        return
    assert end is None
    assert talk.patience == APPEARS_S
    assert talk.wait() == (False, None)


def test_a_device_that_was_started_just_now_is_waited_for_a_moment() -> None:
    talk = Talk()
    talk.wait()
    assert talk.hear("status", status()) is None
    known, beat = talk.hear("heartbeat", heartbeat())
    assert known
    assert beat["online"] is True
