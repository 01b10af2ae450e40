"""The connection as a machine: a test is its loop, and plays the broker by hand."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from hwsync.address import BrokerUrl
from hwsync.protocol.errors import HwsyncError
from hwsync.transport import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    Connected,
    Connection,
    Delivery,
    Denied,
    Disconnected,
    Pump,
    Subscribed,
    Subscription,
    Waker,
)
from hwsync.transport.channel import PIECE
from hwsync.transport.connecting import CONNECT_S, V5_ANSWER_S
from hwsync.transport.link import LEAVE_S, Stage
from hwsync.transport.paho_client import KEEPALIVE_S
from hwsync.transport.paho_wire import LOOK_S, PahoWire
from hwsync.transport.window import WINDOW
from tests.support.ports import LOOPBACK, free_port
from tests.support.proxy import CONNECT, PUBACK, PUBLISH, SUBSCRIBE
from tests.support.wires import CONNACK, CONNACK_5, SUBACK, SUBACK_5, ByHand, Pumped

DISCONNECT = 14


@pytest.fixture
def broker() -> Iterator[ByHand]:
    by_hand = ByHand()
    yield by_hand
    by_hand.close()


def pumped(port: int, **options: Any) -> Pumped:
    url = BrokerUrl("mqtt", LOOPBACK, port)
    return Pumped(Connection(url, "c", subscriptions=[Subscription("t")], **options))


@pytest.fixture
def client(broker: ByHand) -> Iterator[Pumped]:
    """Connected over MQTT 3.1.1, and subscribed."""
    one = pumped(broker.port)
    probe(one, broker)
    broker.say(CONNACK)
    one.until(lambda: one.came(Connected))
    assert [packet.type for packet in broker.next()] == [SUBSCRIBE]
    assert not one.came(Subscribed)
    broker.say(SUBACK)
    one.until(lambda: one.came(Subscribed))
    yield one
    one.close()


def stage(client: Pumped) -> Stage | None:
    link = client.connection._link
    return None if link is None else link.stage


def probe(client: Pumped, broker: ByHand) -> int:
    """Until a CONNECT was sent; the version of MQTT that it asks for."""
    client.until(lambda: stage(client) is Stage.PROBING)
    broker.accept()
    (connect,) = broker.next()
    assert connect.type == CONNECT
    return connect.body[6]


def message(topic: str, payload: bytes, mid: int) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + mid.to_bytes(2, "big") + payload
    return bytes([0x32, len(body)]) + body


def test_it_rests_until_it_is_started() -> None:
    connection = Connection(BrokerUrl("mqtt", LOOPBACK, 1), "c", subscriptions=[])
    assert connection.fileno() is None
    assert connection.next_at is None
    assert connection.handle(time.monotonic()) == []
    assert not connection.publish("t", b"x")


def test_more_is_subscribed_to_one_after_the_other_and_at_the_next_connect_with_the_rest(
    client: Pumped, broker: ByHand
) -> None:
    told = len(client.came(Subscribed))
    for topic in ("u", "v", "v"):
        client.connection.subscribe([Subscription(topic)])
    client.connection.write()
    (first,) = broker.next()
    assert (first.type, first.body[-2:-1]) == (SUBSCRIBE, b"u")
    broker.say(bytes([0x90, 3, 0, first.mid, 1]))
    client.until(lambda: broker_was_asked(client))
    (second,) = broker.next()
    assert second.body[-2:-1] == b"v"
    assert len(client.came(Subscribed)) == told, "v was not answered"
    broker.say(bytes([0x90, 3, 0, second.mid, 1]))
    client.until(lambda: len(client.came(Subscribed)) == told + 1)
    assert [one.topic for one in client.connection.subscriptions] == ["t", "u", "v"]


def broker_was_asked(client: Pumped) -> bool:
    """Whether the SUBSCRIBE of what waited has left."""
    link = client.connection._link
    assert link is not None
    return [one.topic for one in link.subscribing.asked] == ["v"] and not link.wants_write


def test_what_comes_together_is_told_together(client: Pumped, broker: ByHand) -> None:
    broker.say(b"".join(message("t", b"%d" % number, number) for number in range(1, 101)))
    client.until(lambda: client.came(Delivery))
    heard = client.came(Delivery)
    assert [one.payload for one in heard] == [b"%d" % number for number in range(1, 101)]
    for one in heard:
        client.connection.acknowledge(one)
    client.connection.write()
    acknowledged = broker.next()
    assert {packet.type for packet in acknowledged} == {PUBACK}
    assert [packet.mid for packet in acknowledged] == list(range(1, 101))


def test_a_round_goes_out_together_and_no_more_than_a_window(
    client: Pumped, broker: ByHand
) -> None:
    for _ in range(WINDOW + 5):
        assert client.connection.publish("t", b"x")
    client.connection.write()
    sent = broker.next()
    assert [packet.type for packet in sent] == [PUBLISH] * WINDOW
    assert client.connection.backlog == WINDOW + 5
    assert not client.connection.all_acknowledged
    broker.say(b"".join(bytes([0x40, 2, 0, packet.mid]) for packet in sent))
    client.until(lambda: client.connection.backlog == 5)
    rest = broker.next()
    assert len(rest) == 5
    broker.say(b"".join(bytes([0x40, 2, 0, packet.mid]) for packet in rest))
    client.until(lambda: client.connection.all_acknowledged)


def test_a_broker_may_allow_less_than_a_window_and_qos_0_needs_no_place(broker: ByHand) -> None:
    client = pumped(broker.port, prefer_v5=True)
    probe(client, broker)
    receive_maximum = bytes([0x20, 6, 0, 0, 3, 33, 0, 3])
    broker.say(receive_maximum)
    client.until(lambda: client.came(Connected))
    broker.next()
    for payload in b"abcde":
        client.connection.publish("t", bytes([payload]))
    client.connection.publish("t", b"f", qos=0)
    client.connection.write()
    assert [packet.body[-1:] for packet in broker.next()] == [b"a", b"b", b"c", b"f"]
    assert [one.topic for one in client.connection._link.window.unanswered] == ["t"] * 5  # type: ignore[union-attr]
    client.close()


def test_a_refusal_of_a_message_makes_room_for_the_next(broker: ByHand) -> None:
    client = pumped(broker.port, prefer_v5=True)
    probe(client, broker)
    broker.say(CONNACK_5)
    client.until(lambda: client.came(Connected))
    broker.next()
    for _ in range(WINDOW + 1):
        client.connection.publish("t", b"x")
    client.connection.write()
    first, *others = broker.next()
    assert len(others) == WINDOW - 1
    not_authorized = 135
    broker.say(bytes([0x40, 3, 0, first.mid, not_authorized]))
    client.until(lambda: client.came(Denied))
    assert client.came(Denied) == [Denied("t", "not authorized")]
    assert len(broker.next()) == 1
    broker.say(b"".join(bytes([0x40, 3, 0, one.mid, 16]) for one in others))  # nobody listens
    client.until(lambda: client.connection.backlog == 1)
    assert len(client.came(Denied)) == 1
    client.close()


@pytest.mark.parametrize("topic", ["", "a/+", "#", "\ud800"])
def test_a_topic_that_is_none_is_refused_also_while_others_wait(client: Pumped, topic: str) -> None:
    for _ in range(WINDOW + 1):
        client.connection.publish("t", b"x")
    with pytest.raises(HwsyncError, match="cannot publish"):
        client.connection.publish(topic, b"x")


def test_a_packet_may_come_in_pieces(client: Pumped, broker: ByHand) -> None:
    whole = message("t", b"x" * 100, 1)
    for piece in (whole[:1], whole[1:2], whole[2:50]):
        broker.say(piece)
        client.signals += client.pump.wait(1.0)
        assert not client.came(Delivery)
    broker.say(whole[50:])
    client.until(lambda: client.came(Delivery))
    assert client.came(Delivery)[0].payload == b"x" * 100


def test_the_versions_are_tried_one_after_the_other(broker: ByHand) -> None:
    client = pumped(broker.port, prefer_v5=True)
    assert probe(client, broker) == 5
    client.after(V5_ANSWER_S - 0.5)
    assert stage(client) is Stage.PROBING
    client.after(V5_ANSWER_S + 0.1)
    assert probe(client, broker) == 4
    assert not client.signals, "one version less is no failure"
    client.after(CONNECT_S + 0.1)
    assert client.signals == [Disconnected("the broker does not answer to MQTT 3.1.1", False)]
    assert stage(client) is None
    client.close()


def test_the_version_that_worked_is_tried_alone_until_it_fails(broker: ByHand) -> None:
    client = pumped(broker.port, prefer_v5=True)
    assert probe(client, broker) == 5
    broker.say(CONNACK_5)
    client.until(lambda: client.came(Connected))
    broker.next()
    broker.say(SUBACK_5)
    client.until(lambda: client.came(Subscribed))
    broker.hang_up()
    client.until(lambda: client.came(Disconnected))
    assert probe(client, broker) == 5
    client.after(V5_ANSWER_S + 0.1)
    assert stage(client) is Stage.PROBING, "it is known to answer"
    client.after(CONNECT_S + 0.1)
    assert client.came(Disconnected)[-1].reason == "the broker does not answer to MQTT 5"
    client.after(CONNECT_S + BACKOFF_MAX_S)
    assert probe(client, broker) == 5
    client.after(V5_ANSWER_S + 0.1)
    assert probe(client, broker) == 4
    client.close()


@pytest.mark.parametrize("more", [b"", b"\xf0\0"], ids=["", "and an end at once"])
@pytest.mark.parametrize("present", [False, True])
def test_a_guest_looks_first_and_leaves_a_session_as_it_is(
    broker: ByHand, present: bool, more: bytes
) -> None:
    url = BrokerUrl("mqtt", LOOPBACK, broker.port, username="pi1")
    client = Pumped(Connection(url, "c", subscriptions=[Subscription("t")], guest=True))
    client.until(lambda: stage(client) is Stage.PROBING)
    broker.accept()
    (connect,) = broker.next()
    keep_the_session = 0
    assert connect.body[7] & 2 == keep_the_session
    broker.say(bytes([0x20, 2, int(present), 0]) + more)
    if present:
        client.until(lambda: client.came(Disconnected))
        assert client.came(Connected)[0].session_present
        assert "the broker takes us for pi1" in client.came(Disconnected)[0].reason
    else:
        probe(client, broker)
        assert not client.signals
    client.close()


def test_why_a_broker_hangs_up_is_looked_at_elsewhere(broker: ByHand) -> None:
    client = pumped(broker.port)
    probe(client, broker)
    broker.hang_up()
    client.until(lambda: stage(client) is Stage.ASKING_WHY)
    broker.accept()  # the look: whether it speaks TLS
    broker.hang_up()
    client.until(lambda: client.came(Disconnected))
    reason = "the broker does not answer to MQTT 3.1.1"
    assert client.signals == [Disconnected(reason, False)]
    client.close()


def test_the_pause_between_two_attempts_grows() -> None:
    client = pumped(free_port())
    for pause in (BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, 4 * BACKOFF_FIRST_S):
        failures = len(client.came(Disconnected))
        client.until(lambda count=failures: len(client.came(Disconnected)) > count)
        at = client.connection.next_at
        assert at is not None
        assert pause / 2 - 0.1 < at - time.monotonic() <= pause
    client.close()


def test_leaving_says_so_after_everything_else(client: Pumped, broker: ByHand) -> None:
    client.connection.publish("t", b"last")
    client.connection.leave()
    client.until(lambda: client.connection.is_over)
    assert [packet.type for packet in broker.next()] == [PUBLISH, DISCONNECT]
    assert broker.next() == []
    assert client.came(Disconnected)[0].was_connected
    assert client.connection.fileno() is None


def test_leaving_waits_for_a_broker_that_takes_nothing_but_not_long(
    client: Pumped, broker: ByHand
) -> None:
    while not client.connection.wants_write:
        client.connection.publish("t", b"x" * 1_000_000, qos=0)
        client.connection.write()
    client.connection.leave()
    client.after(0.0)
    assert not client.connection.is_over
    client.after(LEAVE_S + 0.1)
    assert client.connection.is_over


def test_leaving_while_it_connects_leaves_nothing_behind(broker: ByHand) -> None:
    client = pumped(broker.port)
    client.signals += client.pump.wait(0.0)
    assert stage(client) is Stage.CONNECTING
    client.connection.leave()
    client.until(lambda: client.connection.is_over)
    broker.accept()
    assert broker.next() == []
    assert client.signals == []
    client.close()


def test_a_connection_that_is_renewed_comes_back(client: Pumped, broker: ByHand) -> None:
    client.connection.reconnect("another password")
    assert not client.connection.connection
    client.until(lambda: client.came(Disconnected))
    assert client.came(Disconnected)[0].reason == "another password"
    assert [packet.type for packet in broker.next()] == [DISCONNECT]
    probe(client, broker)


def test_a_connection_that_is_renewed_while_it_is_made_is_made_again(broker: ByHand) -> None:
    first = BrokerUrl("mqtt", LOOPBACK, broker.port, username="old", password="p")
    addresses = [first, replace(first, username="new")]
    client = pumped(broker.port, address=lambda: addresses[0])
    probe(client, broker)
    addresses.pop(0)
    client.connection.reconnect("another password")
    assert [packet.type for packet in broker.next()] == [DISCONNECT]
    client.until(lambda: stage(client) is Stage.PROBING)
    broker.accept()
    (connect,) = broker.next()
    assert b"new" in connect.body
    assert client.signals == [], "nobody is told that it failed"
    client.close()


def test_one_that_is_renewed_while_it_rests_does_not_wait_for_its_turn(broker: ByHand) -> None:
    client = pumped(free_port())
    client.until(lambda: client.came(Disconnected))
    client.connection.url = BrokerUrl("mqtt", LOOPBACK, broker.port)
    client.connection._connect_at = time.monotonic() + BACKOFF_MAX_S
    client.connection.reconnect("another password")
    probe(client, broker)
    client.close()


@pytest.mark.parametrize("clean", [True, False])
def test_with_a_session_a_broker_may_send_no_more_than_a_window_ahead(
    broker: ByHand, clean: bool
) -> None:
    client = pumped(broker.port, prefer_v5=True, clean_session=clean)
    client.until(lambda: stage(client) is Stage.PROBING)
    broker.accept()
    (connect,) = broker.next()
    receive_maximum = bytes([0x21]) + WINDOW.to_bytes(2, "big")
    assert (receive_maximum in connect.body) is not clean
    assert (connect.body[10] == 0) is clean, "plain amqtt is silent to properties"
    client.close()


@pytest.mark.parametrize("size", [0, 2 * PIECE])
def test_a_ping_may_be_answered_behind_much_else(client: Pumped, broker: ByHand, size: int) -> None:
    """It was sent, then one round took longer than the keep-alive, and has just been said."""
    link = client.connection._link
    assert link is not None
    assert isinstance(link._wire, PahoWire)
    paho = link._wire._client
    long_ago = time.monotonic() - KEEPALIVE_S - 1
    paho._ping_t = long_ago
    paho._last_bytes_received = long_ago - 1
    paho._last_msg_out = time.monotonic()
    much = b"".join(message("t", b"x" * 100, 1 + number % 9) for number in range(size // 100))
    pingresp = bytes([0xD0, 0])
    if size:
        threading.Thread(target=broker.say, args=(much + pingresp,)).start()
        assert select.select([client.connection.fileno()], [], [], 10.0)[0]
    client.after(2 * LOOK_S)
    assert bool(client.connection.connection) is bool(size), "a silent broker is given up"
    client.close()


@pytest.mark.parametrize(("blocked", "hung_up"), [(1.0, True), (1.5 * KEEPALIVE_S, False)])
def test_an_end_after_nothing_was_done_for_long_is_not_the_messages_fault(
    client: Pumped, broker: ByHand, blocked: float, hung_up: bool
) -> None:
    """A save that took so long kept the pings back, and the broker has ended the connection."""
    client.after(blocked)
    client.connection.publish("t", b"x")
    client.connection.write()
    broker.next()
    broker.hang_up()
    client.until(lambda: client.came(Disconnected))
    (end,) = client.came(Disconnected)
    assert end.hung_up is hung_up


def test_a_pump_is_woken_by_another_thread() -> None:
    waker = Waker()
    pump = Pump(Connection(BrokerUrl("mqtt", LOOPBACK, 1), "c", subscriptions=[]), waker)
    threading.Timer(0.05, waker.wake).start()
    assert pump.wait(None) == []
    waker.wake()
    waker.wake()
    assert pump.wait(None) == [], "before the wait"
    began = time.monotonic()
    assert pump.wait(0.05) == []
    assert time.monotonic() - began >= 0.05, "no wake-up is left over"
    waker.close()


def test_what_was_said_is_on_its_way_before_the_wait(client: Pumped, broker: ByHand) -> None:
    assert client.connection.publish("t", b"x")
    client.signals += client.pump.wait(0.0)
    assert [packet.type for packet in broker.next()] == [PUBLISH]
