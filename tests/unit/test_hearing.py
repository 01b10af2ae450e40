"""The coordinator hears what the broker has kept before it decides anything."""

from __future__ import annotations

import pytest

from hwsync.coordinator.hearing import HEARD_S, Hearing
from hwsync.protocol.topics import Topics
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed
from tests.support.coordinator import Clock


class Wire:
    """Keeps what is published, with its QoS."""

    connection = 1
    settled = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, int]] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, **_: object) -> bool:
        self.sent.append((topic, payload, qos))
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        raise AssertionError("nothing is acknowledged here")


def delivery(kind: str, payload: bytes = b"x", user: str = "pi1", mid: int = 7) -> Delivery:
    return Delivery(f"hw/{user}/{kind}", payload, 1, False, False, mid, 1)


REQUEST, STATUS = delivery("request"), delivery("status")
MARK = delivery("query", b"mark", "@hwsync", 0)
CONNECTED = [Connected(True, 5), Subscribed()]


@pytest.fixture
def parts() -> tuple[Hearing, Wire, Clock]:
    wire, clock = Wire(), Clock()
    return Hearing(wire, Topics(), clock, "mark"), wire, clock


def test_requests_wait_until_the_mark_has_come_back(parts: tuple[Hearing, Wire, Clock]) -> None:
    hearing, wire, _ = parts
    early: list[Signal] = [CONNECTED[0], REQUEST, CONNECTED[1]]
    assert hearing.take(early) == CONNECTED
    assert wire.sent == [("hw/@hwsync/query", b"mark", 0)]
    assert hearing.take([STATUS, REQUEST]) == [STATUS]
    assert hearing.take([MARK, STATUS]) == [REQUEST, REQUEST, STATUS]
    assert hearing.take([REQUEST]) == [REQUEST]
    assert hearing.wait() is None


def test_a_question_of_somebody_else_is_no_mark(parts: tuple[Hearing, Wire, Clock]) -> None:
    hearing, _, _ = parts
    hearing.take(CONNECTED)
    question = delivery("query", b"", "@hwsync")
    assert hearing.take([question]) == []
    assert hearing.take([MARK]) == [question]


def test_a_broker_that_does_not_send_it_back_delays_the_start(
    parts: tuple[Hearing, Wire, Clock],
) -> None:
    hearing, _, clock = parts
    hearing.take([*CONNECTED, REQUEST])
    assert hearing.wait() == HEARD_S
    clock.now += HEARD_S - 0.1
    assert hearing.take([]) == []
    clock.now += 0.1
    assert hearing.take([]) == [REQUEST]


@pytest.mark.parametrize(("present", "kept"), [(True, 0), (False, 1)])
def test_what_was_held_over_a_lost_connection_comes_again_or_only_we_have_it(
    parts: tuple[Hearing, Wire, Clock], present: bool, kept: int
) -> None:
    hearing, wire, _ = parts
    hearing.take([*CONNECTED, REQUEST, Disconnected("gone", True)])
    hearing.take([Connected(present, 5), Subscribed()])
    assert len(wire.sent) == 2
    assert [one.mid for one in hearing.take([MARK]) if isinstance(one, Delivery)] == [0] * kept


def test_a_later_connection_holds_nothing(parts: tuple[Hearing, Wire, Clock]) -> None:
    hearing, wire, _ = parts
    hearing.take([*CONNECTED, MARK])
    again: list[Signal] = [*CONNECTED, REQUEST]
    assert hearing.take(again) == again
    assert len(wire.sent) == 1
