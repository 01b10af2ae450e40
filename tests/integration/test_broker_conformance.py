"""What MQTT 3.1.1 says, packet by packet, to mosquitto and to ``hwsync broker``: both do the same.

The numbers in brackets are those of the specification's statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product

import pytest

from tests.support.brokers import AmqttBroker, Broker, MosquittoBroker
from tests.support.fuzz_packets import (
    CONNACK_OK,
    DISCONNECT,
    PINGREQ,
    connect,
    packet,
    publish,
    subscribe,
    text,
)
from tests.support.programs import require_program
from tests.support.raw import Raw

CONNACK_KEPT = b"\x20\x02\x01\x00"  # the session was there
PINGRESP = b"\xd0\x00"
KEEP = 0  # flags of a CONNECT that wants a session
MANY = 300  # messages; more than a window


def ack(first: int, mid: int) -> bytes:
    """PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70, UNSUBACK 0xb0."""
    return packet(first, mid.to_bytes(2, "big"))


def suback(*codes: int, mid: int = 2) -> bytes:
    return packet(0x90, mid.to_bytes(2, "big") + bytes(codes))


class Client(Raw):
    """One that has come in."""

    def __init__(self, broker: Broker, name: str, flags: int = 2, more: bytes = b"",
                 *, answer: bytes = CONNACK_OK) -> None:  # fmt: skip
        super().__init__(broker.port)
        self.says(connect(name, flags=flags, more=more), answer)

    def says(self, sent: bytes, answer: bytes) -> None:
        """Exactly that is answered."""
        self.sendall(sent)
        self.hears(answer)

    def hears(self, wanted: bytes) -> None:
        """Exactly that comes next."""
        assert self.exactly(len(wanted)).hex(" ") == wanted.hex(" ")

    def hears_no_more(self) -> None:
        """Nothing has come up to now."""
        self.says(PINGREQ, PINGRESP)


@pytest.fixture(scope="module", params=[MosquittoBroker, AmqttBroker], ids=lambda kind: kind.name)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """One for all tests: each takes seconds to start."""
    require_program("mosquitto", "mosquitto")
    one: Broker = request.param(tmp_path_factory.mktemp(request.param.name))
    one.start()
    yield one
    one.stop()


@pytest.fixture
def broker(running: Broker) -> Iterator[Broker]:
    """It has forgotten everything after each test."""
    yield running
    for name in ("me", "away", "id"):
        Client(running, name).close()
    with Client(running, "looks") as looks, Client(running, "clears") as clears:
        looks.sendall(subscribe("#", 0) + PINGREQ)
        kept = b""
        while not kept.endswith(PINGRESP):
            kept += looks.recv(1)
        for topic in {b"a", b"b", b"will"} | set(re.findall(rb"kept/[0-9]+", kept)):
            clears.sendall(publish(topic, b"", 0, 0, 1))
        clears.hears_no_more()


@pytest.fixture
def ours(broker: Broker) -> Broker:
    """Only ``hwsync broker``."""
    if broker.name == "mosquitto":
        pytest.skip("mosquitto has its own way")
    return broker


def told(broker: Broker, *messages: bytes) -> None:
    """Somebody publishes that, at QoS 1."""
    with Client(broker, "teller") as teller:
        for message in messages:
            teller.says(message, ack(0x40, 1))
        teller.sendall(DISCONNECT)
        assert teller.until_closed() == b""


@pytest.mark.parametrize(("sent", "wanted"), list(product((0, 1, 2), (0, 1, 2))))
def test_a_message_has_the_lower_qos(broker: Broker, sent: int, wanted: int) -> None:
    """[MQTT-3.8.4-6]; live, and retained."""
    lower = min(sent, wanted)
    with Client(broker, "one") as one, Client(broker, "other") as other:
        one.says(subscribe("a", wanted), suback(wanted))
        other.sendall(publish("a", b"x", sent, 7, 1) + ack(0x62, 7) * (sent == 2))
        other.hears([b"", ack(0x40, 7), ack(0x50, 7) + ack(0x70, 7)][sent])
        one.hears(publish("a", b"x", lower, 1))
        other.says(subscribe("a", wanted), suback(wanted) + publish("a", b"x", lower, 1, 1))


def test_what_waited_comes_without_retain(broker: Broker) -> None:
    """[MQTT-3.3.1-9]."""
    with Client(broker, "away", KEEP) as away:
        away.says(subscribe("a", 1) + subscribe("b", 0, 3), suback(1) + suback(0, mid=3))
        away.sendall(DISCONNECT)
        away.until_closed()
    told(broker, publish("a", b"1", 1, 1, 1), publish("b", b"2", 1, 1, 1), publish("a", b"3", 1, 1))
    with Client(broker, "away", KEEP, answer=CONNACK_KEPT) as away:
        away.hears(publish("a", b"1", 1, 1) + publish("a", b"3", 1, 2))
        away.hears_no_more()  # neither what had no QoS, nor what is retained


def test_what_was_not_acknowledged_comes_again(broker: Broker) -> None:
    """[MQTT-4.4.0-1], in order; what came meanwhile comes behind it."""
    with Client(broker, "me", KEEP) as me:
        me.says(subscribe("a", 1), suback(1))
        told(broker, publish("a", b"1", 1, 1), publish("a", b"2", 1, 1), publish("a", b"3", 1, 1))
        me.hears(publish("a", b"1", 1, 1) + publish("a", b"2", 1, 2) + publish("a", b"3", 1, 3))
        me.says(ack(0x40, 2) + PINGREQ, PINGRESP)
    told(broker, publish("a", b"4", 1, 1))
    with Client(broker, "me", KEEP, answer=CONNACK_KEPT) as me:
        again = 8  # DUP
        me.hears(publish("a", b"1", 1, 1, again) + publish("a", b"3", 1, 3, again))
        me.hears(publish("a", b"4", 1, 4))
        me.says(ack(0x40, 1) + ack(0x40, 3) + ack(0x40, 4) + PINGREQ, PINGRESP)
    with Client(broker, "me", KEEP, answer=CONNACK_KEPT) as me:
        me.hears_no_more()


def test_a_message_to_a_client_at_qos_2_goes_on_where_it_was(broker: Broker) -> None:
    with Client(broker, "me", KEEP) as me:
        me.says(subscribe("a", 2), suback(2))
        with Client(broker, "other") as other:
            other.says(publish("a", b"1", 2, 9), ack(0x50, 9))
            other.says(ack(0x62, 9), ack(0x70, 9))
        me.hears(publish("a", b"1", 2, 1))
    with Client(broker, "me", KEEP, answer=CONNACK_KEPT) as me:
        me.hears(publish("a", b"1", 2, 1, 8))
        me.says(ack(0x50, 1), ack(0x62, 1))
    with Client(broker, "me", KEEP, answer=CONNACK_KEPT) as me:
        me.hears(ack(0x62, 1))
        me.says(ack(0x70, 1) + PINGREQ, PINGRESP)


def test_a_message_from_a_client_at_qos_2_is_passed_on_once(broker: Broker) -> None:
    """[MQTT-4.3.3-2], also over connections, and where the answers were lost."""
    with Client(broker, "hears") as hears:
        hears.says(subscribe("a", 0), suback(0))
        with Client(broker, "me", KEEP) as me:
            me.says(publish("a", b"1", 2, 9), ack(0x50, 9))
            me.says(publish("a", b"1", 2, 9, 8), ack(0x50, 9))
        with Client(broker, "me", KEEP, answer=CONNACK_KEPT) as me:
            me.says(publish("a", b"1", 2, 9, 8), ack(0x50, 9))
            hears.hears_no_more()
            me.says(ack(0x62, 9), ack(0x70, 9))
        with Client(broker, "me", KEEP, answer=CONNACK_KEPT) as me:
            me.says(ack(0x62, 9), ack(0x70, 9))
        hears.hears(publish("a", b"1"))
        hears.hears_no_more()


def test_what_nobody_knows_is_answered_all_the_same(broker: Broker) -> None:
    with Client(broker, "me") as me:
        me.says(ack(0x62, 5), ack(0x70, 5))
        me.says(ack(0x40, 5) + ack(0x70, 5) + PINGREQ, PINGRESP)


def test_a_new_subscription_takes_the_place_of_the_old_one(broker: Broker) -> None:
    """[MQTT-3.8.4-3]: with its QoS, and with what is retained."""
    told(broker, publish("a", b"kept", 1, 1, 1))
    with Client(broker, "me") as me:
        me.says(subscribe("a", 1), suback(1) + publish("a", b"kept", 1, 1, 1))
        me.sendall(ack(0x40, 1))
        me.says(subscribe("a", 0), suback(0) + publish("a", b"kept", 0, 0, 1))
        told(broker, publish("a", b"live", 1, 1))
        me.hears(publish("a", b"live", 0))
        me.says(packet(0xA2, b"\0\5" + text("a")), ack(0xB0, 5))
        told(broker, publish("a", b"gone", 1, 1))
        me.hears_no_more()


def test_a_session_that_goes_on_is_not_sent_what_is_retained(broker: Broker) -> None:
    with Client(broker, "me", KEEP) as me:
        me.says(subscribe("a", 0), suback(0))
    told(broker, publish("a", b"kept", 1, 1, 1))
    with Client(broker, "me", KEEP, answer=CONNACK_KEPT) as me:
        me.hears_no_more()


def test_who_subscribes_and_publishes_at_once_hears_himself(broker: Broker) -> None:
    with Client(broker, "me") as me:
        for number in range(50):
            topic = f"own/{number}"
            me.sendall(publish(f"kept/{number}", b"k", 0, 0, 1) + subscribe(f"kept/{number}", 0))
            me.sendall(subscribe(topic, 0) + publish(topic, b"x"))
            me.hears(suback(0) + publish(f"kept/{number}", b"k", 0, 0, 1))
            me.hears(suback(0) + publish(topic, b"x"))


def test_a_client_that_leaves_at_once_has_its_answers(broker: Broker) -> None:
    """And no will: it has said that it goes [MQTT-3.1.2-10]."""
    with Client(broker, "hears") as hears:
        hears.says(subscribe("#", 0), suback(0))
        for number in range(20):
            with Raw(broker.port) as raw:
                will = text("will") + text("x")
                raw.sendall(connect(f"short-{number}", flags=6, more=will))
                raw.sendall(publish("last", b"x", 1, 5) + DISCONNECT)
                assert raw.until_closed() == CONNACK_OK + ack(0x40, 5)
            hears.hears(publish("last", b"x"))
        hears.hears_no_more()


def test_more_than_a_window_comes_in_order(broker: Broker) -> None:
    with Client(broker, "me") as me, Client(broker, "other") as other:
        me.says(subscribe("a", 1), suback(1))
        for number in range(MANY):
            other.says(publish("a", b"%d" % number, 1, number + 1), ack(0x40, number + 1))
        for number in range(MANY):
            message = publish("a", b"%d" % number, 1, number + 1)
            me.says(b"", message)
            me.sendall(ack(0x40, number + 1))


def test_on_the_brokers_own_topics_nothing_is_published(broker: Broker) -> None:
    """And that is no error: the sender is answered."""
    with Client(broker, "me") as me:
        me.says(subscribe("$x/#", 0) + subscribe("$SYS/mine", 0, 3), suback(0) + suback(0, mid=3))
        me.says(publish("$SYS/mine", b"x", 1, 5), ack(0x40, 5))
        me.says(publish("$x/y", b"x"), publish("$x/y", b"x"))
        me.hears_no_more()


def test_a_will_has_the_lower_qos_too(broker: Broker) -> None:
    with Client(broker, "hears") as hears:
        hears.says(subscribe("will", 2), suback(2))
        Client(broker, "dies", 0x2E, text("will") + text("gone")).close()  # QoS 1, retained
        hears.hears(publish("will", b"gone", 1, 1))
    with Client(broker, "late") as late:
        late.says(subscribe("will", 0), suback(0) + publish("will", b"gone", 0, 0, 1))


def test_the_will_of_a_connection_is_its_own(ours: Broker) -> None:
    """Where its client comes again; mosquitto sends none then, as the session goes on."""
    with ExitStack() as stack:
        hears = stack.enter_context(Client(ours, "hears"))
        hears.says(subscribe("will", 0), suback(0))
        stack.enter_context(Client(ours, "me", 4, text("will") + text("older")))
        newer = Client(ours, "me", 4, text("will") + text("newer"), answer=CONNACK_KEPT)
        hears.hears(publish("will", b"older"))
        newer.close()
        hears.hears(publish("will", b"newer"))


@pytest.mark.parametrize(
    "data",
    [
        connect("x", flags=3), connect("x", flags=0x0A), connect("x", flags=0x22),
        connect("x", flags=0x1E, more=text("w") + text("x")), connect("x", flags=6, more=text("w")),
        connect("x", more=b"y"), connect("x", flags=0x42, more=text("p")),
        connect("x", flags=0x82), connect("x", flags=0xC2, more=text("n")), connect("x\x07"),
        connect("x", flags=0x82, more=text("n\x01")), connect("x", flags=6, more=text("w\x7f")),
        packet(0x10, text("MQTX") + b"\4\2\0\0" + text("x")),
    ],
    ids=lambda data: data.hex()[20:],
)  # fmt: skip
def test_a_connect_that_is_wrong_is_hung_up_on(broker: Broker, data: bytes) -> None:
    with Raw(broker.port) as raw:
        raw.sendall(data)
        assert raw.until_closed() == b""


@pytest.mark.parametrize(
    "data",
    [
        subscribe("", 0), subscribe("a#", 0), subscribe("a/#/b", 0), subscribe("a+/b", 0),
        subscribe("a\x01", 0), packet(0xA2, b"\0\1" + text("")), publish("a\x1f", b""),
        publish("/" * 201, b""), subscribe("/" * 201), ack(0x50, 1), ack(0x70, 1),
    ],
    ids=lambda data: data.hex()[:20],
)  # fmt: skip
def test_what_is_wrong_ends_the_connection(broker: Broker, data: bytes) -> None:
    """The last two: an answer of QoS 2 to a message at QoS 1."""
    with Client(broker, "me") as me:
        me.says(subscribe("own", 1), suback(1))
        me.says(publish("own", b"x", 1, 1), publish("own", b"x", 1, 1) + ack(0x40, 1))
        me.sendall(data)
        assert me.until_closed() == b""


def test_an_id_belongs_to_nobody_where_no_name_is_proven(broker: Broker) -> None:
    for name, answer in (("one", CONNACK_OK), ("other", CONNACK_KEPT)):
        with Client(broker, "id", 0x80, text(name), answer=answer) as client:
            client.hears_no_more()


def test_shared_subscriptions_are_refused(ours: Broker) -> None:
    """They would be granted and stay empty; mosquitto has them."""
    with Client(ours, "me") as me:
        me.says(subscribe("$share/group/a", 1), suback(0x80))
