"""The proxy between a client and a broker: what it passes, and what it loses when it is told to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from hwsync.address import BrokerUrl
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed, Subscription
from tests.support.brokers import MosquittoBroker, answers
from tests.support.mqtt import Watcher, publish
from tests.support.ports import LOOPBACK
from tests.support.proxy import (
    ALWAYS,
    CONNECT,
    PUBACK,
    PUBLISH,
    TO_BROKER,
    TO_CLIENT,
    Proxy,
    packet_size,
    parse,
)
from tests.support.threaded import Transport as Client
from tests.support.waiting import wait_until

PUBLISHED = b"\x32\x0d\x00\x04hw/a\x00\x07\x00text"  # MQTT 5, QoS 1, packet 7, no properties


@pytest.fixture
def proxy(mosquitto: MosquittoBroker, start_proxy: Callable[..., Proxy]) -> Proxy:
    return start_proxy(mosquitto)


class Keeper:
    """A client with a session at the broker that acknowledges what it gets."""

    def __init__(self, proxy: Proxy, *, v5: bool) -> None:
        self.signals: list[Signal] = []
        self.client = Client(
            BrokerUrl.parse(f"mqtt://{LOOPBACK}:{proxy.port}"),
            "keeper",
            on_signal=self._on_signal,
            subscriptions=[Subscription("hw/#")],
            clean_session=False,
            prefer_v5=v5,
        )
        self.client.start()
        self.wait_for(Subscribed, 1)

    def _on_signal(self, signal: Signal) -> None:
        self.signals.append(signal)
        if isinstance(signal, Delivery):
            self.client.acknowledge(signal)

    def wait_for(self, kind: type, count: int) -> None:
        wait_until(
            lambda: sum(isinstance(one, kind) for one in self.signals) >= count,
            what=lambda: f"{count} times {kind.__name__}: {self.signals}",
        )

    @property
    def got(self) -> list[tuple[str, bool]]:
        """Text and DUP of each message."""
        messages = [one for one in self.signals if isinstance(one, Delivery)]
        return [(one.payload.decode(), one.dup) for one in messages]


@pytest.fixture(params=[False, True], ids=["3.1.1", "5"])
def keeper(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Keeper]:
    one = Keeper(proxy, v5=request.param)
    yield one
    one.client.stop()


# -- packets --------------------------------------------------------------------------------------


def test_a_packet_is_read_with_its_type_topic_and_identifier() -> None:
    packet = parse(b"\x3b" + PUBLISHED[1:], TO_CLIENT)
    assert (packet.type, packet.topic, packet.mid, packet.body) == (PUBLISH, "hw/a", 7, b"\0text")
    assert packet.dup
    assert packet.retain
    assert parse(b"\x40\x02\x01\x02", TO_BROKER).mid == 258


@pytest.mark.parametrize("length", [0, 127, 128, 16_383, 16_384, 2_097_152])
def test_the_size_of_a_packet_follows_from_its_first_bytes(length: int) -> None:
    rest, size = length, bytearray(b"\x30")
    while rest > 127:
        size.append(rest % 128 + 128)
        rest //= 128
    size.append(rest)
    assert packet_size(size) == len(size) + length
    assert all(packet_size(size[:part]) is None for part in range(len(size)))


def test_large_and_small_messages_pass_whole_in_both_directions(
    proxy: Proxy, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(proxy)
    texts = ["", "x", "y" * 70_000, "z" * 3_000_000]
    for text in texts:
        publish(proxy, "hw/a", text)
    wait_until(lambda: len(watcher.messages()) == len(texts), what="all messages")
    assert [message.text for message in watcher.messages()] == texts
    assert len(proxy.seen(PUBLISH, TO_BROKER)) == len(proxy.seen(PUBLISH, TO_CLIENT)) == len(texts)


# -- losing ---------------------------------------------------------------------------------------


def test_the_broker_sends_again_what_was_acknowledged_in_vain(
    proxy: Proxy, keeper: Keeper, mosquitto: MosquittoBroker
) -> None:
    rule = proxy.drop(PUBACK, TO_BROKER, times=2)
    for text in ("1", "2", "3"):
        publish(mosquitto, "hw/a", text)
    keeper.wait_for(Delivery, 3)
    rule.wait(2)
    wait_until(lambda: proxy.acknowledged(proxy.seen(PUBLISH, TO_CLIENT)[2]), what="the third")
    assert not any(map(proxy.acknowledged, proxy.seen(PUBLISH, TO_CLIENT)[:2]))
    proxy.cut()
    keeper.wait_for(Delivery, 5)
    once = [("1", False), ("2", False), ("3", False)]
    assert keeper.got == [*once, ("1", True), ("2", True)]
    sent = proxy.seen(PUBLISH, TO_CLIENT)
    wait_until(lambda: proxy.acknowledged(sent[3]) and proxy.acknowledged(sent[4]), what="both")
    assert [packet.dup for packet in sent] == [False, False, False, True, True]
    assert [packet.mid for packet in sent[3:]] == [packet.mid for packet in sent[:2]]


def test_a_cut_before_a_message_loses_it_and_a_cut_after_it_does_not(
    proxy: Proxy, mosquitto: MosquittoBroker, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(mosquitto)
    before = proxy.cut_before(PUBLISH, TO_BROKER, topic="hw/before")
    after = proxy.cut_after(PUBLISH, TO_BROKER, topic="hw/after")
    publish(proxy, "hw/other", "1")
    for topic in ("hw/before", "hw/after"):
        publish(proxy, topic, qos=0)
    before.wait()
    after.wait()
    publish(proxy, "hw/other", "2")
    watcher.wait_for(lambda message: message.text == "2")
    assert [message.topic for message in watcher.messages()] == [
        "hw/other", "hw/after", "hw/other"
    ]  # fmt: skip


def test_a_client_is_cut_off_after_what_it_got_and_comes_back(
    proxy: Proxy, keeper: Keeper, mosquitto: MosquittoBroker
) -> None:
    rule = proxy.cut_after(PUBLISH, TO_CLIENT, where=lambda packet: packet.body.endswith(b"2"))
    publish(mosquitto, "hw/a", "1")
    keeper.wait_for(Delivery, 1)
    wait_until(lambda: proxy.acknowledged(proxy.seen(PUBLISH, TO_CLIENT)[0]), what="the first")
    publish(mosquitto, "hw/a", "2")
    keeper.wait_for(Disconnected, 1)
    keeper.wait_for(Delivery, 3)  # its own acknowledgement was not passed any more
    assert keeper.got == [("1", False), ("2", False), ("2", True)]
    assert rule.applied == 1


def test_a_repeated_acknowledgement_arrives_twice_and_does_no_harm(
    proxy: Proxy, watch: Callable[..., Watcher], mosquitto: MosquittoBroker
) -> None:
    watcher = watch(mosquitto)
    rule = proxy.repeat(PUBACK, TO_CLIENT)
    message = proxy.repeat(PUBLISH, TO_BROKER, topic="hw/a")
    publish(proxy, "hw/a", "1")
    rule.wait()
    publish(proxy, "hw/b")
    watcher.wait_for(lambda message: message.topic == "hw/b")
    assert message.applied == 1
    assert [one.topic for one in watcher.messages()] == ["hw/a", "hw/a", "hw/b"]


def test_forgotten_rules_are_applied_no_more(
    proxy: Proxy, keeper: Keeper, mosquitto: MosquittoBroker
) -> None:
    rule = proxy.drop(PUBLISH, TO_CLIENT, times=ALWAYS)
    publish(mosquitto, "hw/a", "1")
    rule.wait()
    proxy.forget_rules()
    publish(mosquitto, "hw/a", "2")
    keeper.wait_for(Delivery, 1)
    assert keeper.got == [("2", False)]
    assert rule.applied == 1


# -- waiting --------------------------------------------------------------------------------------


def test_what_is_held_arrives_in_order_at_the_release(
    proxy: Proxy, keeper: Keeper, mosquitto: MosquittoBroker
) -> None:
    proxy.hold()
    texts = [str(number) for number in range(5)]
    for text in texts:
        publish(mosquitto, "hw/a", text)
    publish(mosquitto, "elsewhere")
    assert keeper.got == []
    proxy.release()
    keeper.wait_for(Delivery, 5)
    assert keeper.got == [(text, False) for text in texts]


def test_a_cut_loses_what_is_held(proxy: Proxy, keeper: Keeper, mosquitto: MosquittoBroker) -> None:
    proxy.hold()
    publish(mosquitto, "hw/a", "1")
    proxy.cut()
    keeper.wait_for(Disconnected, 1)
    proxy.release()
    keeper.wait_for(Delivery, 1)
    # mosquitto had sent it, and says so when it sends it again.
    assert keeper.got == [("1", True)]


def test_a_delayed_message_takes_its_time(
    proxy: Proxy, keeper: Keeper, mosquitto: MosquittoBroker
) -> None:
    proxy.delay(0.2)
    began = time.monotonic()
    publish(proxy, "hw/a", "1")
    keeper.wait_for(Delivery, 1)
    assert time.monotonic() - began >= 0.6  # CONNECT, CONNACK, PUBLISH


def test_a_refusing_proxy_ends_every_connection_until_it_accepts(
    proxy: Proxy, keeper: Keeper
) -> None:
    assert answers(proxy.port)
    proxy.refuse()
    keeper.wait_for(Disconnected, 1)
    assert not answers(proxy.port)
    wait_until(lambda: proxy.connections == 0, what="no connection")
    proxy.accept()
    assert answers(proxy.port)
    keeper.wait_for(Connected, 2)


def test_without_a_broker_behind_it_a_connection_ends(
    proxy: Proxy, mosquitto: MosquittoBroker
) -> None:
    mosquitto.stop()
    assert not answers(proxy.port)
    mosquitto.start()
    assert answers(proxy.port)


def test_stopping_ends_held_connections_and_every_thread(mosquitto: MosquittoBroker) -> None:
    before = threading.active_count()
    proxy = Proxy(mosquitto)
    proxy.start()
    proxy.hold()
    with closing(socket.create_connection((LOOPBACK, proxy.port))) as client:
        client.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
        wait_until(lambda: proxy.connections, what="a connection")
        proxy.stop()
        assert client.recv(10) == b""
    wait_until(lambda: threading.active_count() == before, what="the end of its threads")
    assert not answers(proxy.port)
    assert proxy.seen(CONNECT, TO_BROKER) == []
