"""Over MQTT 3.1.1 the coordinator's own statuses come back: they are passed over, and only they."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.coordinator import echoes as module
from hwsync.coordinator.echoes import Echoes
from hwsync.protocol.topics import Topics
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed
from tests.support.coordinator import Acknowledged, Lab, sent

OLD = Connected(False, 4)


class Echoing:
    """A lab whose broker sends back what was published."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.echoes = Echoes(lab.wire, Topics("hw"))
        lab.coordinator.publishing.outbox._publisher = self.echoes

    def said(self, *signals: Signal) -> list[Delivery]:
        """The statuses of one round, as they come back."""
        deeds = self.lab.step(*self.echoes.without_ours(signals))
        return [
            Delivery(one.topic, one.payload, 0, False, False, 0, 1) for one in sent(deeds, "status")
        ]


@pytest.fixture
def echoing(tmp_path: Path) -> Iterator[Echoing]:
    with Lab(tmp_path / "hwsync.db") as lab:
        yield Echoing(lab)


def test_what_comes_back_is_passed_over_once(echoing: Echoing) -> None:
    echoing.said(OLD, Subscribed())
    first, second = echoing.said(
        echoing.lab.delivery("request", b"1"), echoing.lab.delivery("collected")
    )
    assert echoing.echoes.without_ours([first, second]) == []
    assert echoing.echoes.without_ours([first]) == [first], "this one was said by somebody else"


def test_a_status_of_anybody_else_is_heard(echoing: Echoing) -> None:
    echoing.said(OLD, Subscribed())
    (ours,) = echoing.said(echoing.lab.delivery("request", b"1"))
    others = [
        replace(ours, payload=ours.payload + b" "),
        replace(ours, topic="hw/pi2/status"),
        echoing.lab.delivery("request", ours.payload),
    ]
    assert echoing.echoes.without_ours(others) == others
    assert echoing.echoes.without_ours([ours]) == []


def test_its_qos_may_have_been_raised(echoing: Echoing) -> None:
    echoing.said(OLD, Subscribed())
    (ours,) = echoing.said(echoing.lab.delivery("request", b"1"))
    echoing.lab.wire.deeds = []
    assert echoing.echoes.without_ours([replace(ours, qos=1, mid=9)]) == []
    assert echoing.lab.wire.deeds == [Acknowledged(9)]


@pytest.mark.parametrize("signals", [[Disconnected("x", True)], [OLD], [Connected(False, 5)]])
def test_nothing_comes_back_on_another_connection(echoing: Echoing, signals: list[Signal]) -> None:
    echoing.said(OLD, Subscribed())
    (ours,) = echoing.said(echoing.lab.delivery("request", b"1"))
    assert echoing.echoes.without_ours([*signals, ours]) == [*signals, ours]


def test_mqtt_5_sends_nothing_back(echoing: Echoing) -> None:
    echoing.said(Connected(False, 5), Subscribed())
    (same,) = echoing.said(echoing.lab.delivery("request", b"1"))
    assert echoing.echoes.without_ours([same]) == [same]


def test_what_never_comes_back_does_not_fill_memory(
    echoing: Echoing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    echoing.said(OLD, Subscribed())
    said = [
        status
        for user in ("a", "b", "c")
        for status in echoing.said(echoing.lab.delivery("request", b"1", user=user))
    ]
    assert echoing.echoes.without_ours(said) == said[:1]
