"""When a refused SUBSCRIBE is tried again, and when it is believed."""

from __future__ import annotations

import pytest

from hwsync.transport.signals import Subscribed, Subscription
from hwsync.transport.subscribing import BELIEVED, FIRST_S, MAX_S, Subscribing

WANTED = (Subscription("hw/+/request"), Subscription("hw/+/status"))


@pytest.fixture
def subscribing() -> Subscribing:
    made = Subscribing()
    made.asked = WANTED
    return made


def test_what_is_granted_is_told_at_once(subscribing: Subscribing) -> None:
    assert subscribing.answered([True, True], 1.0) == Subscribed()
    assert subscribing.wait(1.0) is None
    assert subscribing.again(99.0) == ()


def test_only_what_was_refused_is_asked_for_again_and_nothing_is_told_before(
    subscribing: Subscribing,
) -> None:
    assert subscribing.answered([False, True], 1.0) is None
    assert subscribing.wait(1.0) == FIRST_S
    assert subscribing.again(1.0) == ()
    assert subscribing.again(1.0 + FIRST_S) == WANTED[:1]
    subscribing.asked = WANTED[:1]
    assert subscribing.wait(9.0) is None, "it is under way"
    assert subscribing.answered([True], 9.0) == Subscribed()


def test_a_refusal_is_believed_after_a_while_and_asked_about_further_on(
    subscribing: Subscribing, caplog: pytest.LogCaptureFixture
) -> None:
    now, told, pauses = 0.0, [], []
    for _ in range(2_000):
        told.append(subscribing.answered([False, False], now))
        pauses.append(subscribing.wait(now) or 0.0)
        now += pauses[-1]
        subscribing.asked = subscribing.again(now)
        assert subscribing.asked == WANTED
    assert told[: BELIEVED - 1] == [None] * (BELIEVED - 1)
    assert told[BELIEVED - 1] == Subscribed(("hw/+/request", "hw/+/status"))
    assert told[BELIEVED:] == [None] * (2_000 - BELIEVED)
    assert caplog.text.count("refuses to let us subscribe to hw/+/request, hw/+/status") == 1
    assert (pauses[:3], max(pauses)) == ([FIRST_S, 2 * FIRST_S, 4 * FIRST_S], MAX_S)
    assert subscribing.answered([True, True], now) is None
    assert "lets us subscribe to all of it now" in caplog.text


def test_what_is_asked_for_later_is_not_granted_while_the_first_is_refused(
    subscribing: Subscribing,
) -> None:
    assert subscribing.answered([False, True], 1.0) is None
    subscribing.asked = later = (Subscription("hw/pi1/status"),)
    assert subscribing.wait(9.0) is None, "one after the other"
    assert subscribing.again(9.0) == ()
    assert subscribing.answered([True], 9.0) is None
    subscribing.asked = subscribing.again(9.0)
    assert subscribing.asked == WANTED[:1]
    assert subscribing.answered([True], 9.0) == Subscribed()
    subscribing.asked = later
    assert subscribing.answered([False], 9.0) is None
    assert subscribing.again(99.0) == later
