"""``hwsync broker``: what hwsync mends of amqtt, and the doors of its configuration file."""

from __future__ import annotations

import queue
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets import Subprotocol
from websockets.sync.client import connect

from hwsync.address import BrokerUrl
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.transport import (
    Connected,
    Delivery,
    Disconnected,
    Signal,
    Subscribed,
    Subscription,
)
from tests.support.brokers import CONNACK, CONNECT, AmqttBroker
from tests.support.mqtt import Watcher, publish
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.programs import require_program
from tests.support.threaded import Transport
from tests.support.waiting import PATIENCE, wait_until

CLIENTS = 4  # at the same time
ROUNDS = 25  # connections of each
ENDS_S = 6.0  # for the broker's end, on a busy machine; either thing that held it up took ten


def visit(broker: AmqttBroker, name: str, topic: str) -> list[Signal]:
    """Everything that one short connection with one subscription is told, up to its SUBACK."""
    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    transport = Transport(
        BrokerUrl.parse(broker.url), name, on_signal=inbox.put, subscriptions=[Subscription(topic)]
    )
    transport.start()
    told = []
    while not told or not isinstance(told[-1], Subscribed):
        told.append(inbox.get(timeout=PATIENCE))
    transport.stop(0.0)
    return told


def test_clients_that_come_and_go_cost_nobody_a_connection_or_a_message(
    amqtt_broker: AmqttBroker, watch: Callable[..., Watcher]
) -> None:
    for number in range(5):
        publish(amqtt_broker, f"hw/pi{number}/status", "{}", retain=True)
    ended: list[Signal] = []

    def work(client: int) -> None:
        for number in range(ROUNDS):
            # Every other one shares the watcher's filter.
            topic = f"hw/{client}-{number}/+" if number % 2 else "hw/all/output"
            told = visit(amqtt_broker, f"c-{client}-{number}", topic)
            ended.extend(signal for signal in told if isinstance(signal, Disconnected))

    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    sender = Transport(
        BrokerUrl.parse(amqtt_broker.url), "sender", on_signal=inbox.put, subscriptions=[]
    )
    sender.start()
    while not isinstance(inbox.get(timeout=PATIENCE), Subscribed):
        pass
    early = visit(amqtt_broker, "early", "hw/all/output")  # before the watcher in amqtt's list
    assert isinstance(early[-1], Subscribed)
    watcher = watch(amqtt_broker, "hw/all/output")
    threads = [threading.Thread(target=work, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    sent = 0
    while any(thread.is_alive() for thread in threads):
        assert sender.publish("hw/all/output", str(sent).encode())
        assert sender.flush(PATIENCE)
        sent += 1
    assert sender.publish("hw/all/output", b"last")
    assert sender.flush(PATIENCE)
    assert inbox.empty()
    sender.stop()
    watcher.wait_for(lambda message: message.text == "last", what=f"the last message of {sent}")
    assert [message.text for message in watcher.messages()] == [*map(str, range(sent)), "last"]
    assert ended == []


def test_nobody_is_sent_what_is_retained_for_others(
    amqtt_broker: AmqttBroker, watch: Callable[..., Watcher]
) -> None:
    publish(amqtt_broker, "hw/pi1/status", "one", retain=True)
    publish(amqtt_broker, "hw/pi2/status", "two", retain=True)
    watch(amqtt_broker, "hw/pi1/status")
    mine = watch(amqtt_broker, "hw/pi2/status")
    mine.wait_for(lambda message: message.text == "two", what="its own retained message")
    publish(amqtt_broker, "hw/pi2/status", "last")
    mine.wait_for(lambda message: message.text == "last", what="the last message")
    assert [message.text for message in mine.messages()] == ["two", "last"]


def test_a_message_above_the_limit_ends_its_connection_and_no_other(
    start_amqtt: Callable[..., AmqttBroker], watch: Callable[..., Watcher]
) -> None:
    broker = start_amqtt(extra=["message_size_limit 1000"])
    watcher = watch(broker)
    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    sender = Transport(BrokerUrl.parse(broker.url), "sender", on_signal=inbox.put, subscriptions=[])
    sender.start()
    assert isinstance(inbox.get(timeout=PATIENCE), Connected)
    assert isinstance(inbox.get(timeout=PATIENCE), Subscribed)
    sender.publish("hw/pi1/request", b"x" * 1_001)
    assert isinstance(inbox.get(timeout=PATIENCE), Disconnected)
    sender.stop(0.0)
    publish(broker, "hw/pi1/request", "y" * 1_000)
    watcher.wait_for(lambda message: True, what="the message within the limit")
    assert [message.text[:1] for message in watcher.messages()] == ["y"]
    assert "is above message_size_limit 1000" in broker.log


def test_passwords_and_access_rules_are_kept(
    start_amqtt: Callable[..., AmqttBroker], watch: Callable[..., Watcher], tmp_path: Path
) -> None:
    passwords, rules = tmp_path / "passwords", tmp_path / "rules"
    program = require_program("mosquitto_passwd", "mosquitto")
    for flags, name in ((["-c"], "pi1"), ([], "pi2"), ([], "teacher")):
        subprocess.run([program, *flags, "-b", passwords, name, f"of-{name}"], check=True)
    rules.write_text(
        "user teacher\ntopic readwrite hw/#\n"
        "pattern read hw/%u/command\npattern write hw/%u/response\n"
    )
    broker = start_amqtt(
        extra=["allow_anonymous false", f"password_file {passwords}", f"acl_file {rules}"]
    )
    assert "with accounts mosquitto is the better broker" in broker.log
    for wrong in ([], ["-u", "pi1", "-P", "guess"], ["-u", "nobody", "-P", "of-pi1"]):
        with pytest.raises(AssertionError, match="ended with"):
            publish(broker, "hw/pi1/response", "x", options=wrong)
    teacher = watch(broker, username="teacher", password="of-teacher")
    pi1 = watch(broker, username="pi1", password="of-pi1")
    login = ["-u", "pi1", "-P", "of-pi1"]
    publish(broker, "hw/pi2/response", "forged", options=login)
    publish(broker, "hw/pi1/response", "mine", options=login)
    publish(broker, "hw/pi2/command", "not for pi1", options=["-u", "teacher", "-P", "of-teacher"])
    publish(broker, "hw/pi1/command", "run", options=["-u", "teacher", "-P", "of-teacher"])
    pi1.wait_for(lambda message: message.text == "run", what="the command")
    teacher.wait_for(lambda message: message.text == "run", what="the command")
    assert [message.text for message in pi1.messages()] == ["run"]
    assert [message.text for message in teacher.messages()] == ["mine", "not for pi1", "run"]


def test_websockets_carry_the_same(
    start_amqtt: Callable[..., AmqttBroker], watch: Callable[..., Watcher]
) -> None:
    port = free_port()
    broker = start_amqtt(extra=[f"listener {port} 127.0.0.1", "protocol websockets"])
    watcher = watch(broker)
    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    web = Transport(
        BrokerUrl.parse(f"ws://127.0.0.1:{port}/"), "web", on_signal=inbox.put,
        subscriptions=[Subscription("hw/pi1/status")],
    )  # fmt: skip
    web.start()
    while not isinstance(inbox.get(timeout=PATIENCE), Subscribed):
        pass
    web.publish("hw/pi1/query", b"over the web")
    watcher.wait_for(lambda message: message.text == "over the web", what="from the websocket")
    publish(broker, "hw/pi1/status", "to the web")
    heard = inbox.get(timeout=PATIENCE)
    assert isinstance(heard, Delivery)
    assert heard.payload == b"to the web"
    web.stop()
    broker.process.terminate()  # while it still sees to the end of that connection
    assert broker.process.wait(ENDS_S) == 0


def test_a_taken_port_is_named(
    amqtt_broker: AmqttBroker, start: Callable[..., Process], tmp_path: Path
) -> None:
    conf = tmp_path / "second.conf"
    conf.write_text(f"listener {amqtt_broker.port} 127.0.0.1\nallow_anonymous true\n")
    second = start(["hwsync", "broker", str(conf)])
    assert second.wait() == 1
    assert f"port {amqtt_broker.port} is taken" in second.stderr
    assert "Traceback" not in second.stderr


def test_it_ends_at_once_though_clients_are_connected(
    amqtt_broker: AmqttBroker, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(amqtt_broker)
    amqtt_broker.process.terminate()
    assert amqtt_broker.process.wait(ENDS_S) == 0
    wait_until(lambda: not watcher.ready, what="the connection's end")


def test_it_ends_though_a_websocket_does_not_answer(
    start_amqtt: Callable[..., AmqttBroker],
) -> None:
    port = free_port()
    broker = start_amqtt(extra=[f"listener {port} 127.0.0.1", "protocol websockets"])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as silent:
        silent.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        with silent.makefile("rb") as answer:
            assert b" 101 " in answer.readline()
            while answer.readline().strip():
                pass
            # One frame, masked with zeros, as a client's must be.
            silent.sendall(bytes([0x82, 0x80 | len(CONNECT), 0, 0, 0, 0]) + CONNECT)
            assert answer.read(3)[2] == CONNACK
        broker.process.terminate()
        assert broker.process.wait(ENDS_S) == 0


NEVER_ENDS = """
import asyncio, sys
from hwsync.broker.mended import MendedBroker
from hwsync.cli import main
MendedBroker.shutdown = lambda self: asyncio.Event().wait()
sys.argv[1:1] = ["broker"]
main()
"""


def test_it_ends_though_amqtt_never_does(start: Callable[..., Process], tmp_path: Path) -> None:
    """As in a race of amqtt's: it waits for a task whose cancellation was lost."""
    conf = tmp_path / "broker.conf"
    conf.write_text(f"listener {free_port()} 127.0.0.1\nallow_anonymous true\n")
    broker = start([sys.executable, "-c", NEVER_ENDS, conf], name="broker")
    broker.wait_for_log("listening on")
    broker.terminate()
    assert broker.wait(ENDS_S) == 0


@pytest.mark.parametrize("clean", [False, True])
def test_who_comes_again_is_served_and_the_older_connection_ends(
    amqtt_broker: AmqttBroker, watch: Callable[..., Watcher], clean: bool
) -> None:
    """As where a board's network was gone: its old connection stands there, silent."""
    watcher = watch(amqtt_broker)
    options = bytes([0x04 | (0x02 if clean else 0)])  # a will, and perhaps a clean session
    name, topic, will = b"board", b"hw/pi1/heartbeat", b"gone"
    body = b"\x00\x04MQTT\x04" + options + b"\x00\x3c"
    body += b"".join(len(part).to_bytes(2, "big") + part for part in (name, topic, will))
    subscribe = b"\x00\x01" + len(b"hw/pi1/command").to_bytes(2, "big") + b"hw/pi1/command\x01"
    with socket.create_connection(("127.0.0.1", amqtt_broker.port), timeout=PATIENCE) as silent:
        silent.sendall(b"\x10" + bytes([len(body)]) + body)
        assert silent.recv(4)[0] == 0x20
        silent.sendall(b"\x82" + bytes([len(subscribe)]) + subscribe)
        assert silent.recv(5)[0] == 0x90
        inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        again = Transport(
            BrokerUrl.parse(amqtt_broker.url), "board", on_signal=inbox.put,
            subscriptions=[Subscription("hw/pi1/command")], clean_session=clean,
        )  # fmt: skip
        again.start()
        while not isinstance(inbox.get(timeout=PATIENCE), Subscribed):
            pass
        assert silent.recv(100) == b"", "the older connection lives on"
        if clean:  # of a session that goes on amqtt knows only the newer will
            watcher.wait_for(lambda message: message.text == "gone", what="the older one's will")
        for number in range(5):
            publish(amqtt_broker, "hw/pi1/command", str(number))
            delivery = inbox.get(timeout=PATIENCE)
            assert isinstance(delivery, Delivery)
            assert delivery.payload == str(number).encode()
            again.acknowledge(delivery)
        again.stop()


def test_a_refused_login_ends_nobodys_connection(
    start_amqtt: Callable[..., AmqttBroker], tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    program = require_program("mosquitto_passwd", "mosquitto")
    subprocess.run([program, "-c", "-b", passwords, "pi1", "right"], check=True)
    broker = start_amqtt(extra=["allow_anonymous false", f"password_file {passwords}"])
    url = BrokerUrl.parse(broker.url)
    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    board = Transport(
        url.with_credentials("pi1", "right"), "board", on_signal=inbox.put, subscriptions=[]
    )
    board.start()
    while not isinstance(inbox.get(timeout=PATIENCE), Subscribed):
        pass
    thief: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    other = Transport(
        url.with_credentials("pi1", "wrong"), "board", on_signal=thief.put, subscriptions=[]
    )
    other.start()
    refused = thief.get(timeout=PATIENCE)
    assert isinstance(refused, Disconnected)
    assert "refused the connection" in refused.reason
    other.stop(0.0)
    assert board.connected
    assert board.publish("x", b"x")
    assert board.flush(PATIENCE)
    assert inbox.empty()
    board.stop()


def test_a_websocket_carries_a_large_message(
    start_amqtt: Callable[..., AmqttBroker], watch: Callable[..., Watcher]
) -> None:
    port = free_port()
    limit = MAX_MESSAGE + 65_536
    broker = start_amqtt(
        extra=[f"message_size_limit {limit}", f"listener {port} 127.0.0.1", "protocol websockets"]
    )
    watcher = watch(broker)
    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    web = Transport(
        BrokerUrl.parse(f"ws://127.0.0.1:{port}"), "web", on_signal=inbox.put, subscriptions=[]
    )
    web.start()
    while not isinstance(inbox.get(timeout=PATIENCE), Subscribed):
        pass
    large = 2 * 1_048_576  # above websockets' own limit; paho itself hangs from about 4 MiB on
    assert web.publish("hw/pi1/response", b"x" * large)
    assert web.flush(60)
    message = watcher.wait_for(lambda message: True, what="the large message")
    assert len(message.payload) == large
    assert inbox.empty()
    web.stop()


def test_a_websocket_that_ends_after_an_empty_frame_does_not_hold_up_the_broker(
    start_amqtt: Callable[..., AmqttBroker], watch: Callable[..., Watcher]
) -> None:
    port = free_port()
    broker = start_amqtt(extra=[f"listener {port} 127.0.0.1", "protocol websockets"])
    url = f"ws://127.0.0.1:{port}"
    with connect(url, subprotocols=[Subprotocol("mqtt")], open_timeout=5) as websocket:
        websocket.send(b"")
    watcher = watch(broker)
    publish(broker, "hw/pi1/query", "heard")
    watcher.wait_for(lambda message: message.text == "heard", what="after the websocket's end")


def test_it_says_its_name_to_whoever_asks_for_it_and_to_nobody_else(
    amqtt_broker: AmqttBroker, watch: Callable[..., Watcher]
) -> None:
    name = watch(amqtt_broker, "$SYS/broker/version").wait_for(lambda _: True, what="its name")
    assert name.retain
    assert re.fullmatch(r"hwsync broker 0\.\S+ \(amqtt 0\.\S+\)", name.text)
    everything = watch(amqtt_broker, "#")
    publish(amqtt_broker, "hw/pi1/query", "fence")
    everything.wait_for(lambda message: message.text == "fence", what="the fence")
    assert [message.topic for message in everything.messages()] == ["hw/pi1/query"]
