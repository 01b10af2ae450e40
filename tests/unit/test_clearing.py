"""What the coordinator takes from the broker, since nobody is to retain it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsync.coordinator.clearing import SAY_S, Clearing
from hwsync.protocol.topics import INBOUND, TopicKind, Topics
from hwsync.transport import Connected, Delivery
from tests.support.coordinator import Clock


class Wire:
    connection = 1
    settled = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bool]] = []

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, **_: object
    ) -> bool:
        self.sent.append((topic, payload, retain))
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        raise AssertionError("that is for whoever handles it")


def kept(kind: str, user: str = "pi1") -> Delivery:
    return Delivery(f"hw/{user}/{kind}", b"x", 1, True, False, 7, 1)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clearing(wire: Wire, clock: Clock) -> Clearing:
    made = Clearing(wire, Topics(), clock)
    made.clear([Connected(True, 5)])
    return made


@pytest.mark.parametrize("kind", INBOUND)
def test_of_what_is_retained_heartbeats_and_statuses_stay(
    wire: Wire, clearing: Clearing, kind: TopicKind
) -> None:
    clearing.clear([kept(kind)])
    stays = kind in (TopicKind.STATUS, TopicKind.HEARTBEAT)
    assert wire.sent == ([] if stays else [(f"hw/pi1/{kind}", b"", True)])


def test_whatever_is_none_of_it_stays(wire: Wire, clearing: Clearing) -> None:
    clearing.clear([
        replace(kept("query"), retain=False),
        replace(kept("query"), payload=b""),  # the clearing itself
        replace(kept("query"), topic="other/pi1/query"),
        kept("query/more"),
    ])  # fmt: skip
    assert wire.sent == []
    clearing.clear([kept("query", "@hwsync"), kept("reset", "a b")])
    assert [topic for topic, *_ in wire.sent] == ["hw/@hwsync/query", "hw/a b/reset"]


def test_over_mqtt_3_nothing_is_cleared(wire: Wire, clearing: Clearing) -> None:
    """There nobody could tell the empty message from one that resets."""
    clearing.clear([Connected(True, 4), kept("reset")])
    assert wire.sent == []
    clearing.clear([Connected(True, 5), kept("reset")])
    assert len(wire.sent) == 1


def test_it_is_said_once_a_minute(
    clearing: Clearing, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        clearing.clear([kept("reset"), kept("query")])
    assert caplog.text.count("keeps no longer") == 1
    clock.now += SAY_S
    clearing.clear([kept("request")])
    assert "keeps no longer 199 retained messages" in caplog.text
    assert "hw/pi1/request" in caplog.text
