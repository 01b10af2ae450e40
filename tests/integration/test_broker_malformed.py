"""Clients of ``hwsync broker`` that are no good ones: it ends them, and forgets them.

``scripts/fuzz broker`` does the same with as many as one likes.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.brokers import AmqttBroker
from tests.support.fuzz_broker import GROWTH, besiege, fortress, sockets
from tests.support.fuzz_packets import (
    CONNACK_OK,
    DISCONNECT,
    HANDSHAKE,
    PINGREQ,
    Attacker,
    connect,
    packet,
    publish,
    subscribe,
    text,
)
from tests.support.mqtt import Watcher
from tests.support.mqtt import publish as publish_by_hand
from tests.support.programs import require_program
from tests.support.raw import Raw
from tests.support.waiting import wait_until

# 20,000 take longer than a test should; docs/reliability.md has their figures.
ATTACKS = 2_000
SEED = int(os.environ.get("HWSYNC_SEED", str(random.randrange(10**6))))


def test_hostile_packets_end_their_connection_and_nothing_else(
    tmp_path: Path,
) -> None:
    broker, port = fortress(tmp_path)
    broker.start()
    try:
        siege = asyncio.run(besiege(broker, port, SEED, ATTACKS))
    finally:
        broker.stop()
    assert siege.faults == [], f"seed {SEED}"
    assert siege.attacks == ATTACKS
    assert siege.growth < GROWTH, siege.memory
    assert siege.connections[1] <= siege.connections[0]
    assert len(siege.normal_s) == ATTACKS // 500 + 2
    for end in ("closed by the broker", "answered", "left after no answer"):
        assert siege.ends[end] > ATTACKS / 200, siege.ends
    for kind in ("spoilt", "cut", "first"):
        for listener in ("tcp", "websocket"):
            assert siege.kinds[f"{kind}, {listener}"] > ATTACKS / 50, siege.kinds


@pytest.mark.parametrize(
    "data",
    [
        publish(b"fuzz/\xff", b"x", 1), publish("fuzz/\0", b"x", 1), publish("fuzz", b"x", 3),
        b"\x30\x05\x00\x50fuz", b"\xf0\x00", b"\xc0\xff\xff\xff\xff\x01", connect("good"),
        publish("fuzz/#", b"x"), subscribe(b"\xff"),
    ],
    ids=lambda data: data[:16].hex(),
)  # fmt: skip
def test_after_what_is_no_mqtt_a_client_is_sent_away(
    amqtt_broker: AmqttBroker, watch: Callable[..., Watcher], data: bytes
) -> None:
    watcher = watch(amqtt_broker, "#")
    with Raw(amqtt_broker.port) as raw:
        raw.sendall(connect("good") + data + b"x" * 80 + publish("fuzz/after", b"x"))
        assert raw.until_closed() == CONNACK_OK
    with Raw(amqtt_broker.port) as other:
        other.sendall(connect("other") + publish("fuzz/end", b"x", 1) + PINGREQ + DISCONNECT)
        other.until_closed()
    watcher.wait_for(lambda message: True, what="the good one", topic="fuzz/end")
    assert [message.topic for message in watcher.messages()] == ["fuzz/end"]


UNSUPPORTED = b"\x20\x02\x00\x01"
UNSUPPORTED_5 = b"\x20\x03\x00\x84\x00"
OTHER_VERSIONS = {
    "5": (connect("x", level=5, properties=b"\0"), UNSUPPORTED_5),
    "5, properties": (connect("x", level=5, properties=b"\x05\x11\0\0\0\x3c"), UNSUPPORTED_5),
    "5, a bridge": (connect("x", level=0x85, properties=b"\x03\x21\0\x14"), UNSUPPORTED_5),
    "3.1": (packet(0x10, text("MQIsdp") + b"\x03\x02\0\x3c" + text("x")), UNSUPPORTED),
    "3.1.1, a bridge": (connect("x", level=0x84), UNSUPPORTED),
    "6": (connect("x", level=6), UNSUPPORTED),
}


@pytest.mark.parametrize(("data", "answer"), OTHER_VERSIONS.values(), ids=OTHER_VERSIONS)
def test_another_version_is_refused_in_words_that_its_client_reads(
    amqtt_broker: AmqttBroker, data: bytes, answer: bytes
) -> None:
    with Raw(amqtt_broker.port) as raw:
        raw.sendall(data)
        assert raw.until_closed() == answer


@pytest.mark.parametrize(
    ("version", "told"),
    [("mqttv5", "unsupported protocol version"), ("mqttv31", "unacceptable protocol version")],
)
def test_a_client_of_another_version_is_told_what_is_wrong(
    amqtt_broker: AmqttBroker, version: str, told: str
) -> None:
    with pytest.raises(AssertionError) as refused:
        publish_by_hand(amqtt_broker, "hw/pi1/query", "", options=["-V", version])
    assert told in str(refused.value).lower()


def test_a_try_of_mqtt_5_under_the_own_name_leaves_the_session_alone(
    amqtt_broker: AmqttBroker,
) -> None:
    """What asks for MQTT 5 first, and for 3.1.1 then, loses nothing by it."""
    with Raw(amqtt_broker.port) as here:
        here.sendall(connect("board", flags=0) + subscribe("hw/pi1/command"))
        assert here.exactly(9) == CONNACK_OK + b"\x90\x03\x00\x02\x01"
        with Raw(amqtt_broker.port) as asking:
            asking.sendall(connect("board", level=5, properties=b"\x05\x11\0\0\0\x3c"))
            asking.until_closed()
        here.sendall(publish("hw/pi1/command", b"heard", 1, 7))
        assert here.exactly(29)[20:25] == b"heard"


@pytest.mark.parametrize("topic", ["#", "a/+", "a\0", ""])
def test_a_will_on_no_topic_is_refused(amqtt_broker: AmqttBroker, topic: str) -> None:
    with Raw(amqtt_broker.port) as raw:
        raw.sendall(connect("dying", flags=6, more=text(topic) + text(b"gone")))
        assert raw.until_closed() == b""


def test_a_login_that_is_refused_changes_nothing_for_the_one_that_is_there(
    start_amqtt: Callable[..., AmqttBroker], tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    """Neither its subscriptions, nor its will, nor its name, by which it may do things."""
    passwords = tmp_path / "passwords"
    program = require_program("mosquitto_passwd", "mosquitto")
    subprocess.run([program, "-c", "-b", passwords, "pi1", "secret"], check=True)
    broker = start_amqtt(extra=[f"password_file {passwords}"])
    login = text("pi1") + text("secret")
    with Raw(broker.port) as good:
        good.sendall(connect("board", flags=0xC4, more=text("will/mine") + text("x") + login))
        good.sendall(subscribe("hw/pi1/command"))
        assert good.exactly(9) == CONNACK_OK + b"\x90\x03\x00\x02\x01"
        for flags in (0xC4, 0xC6):
            with Raw(broker.port) as other:
                more = text("will/theirs") + text("x") + text("pi1") + text("guessed")
                other.sendall(connect("board", flags=flags, more=more))
                assert other.until_closed() == b"\x20\x02\x00\x05"
        watcher = watch(broker, "will/#", username="pi1", password="secret")
        with Raw(broker.port) as sender:
            sender.sendall(connect("sender", flags=0xC2, more=login))
            sender.sendall(publish("hw/pi1/command", b"heard"))
            assert good.exactly(23)[-5:] == b"heard"
    watcher.wait_for(lambda message: message.topic == "will/mine", what="its own will")


def test_the_socket_of_whoever_is_refused_or_leaves_is_not_kept(amqtt_broker: AmqttBroker) -> None:
    before = sockets(amqtt_broker.process.pid)
    for _ in range(20):
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", connect("x")[:9], b"\x10\x00", HANDSHAKE):
            with Raw(amqtt_broker.port) as raw:
                raw.sendall(data)
    wait_until(
        lambda: sockets(amqtt_broker.process.pid) <= before,
        what=lambda: f"{sockets(amqtt_broker.process.pid)} sockets, {before} before",
    )


def test_a_client_that_leaves_at_once_has_its_will(
    amqtt_broker: AmqttBroker, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(amqtt_broker, "will/#")
    for number in range(20):
        with Raw(amqtt_broker.port) as raw:
            more = text(f"will/{number}") + text(b"gone")
            raw.sendall(connect(f"short-{number}", flags=6, more=more))
            raw.shutdown(socket.SHUT_WR)
            raw.until_closed()
    for number in range(20):
        watcher.wait_for(lambda message: True, what="a will", topic=f"will/{number}")


def test_a_client_that_is_silent_beyond_its_keepalive_ends_with_its_will(
    amqtt_broker: AmqttBroker, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(amqtt_broker, "will/#")
    with Raw(amqtt_broker.port) as raw:
        more = text("will/silent") + text(b"gone")
        raw.sendall(connect("silent", flags=6, keepalive=1, more=more))
        assert raw.until_closed() == CONNACK_OK
    watcher.wait_for(lambda message: message.text == "gone", what="the will")


def test_of_clients_of_one_name_that_come_together_the_last_one_stays(
    amqtt_broker: AmqttBroker,
) -> None:
    """Also where they keep a session, and have left a message of QoS 2 half-way."""
    before = sockets(amqtt_broker.process.pid)
    half_way = publish("fuzz/two", b"x", 2, 7)
    for flags in (0, 2):
        crowd = [Raw(amqtt_broker.port) for _ in range(12)]
        for raw in crowd:
            raw.sendall(connect("same", flags=flags) + half_way)
        with Raw(amqtt_broker.port) as last:
            last.settimeout(60)
            # The others have said their name before it.
            wait_until(partial(_any_answered, crowd), what="one of them")
            last.sendall(connect("same", flags=2))
            assert last.recv(4) == CONNACK_OK
            last.sendall(PINGREQ)
            assert last.recv(2) == b"\xd0\x00"
        for raw in crowd:
            raw.close()
    wait_until(lambda: sockets(amqtt_broker.process.pid) <= before, 30, "all of them forgotten")


def _any_answered(crowd: list[Raw]) -> bool:
    for raw in crowd:
        try:
            if raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return True
        except BlockingIOError:
            pass
    return False


def test_a_number_decides_an_attack() -> None:
    one, other = Attacker(5), Attacker(5)
    list(map(other.at, range(50)))
    assert [one.at(n) for n in (7, 3)] == [other.at(n) for n in (7, 3)]
    assert Attacker(6).at(7) != one.at(7)
