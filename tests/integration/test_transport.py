"""The one place with paho, on real brokers: what its owners rely on."""

from __future__ import annotations

import logging
import queue
import socket
from collections.abc import Callable
from typing import Any

import pytest

from hwsync.address import BrokerUrl
from hwsync.protocol.errors import HwsyncError, TooLarge
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.transport import (
    Connected,
    Connection,
    Delivery,
    Disconnected,
    Pump,
    Signal,
    Subscribed,
    Subscription,
    Will,
)
from hwsync.transport.connecting import V5_ANSWER_S
from hwsync.transport.paho_wire import PahoWire
from tests.support.brokers import Broker, MosquittoBroker
from tests.support.mqtt import Watcher, publish
from tests.support.ports import free_port
from tests.support.proxy import ALWAYS, CONNECT, TO_BROKER, Proxy
from tests.support.threaded import Transport
from tests.support.tiny_broker import TinyBroker
from tests.support.transports import RECONNECT_S, Client, its_socket
from tests.support.waiting import wait_until


def test_packets_go_out_at_once(mosquitto: MosquittoBroker, connect: Callable[..., Client]) -> None:
    client = connect(mosquitto.url, "c")
    client.next(Subscribed)
    with its_socket(client.transport) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("version", [4, 5])
def test_what_was_not_acknowledged_comes_again_and_the_rest_does_not(
    mosquitto: MosquittoBroker, connect: Callable[..., Client], version: int
) -> None:
    options = {"clean_session": False, "prefer_v5": version == 5}
    first = connect(mosquitto.url, "keeper", "hw/pi1/request", **options)
    assert first.next(Connected) == Connected(False, version)
    first.next(Subscribed)
    for text in ("one", "two", "three"):
        publish(mosquitto, "hw/pi1/request", text)
    heard = [first.next(Delivery) for _ in range(3)]
    assert [delivery.dup for delivery in heard] == [False] * 3
    first.transport.acknowledge(heard[0])
    first.transport.stop()
    publish(mosquitto, "hw/pi1/request", "while away")
    second = connect(mosquitto.url, "keeper", "hw/pi1/request", **options)
    assert second.next(Connected) == Connected(True, version)
    again = [second.next(Delivery) for _ in range(3)]
    assert [delivery.payload for delivery in again] == [b"two", b"three", b"while away"]
    assert [delivery.dup for delivery in again] == [True, True, False]
    # An acknowledgement of another connection's delivery does nothing.
    second.transport.acknowledge(heard[1])


def test_it_comes_back_subscribed_after_kill_9_of_the_broker(
    broker: Broker, connect: Callable[..., Client]
) -> None:
    client = connect(broker.url, "c", "hw/pi1/status", prefer_v5=True)
    assert client.next(Connected).protocol == (5 if broker.speaks_v5 else 4)
    client.next(Subscribed)
    broker.kill()
    assert client.next(Disconnected).was_connected
    assert not client.transport.publish("hw/pi1/query", b"stale")
    assert not client.transport.connected
    broker.restart()
    client.next(Subscribed)
    publish(broker, "hw/pi1/status", "back")
    assert client.next(Delivery).payload == b"back"


def test_what_was_published_while_away_is_never_sent_later(
    mosquitto: MosquittoBroker, connect: Callable[..., Client], watch: Callable[..., Watcher]
) -> None:
    client = connect(mosquitto.url, "c")
    client.next(Subscribed)
    mosquitto.kill()
    client.next(Disconnected)
    client.transport.publish("hw/pi1/status", b"old")
    mosquitto.restart()
    watcher = watch(mosquitto)
    client.next(Subscribed)
    assert client.transport.publish("hw/pi1/status", b"new")
    watcher.wait_for(lambda message: message.text == "new", what="the new status")
    assert [message.text for message in watcher.messages()] == ["new"]


def test_two_clients_of_one_id_are_named_loudly(
    mosquitto: MosquittoBroker,
    connect: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        connect(mosquitto.url, "hwsync-device-pi1", takeover_hint="set another hostname or --user")
    wait_until(lambda: "ANOTHER CLIENT USES THE ID 'hwsync-device-pi1'" in caplog.text, RECONNECT_S)
    assert "set another hostname or --user" in caplog.text


def test_no_failure_of_the_owner_ends_the_connection(
    mosquitto: MosquittoBroker, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    heard: queue.SimpleQueue[Signal] = queue.SimpleQueue()

    def fail(signal: Signal) -> None:
        heard.put(signal)
        raise RuntimeError("the owner failed")

    client = connect(mosquitto.url, "c", "hw/pi1/status", on_signal=fail)
    while not isinstance(heard.get(timeout=RECONNECT_S), Subscribed):
        pass
    for text in ("one", "two"):
        publish(mosquitto, "hw/pi1/status", text)
        signal = heard.get(timeout=RECONNECT_S)
        assert isinstance(signal, Delivery)
        assert signal.payload == text.encode()
    assert client.transport.connected
    assert "the owner failed" in caplog.text


def test_what_no_broker_would_take_is_stopped_here(
    mosquitto: MosquittoBroker, connect: Callable[..., Client], watch: Callable[..., Watcher]
) -> None:
    watcher = watch(mosquitto)
    client = connect(mosquitto.url, "c")
    client.next(Subscribed)
    with pytest.raises(TooLarge):
        client.transport.publish("hw/pi1/response", b"x" * (MAX_MESSAGE + 1))
    with pytest.raises(TooLarge):
        client.transport.publish("hw/" + "x" * 2_000, b"")
    for topic in ("hw/+/request", "hw/#", ""):
        with pytest.raises(HwsyncError, match="cannot publish"):
            client.transport.publish(topic, b"")
    assert client.transport.publish("hw/pi1/response", b"x" * MAX_MESSAGE)
    assert client.transport.flush(RECONNECT_S)
    message = watcher.wait_for(lambda message: True, what="the largest message")
    assert len(message.payload) == MAX_MESSAGE


def test_the_search_for_mqtt_5_ends_no_session(
    broker: Broker, connect: Callable[..., Client]
) -> None:
    options = {"clean_session": False, "prefer_v5": True}
    for present in (False, broker.remembers):
        client = connect(broker.url, "keeper", "hw/pi1/request", **options)
        connected = client.next(Connected)
        assert connected.protocol == (5 if broker.speaks_v5 else 4)
        if broker.remembers:
            assert connected.session_present == present
        client.next(Subscribed)
        client.transport.stop()


def test_a_broker_that_is_silent_to_mqtt_5_is_asked_once_and_keeps_its_session(
    mosquitto: MosquittoBroker,
    connect: Callable[..., Client],
    start_proxy: Callable[..., Proxy],
) -> None:
    proxy = start_proxy(mosquitto)
    proxy.drop(CONNECT, TO_BROKER, times=ALWAYS, where=lambda packet: packet.body[6] == 5)
    options = {"clean_session": False, "prefer_v5": True}
    first = connect(f"mqtt://127.0.0.1:{proxy.port}", "keeper", "hw/pi1/request", **options)
    assert first.next(Connected) == Connected(False, 4)
    first.next(Subscribed)
    first.transport.stop()
    publish(mosquitto, "hw/pi1/request", "while away")
    second = connect(f"mqtt://127.0.0.1:{proxy.port}", "keeper", "hw/pi1/request", **options)
    assert second.next(Connected) == Connected(True, 4)
    assert second.next(Delivery).payload == b"while away"
    # What worked is tried first, so that the way back costs nothing; until it fails.
    proxy.cut()
    assert second.next(Connected, V5_ANSWER_S) == Connected(True, 4)
    proxy.refuse()
    while second.next(Disconnected).was_connected:
        pass
    proxy.forget_rules()
    proxy.accept()
    assert second.next(Connected) == Connected(True, 5)


@pytest.mark.parametrize("clean", [False, True])
def test_a_will_and_a_session_delay_no_connection(
    broker: Broker, connect: Callable[..., Client], clean: bool
) -> None:
    will = Will("hw/pi1/heartbeat", b"gone")
    client = connect(broker.url, "c", will=will, clean_session=clean, prefer_v5=True)
    # A broker that does not answer to version 5 costs V5_ANSWER_S: plain amqtt, not ours.
    assert client.next(Connected, V5_ANSWER_S / 2).protocol == (5 if broker.speaks_v5 else 4)


def test_a_refused_subscription_is_tried_again_before_it_is_believed(
    start_tiny: Callable[..., TinyBroker], connect: Callable[..., Client]
) -> None:
    soon = connect(start_tiny(refusals=2).url, "c", "hw/pi1/status", prefer_v5=True)
    assert soon.next(Subscribed) == Subscribed()
    soon.transport.publish("hw/pi1/status", b"heard")
    assert soon.next(Delivery).payload == b"heard"
    later = connect(start_tiny(refusals=4).url, "c", "hw/pi1/status")
    assert later.next(Subscribed) == Subscribed(("hw/pi1/status",))

    def heard() -> bool:
        later.transport.publish("hw/pi1/status", b"heard later")
        return not later.inbox.empty()

    wait_until(heard, RECONNECT_S, "it is granted in the end")
    assert later.next(Delivery).payload == b"heard later"


def test_an_attempt_that_fails_says_why(connect: Callable[..., Client]) -> None:
    nobody = free_port()
    client = connect(f"mqtt://127.0.0.1:{nobody}", "c")
    failed = client.next(Disconnected)
    assert failed == Disconnected("Connection refused", False)


def test_a_refused_login_says_so(
    start_mosquitto: Callable[..., MosquittoBroker], connect: Callable[..., Client]
) -> None:
    broker = start_mosquitto(extra=["allow_anonymous false"])
    for options in ({}, {"prefer_v5": True}):
        failed = connect(broker.url, "c", **options).next(Disconnected)
        assert "refused the connection (not authori" in failed.reason
        assert not failed.was_connected


def test_websockets_of_mosquitto(
    start_mosquitto: Callable[..., MosquittoBroker], connect: Callable[..., Client]
) -> None:
    port = free_port()
    broker = start_mosquitto(
        extra=[f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true"]
    )
    client = connect(f"ws://127.0.0.1:{port}", "web", "hw/pi1/status", prefer_v5=True)
    client.next(Subscribed)
    publish(broker, "hw/pi1/status", "to the web")
    assert client.next(Delivery).payload == b"to the web"


@pytest.mark.parametrize("act", ["publish", "acknowledge", "leave"])
def test_a_connection_may_have_ended_when_something_is_said(
    mosquitto: MosquittoBroker, act: str
) -> None:
    """Whoever speaks has not looked at the socket since it broke."""
    connection = Connection(
        BrokerUrl.parse(mosquitto.url), "c", subscriptions=[Subscription("hw/pi1/status")]
    )
    pump = Pump(connection)
    connection.start()
    heard: list[Signal] = []

    def came(kind: type[Signal]) -> bool:
        heard.extend(pump.wait(0.1))
        return any(isinstance(signal, kind) for signal in heard)

    wait_until(lambda: came(Subscribed), RECONNECT_S)
    publish(mosquitto, "hw/pi1/status", "x")
    wait_until(lambda: came(Delivery), RECONNECT_S)
    delivery = next(signal for signal in heard if isinstance(signal, Delivery))
    mosquitto.kill()
    for _ in range(2):  # the first one is answered with a reset
        {
            "publish": lambda: connection.publish("hw/pi1/query", b"x"),
            "acknowledge": lambda: connection.acknowledge(delivery),
            "leave": connection.leave,
        }[act]()
        connection.write()
    wait_until(lambda: came(Disconnected), RECONNECT_S)
    assert not connection.publish("hw/pi1/query", b"x")
    assert connection.is_over == (act == "leave")
    connection.close()


def test_an_error_of_ours_ends_the_connection_and_it_comes_back(
    mosquitto: MosquittoBroker, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    transport = Transport(BrokerUrl.parse(mosquitto.url), "n", on_signal=print, subscriptions=[])
    assert not transport.alive, "before its start"
    client = connect(mosquitto.url, "c", "hw/pi1/status")
    client.next(Subscribed)
    link = client.transport._connection._link
    assert link is not None
    assert isinstance(link._wire, PahoWire)
    link._wire._client.loop_read = fails  # type: ignore[method-assign]
    publish(mosquitto, "hw/pi1/status", "x")
    assert client.next(Disconnected) == Disconnected("an error inside hwsync", True)
    assert "paho failed" in caplog.text
    client.next(Subscribed)
    assert client.transport.alive
    client.transport.stop()
    assert not client.transport.alive


def fails(*_: object) -> Any:
    raise RuntimeError("paho failed")
