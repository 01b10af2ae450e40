"""A pretended world's connection: the real machine, on a wire without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from hwsync.testing.broker import AMQTT, MOSQUITTO, Broker, Habits
from hwsync.testing.network import DOWN, UP, Cable
from hwsync.testing.port import Port
from hwsync.testing.schedule import Schedule
from hwsync.transport import (
    BACKOFF_MAX_S,
    Connected,
    Delivery,
    Disconnected,
    Signal,
    Subscribed,
    Subscription,
    Will,
)
from hwsync.transport.paho_client import KEEPALIVE_S
from hwsync.transport.window import WINDOW

SOON_S = 10.0


class World:
    """A broker, and one client of it."""

    def __init__(self, habits: Habits = MOSQUITTO, **options: Any) -> None:
        self.schedule, dice = Schedule(), Random(1)
        self.broker = Broker(
            habits, dice, lambda: self.schedule.now, lambda *_: None, self.schedule.after
        )
        self.cable = Cable(self.schedule, dice, lambda: None)
        self.heard: list[Signal] = []
        self.port = Port(
            self.schedule, self.broker, self.cable, dice, "c",
            on_signal=self.heard.append, subscriptions=[Subscription("a")], **options,
        )  # fmt: skip
        self.port.start()
        self.until(lambda: self.came(Subscribed))

    def came(self, kind: type[Signal]) -> list[Any]:
        return [signal for signal in self.heard if isinstance(signal, kind)]

    def until(self, condition: Callable[[], Any], seconds: float = SOON_S) -> None:
        limit = self.schedule.now + seconds
        while not condition():
            assert self.schedule.run_next()
            assert self.schedule.now < limit


def test_messages_go_and_come_and_no_more_than_a_window_at_a_time() -> None:
    world = World(clean_session=False)
    for number in range(WINDOW + 5):
        assert world.port.publish("a", b"%d" % number)
    assert not world.port.all_acknowledged
    world.until(lambda: world.came(Delivery))
    assert len(world.came(Delivery)) <= WINDOW
    world.until(lambda: world.port.all_acknowledged)
    for one in world.came(Delivery):
        world.port.acknowledge(one)
    world.until(lambda: len(world.came(Delivery)) == WINDOW + 5)
    assert [one.payload for one in world.came(Delivery)] == [b"%d" % n for n in range(WINDOW + 5)]


@pytest.mark.parametrize(("habits", "version"), [(MOSQUITTO, 5), (AMQTT, 4)])
def test_the_versions_are_tried_one_after_the_other(habits: Habits, version: int) -> None:
    world = World(habits, prefer_v5=True)
    assert world.came(Connected) == [Connected(False, version)]
    assert world.came(Disconnected) == []


def test_a_broker_that_hangs_up_on_a_message_is_seen_to_do_so() -> None:
    world = World(replace(MOSQUITTO, largest=100), prefer_v5=True)
    world.port.publish("b", b"x" * 101)
    world.until(lambda: world.came(Disconnected))
    (end,) = world.came(Disconnected)
    assert (end.hung_up, [one.topic for one in end.unanswered]) == (True, ["b"])
    assert world.port.refused_at > 0.0
    world.until(lambda: len(world.came(Subscribed)) == 2)


def test_each_end_notices_silence_and_it_comes_back_when_that_is_over() -> None:
    world = World(will=Will("gone", b"x"))
    world.port.publish("b", b"x")
    world.cable.block(UP, DOWN)
    world.port.silent()
    world.until(lambda: world.came(Disconnected), 2 * KEEPALIVE_S)
    assert not world.came(Disconnected)[0].hung_up
    world.until(lambda: "gone" in world.broker.retained, 2 * KEEPALIVE_S)
    world.cable.heal()
    world.until(lambda: len(world.came(Subscribed)) == 2, 2 * BACKOFF_MAX_S)


def test_a_process_that_was_killed_leaves_its_will_and_nothing_else() -> None:
    world = World(will=Will("gone", b"x"))
    world.port.end()
    world.until(lambda: "gone" in world.broker.retained)
    while world.schedule.run_next():
        pass
    assert world.came(Disconnected) == []
    assert len(world.came(Connected)) == 1
