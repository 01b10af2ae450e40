"""An account that may not be an analyst is told so, by a refusal or by silence."""

from __future__ import annotations

import pytest

from hwsync.analyst.entitled import GIVEN_BACK_S, Entitled
from hwsync.protocol.errors import Refused
from hwsync.protocol.wire.analyst import GONE, Offer, encode_offer
from hwsync.transport import Delivery, Denied, Disconnected, Subscribed

TOPIC = "hw/@hwsync/analysts/check"
OFFER = Offer(True, {"check1": "1"}, 0.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def own(offer: Offer = OFFER, topic: str = TOPIC) -> Delivery:
    return Delivery(topic, encode_offer(offer), 1, True, False, 1, 1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def entitled(clock: Clock) -> Entitled:
    return Entitled(TOPIC, "check", clock)


def test_a_broker_that_refuses_is_believed(entitled: Entitled) -> None:
    entitled.hear([Subscribed(), Denied("hw/pi1/query", "Not authorized")])
    with pytest.raises(Refused, match="check may not be an analyst here") as refused:
        entitled.hear([Denied(TOPIC, "Not authorized")])
    assert "hwsync analyst add NAME" in refused.value.hint
    assert "hwsync analyst --config analysts/NAME.toml --dir" in refused.value.hint


@pytest.mark.parametrize("others", [[], [own(GONE)], [own(topic=TOPIC + "2")]])
def test_one_that_gives_nothing_back_has_taken_nothing(
    entitled: Entitled, clock: Clock, others: list[Delivery]
) -> None:
    entitled.hear([Subscribed(), *others])
    clock.now += GIVEN_BACK_S - 0.1
    entitled.hear([Subscribed()])  # the topic itself is heard now
    assert entitled.patience == pytest.approx(0.1)
    clock.now += 0.2
    with pytest.raises(Refused, match="does not give back what it offers"):
        entitled.hear([])


def test_once_it_was_given_back_nothing_is_waited_for(entitled: Entitled, clock: Clock) -> None:
    entitled.hear([Subscribed()])
    entitled.hear([own()])
    for signal in (Disconnected("gone", True), Subscribed()):
        clock.now += 100.0
        entitled.hear([signal])
    assert entitled.patience == float("inf")


def test_a_connection_that_goes_is_no_refusal(entitled: Entitled, clock: Clock) -> None:
    entitled.hear([Subscribed(), Disconnected("gone", True)])
    clock.now += 100.0
    entitled.hear([])
    entitled.hear([Subscribed()])
    assert entitled.patience == GIVEN_BACK_S
