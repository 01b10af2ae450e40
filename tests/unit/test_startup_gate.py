"""The coordinator hears what the broker has kept before it decides anything."""

from __future__ import annotations

import pytest

from hwsync.coordinator.startup_gate import SILENCE_S, StartupGate
from hwsync.protocol.topics import Topics
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed
from tests.support.coordinator import Clock


class Wire:
    """Keeps what is published, with its QoS, and what is acknowledged."""

    connection = 1
    settled = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, int]] = []
        self.acknowledged: list[int] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, **_: object) -> bool:
        self.sent.append((topic, payload, qos))
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery.mid)


def delivery(kind: str, payload: bytes = b"x", user: str = "pi1", mid: int = 7) -> Delivery:
    return Delivery(f"hw/{user}/{kind}", payload, int(mid > 0), False, False, mid, 1)


def mark(number: int = 1, mid: int = 0) -> Delivery:
    return delivery("query", f"mark-{number}".encode(), "@hwsync", mid)


REQUEST, STATUS = delivery("request"), delivery("status", mid=0)
THERE, READY, GONE = Connected(True, 5), Subscribed(), Disconnected("gone", True)


class Ears:
    """A hearing, and what is around it."""

    def __init__(self) -> None:
        self.wire, self.clock = Wire(), Clock()
        self.gate = StartupGate(self.wire, Topics(), self.clock, "mark")

    def take(self, *signals: Signal) -> list[Signal]:
        return self.gate.admit(signals)


@pytest.fixture
def ears() -> Ears:
    return Ears()


def test_everything_but_statuses_waits_until_the_mark_has_come_back(ears: Ears) -> None:
    assert ears.take(THERE, REQUEST, READY) == [THERE]
    assert ears.wire.sent == [("hw/@hwsync/query", b"mark-1", 0)]
    assert ears.take(STATUS, REQUEST) == [STATUS]
    # What was heard is stored in this turn; the connection counts from the next one on.
    assert ears.take(STATUS, mark(), STATUS) == [STATUS]
    assert ears.gate.wait() == 0.0
    assert ears.take() == [READY, REQUEST, REQUEST, STATUS]
    assert ears.take(REQUEST) == [REQUEST]
    assert ears.gate.wait() is None


def test_what_comes_behind_the_mark_keeps_its_place(ears: Ears) -> None:
    other = delivery("cancel")
    assert ears.take(THERE, READY, REQUEST, mark(), other) == [THERE]
    assert ears.take(STATUS) == [READY, REQUEST, other, STATUS]


def test_a_mark_whose_qos_was_raised_is_acknowledged(ears: Ears) -> None:
    ears.take(THERE, READY, mark(mid=9))
    assert ears.wire.acknowledged == [9]


def test_a_question_for_the_health_is_not_held_and_no_mark(ears: Ears) -> None:
    question = delivery("query", b"", "@hwsync")
    assert ears.take(THERE, READY, question) == [THERE, question]
    assert ears.take(REQUEST) == []


def test_a_broker_that_does_not_send_it_back_delays_the_start(
    ears: Ears, caplog: pytest.LogCaptureFixture
) -> None:
    ears.take(THERE, READY, REQUEST)
    assert ears.gate.wait() == SILENCE_S
    ears.clock.now += SILENCE_S - 0.1
    assert ears.take(STATUS) == [STATUS]  # while statuses come it is no silence
    ears.clock.now += SILENCE_S - 0.1
    assert ears.take() == []
    ears.clock.now += 0.1
    ears.take()
    assert ears.take() == [READY, REQUEST]
    assert "does not send back" in caplog.text


def test_no_time_passes_without_a_connection(ears: Ears) -> None:
    ears.take(THERE, READY, REQUEST, GONE)
    ears.clock.now += 2 * SILENCE_S
    assert ears.gate.wait() is None
    assert ears.take() == []
    assert ears.take(THERE, READY) == [THERE]
    assert ears.take(REQUEST) == []


def test_the_mark_of_an_earlier_connection_ends_nothing(ears: Ears) -> None:
    ears.take(THERE, READY, GONE)
    ears.take(THERE, READY, mark(1))
    assert ears.take(REQUEST) == []
    ears.take(mark(2))
    assert ears.take()[0] == READY


@pytest.mark.parametrize(("present", "kept"), [(True, 0), (False, 1)])
def test_what_was_held_over_a_lost_connection_comes_again_or_only_we_have_it(
    ears: Ears, present: bool, kept: int
) -> None:
    ears.take(THERE, READY, REQUEST, GONE)
    ears.take(Connected(present, 5), READY, mark(2))
    assert [one.mid for one in ears.take() if isinstance(one, Delivery)] == [0] * kept


def test_a_later_connection_holds_nothing(ears: Ears) -> None:
    ears.take(THERE, READY, mark())
    assert ears.take(GONE, THERE, READY, REQUEST) == [READY, GONE, THERE, READY, REQUEST]
    assert len(ears.wire.sent) == 1
