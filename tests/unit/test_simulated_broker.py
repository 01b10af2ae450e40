"""The pretended broker: what MQTT says, and the habits by which real ones depart from it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from hwsync.testing.broker import (
    AMQTT,
    AMQTT_WITH_LOGIN,
    MOSQUITTO,
    Broker,
    Habits,
    Packet,
    Session,
    matches,
)
from hwsync.transport import Subscription, Will


class Client:
    """One end of a connection that keeps what comes."""

    def __init__(self) -> None:
        self.heard: list[Packet] = []
        self.closed = False

    def deliver(self, packet: Packet) -> None:
        self.heard.append(replace(packet))

    def close(self) -> None:
        self.closed = True


class Lab:
    def __init__(self, habits: Habits = MOSQUITTO) -> None:
        self.now = 0.0
        self.faults: list[str] = []
        self.broker = Broker(
            habits, Random(1), lambda: self.now, lambda kind, _: self.faults.append(kind),
            lambda _, action: action(),
        )  # fmt: skip

    def connect(self, *filters: str, clean: bool = False, id: str = "c", will: Will | None = None
                ) -> tuple[Client, Session, bool]:  # fmt: skip
        client = Client()
        session, present = self.broker.connect(id, clean, will, client)
        self.broker.resume(session)
        self.broker.subscribe(session, [Subscription(one) for one in filters])
        return client, session, present

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        self.broker.publish(Packet(topic, payload, 1, retain, self.now))


@pytest.mark.parametrize(
    ("pattern", "topic", "does"),
    [
        ("hw/+/status", "hw/pi1/status", True),
        ("hw/+/status", "hw/pi1/request", False),
        ("hw/+/status", "hw/pi1/status/x", False),
        ("hw/#", "hw/pi1/status", True),
        ("hw/pi1/result/+", "hw/pi1/result", False),
    ],
)
def test_filters(pattern: str, topic: str, does: bool) -> None:
    assert matches(pattern, topic) is does


def test_unacknowledged_messages_come_again_marked_and_with_their_identifier() -> None:
    lab = Lab()
    first, session, _ = lab.connect("a")
    lab.publish("a", b"1")
    lab.publish("a", b"2")
    lab.broker.acknowledge(session, first.heard[1].mid)
    lab.broker.gone(first)
    lab.publish("a", b"3")
    again, _, present = lab.connect("a")
    assert present
    assert [(one.payload, one.dup) for one in again.heard] == [(b"1", True), (b"3", False)]
    assert again.heard[0].mid == first.heard[0].mid


@pytest.mark.parametrize(
    ("habits", "came"),
    [(AMQTT, []), (AMQTT_WITH_LOGIN, [(b"2", True)])],
    ids=lambda value: getattr(value, "name", ""),
)
def test_amqtt_does_not_send_again_and_flags_what_it_queued(
    habits: Habits, came: list[tuple[bytes, bool]]
) -> None:
    lab = Lab(habits)
    first, _, _ = lab.connect("a")
    lab.publish("a", b"1")
    lab.broker.gone(first)
    lab.publish("a", b"2")
    again, _, _ = lab.connect("a")
    assert [(one.payload, one.retain) for one in again.heard] == came
    assert "not sent again" in lab.faults


def test_a_will_is_published_by_an_end_that_was_not_polite() -> None:
    lab = Lab()
    watcher, _, _ = lab.connect("w", id="watcher")
    for polite in (True, False):
        client, _, _ = lab.connect(id="c", will=Will("w", b"gone"))
        lab.broker.gone(client, politely=polite)
    assert [one.payload for one in watcher.heard] == [b"gone"]
    assert lab.broker.retained["w"].payload == b"gone"


def test_a_second_client_of_one_id_ends_the_first() -> None:
    lab = Lab()
    first, _, _ = lab.connect("a")
    second, _, _ = lab.connect("a")
    assert (first.closed, second.closed) == (True, False)
    lab.publish("a")
    assert (len(first.heard), len(second.heard)) == (0, 1)


def test_what_is_retained_is_sent_to_who_subscribes_and_may_be_cleared() -> None:
    lab = Lab()
    lab.publish("s", b"1", retain=True)
    lab.publish("s", b"2", retain=True)
    assert [(one.payload, one.retain) for one in lab.connect("s")[0].heard] == [(b"2", True)]
    lab.publish("s", b"", retain=True)
    assert lab.connect("s", id="d")[0].heard == []


def test_a_kill_takes_back_the_last_second() -> None:
    lab = Lab()
    client, session, _ = lab.connect("a")
    lab.publish("s", b"old", retain=True)
    lab.publish("a", b"1")
    lab.now = 10.0
    lab.publish("s", b"new", retain=True)
    lab.publish("a", b"2")
    for packet in client.heard:
        lab.broker.acknowledge(session, packet.mid)
    lab.broker.stop()
    lab.broker.start(forget_s=0.5)
    again, _, present = lab.connect("a")
    assert present
    # The acknowledgement is forgotten, and so is the message that came just then.
    assert [(one.payload, one.dup) for one in again.heard] == [(b"1", True)]
    assert lab.broker.retained["s"].payload == b"old"


def test_a_broker_that_forgets_everything() -> None:
    lab = Lab()
    lab.connect("a")
    lab.publish("s", retain=True)
    lab.broker.stop()
    lab.broker.start(forget_s=0.0, everything=True)
    assert lab.connect("a")[2] is False
    assert lab.broker.retained == {}
