"""``hwsync broker`` before a login: what a connection may cost, and which web pages may speak."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from hwsync.broker.arrivals import WAITING, WEB_BYTES
from hwsync.broker.reading import FIRST_PACKET
from tests.support.brokers import AmqttBroker, encrypted
from tests.support.certificates import Authority
from tests.support.fuzz_packets import CONNACK_OK, connect, remaining, sound_frame
from tests.support.fuzz_run import resident
from tests.support.ports import LOOPBACK, free_port
from tests.support.raw import Raw, ask_web
from tests.support.waiting import PATIENCE, wait_until

SOCKETS = 60
LARGE = 4_200_000  # bytes, below the message_size_limit of the packaged broker.conf
OTHER = 32 * 2**20  # bytes that a broker may grow by for other reasons


@pytest.fixture
def web(start_amqtt: Callable[..., AmqttBroker]) -> tuple[AmqttBroker, int]:
    """A broker with both kinds of listeners, and the port of its websockets."""
    port = free_port()
    more = ["message_size_limit 4259840", f"listener {port} {LOOPBACK}", "protocol websockets"]
    return start_amqtt(extra=more), port


@pytest.mark.parametrize("first", [0x10, 0x30], ids=["CONNECT", "PUBLISH"])
@pytest.mark.parametrize("kind", ["tcp", "websockets"])
def test_before_a_login_large_packets_cost_no_memory(
    web: tuple[AmqttBroker, int], kind: str, first: int
) -> None:
    broker, port = web
    data = bytes([first]) + remaining(LARGE) + b"\0\4MQTT\4\2\0\x3c" + b"x" * (LARGE - 11)
    framed = sound_frame(data)[:-1]
    before = resident(broker.process.pid)
    with ExitStack() as stack:
        for _ in range(SOCKETS):
            if kind == "tcp":
                raw = stack.enter_context(Raw(broker.port))
                raw.push(data)
            else:
                raw = stack.enter_context(Raw(port))
                ask_web(raw)
                raw.push(framed)
        grown = resident(broker.process.pid) - before
    print(f"{kind}, {first:#x}: {grown / 2**20:.1f} MiB for {SOCKETS} connections")
    # Without a limit it was the packets' own size, 240 MiB, as far as they had come.
    assert grown < SOCKETS * 2 * WEB_BYTES + OTHER
    assert "refused before a login" in broker.log


def test_a_connect_as_long_as_its_limit_comes_in(web: tuple[AmqttBroker, int]) -> None:
    broker, port = web
    largest = connect("x" * 50_000, flags=6, more=b"\0\4will" + b"\xbf\xff" + b"y" * 0xBFFF)
    assert FIRST_PACKET - 2_000 < len(largest) < FIRST_PACKET
    with Raw(broker.port) as raw:
        raw.sendall(largest)
        assert raw.exactly(4) == CONNACK_OK
    with Raw(port) as raw:
        assert "101" in ask_web(raw)
        raw.sendall(sound_frame(largest))
        assert raw.exactly(6)[2:] == CONNACK_OK


def test_those_who_say_nothing_keep_nobody_out(web: tuple[AmqttBroker, int]) -> None:
    """Where more wait than may, the first ones go, and whoever says its name is served."""
    broker, port = web
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(Raw(port if number % 2 else broker.port))
            for number in range(WAITING + SOCKETS)
        ]
        wait_until(
            lambda: sum(raw.ended for raw in crowd) == SOCKETS, what="those that were too many"
        )
        with Raw(broker.port) as good:
            good.sendall(connect("good"))
            assert good.exactly(4) == CONNACK_OK
        last = crowd[-2]
        last.sendall(connect("last"))
        assert last.exactly(4) == CONNACK_OK
        assert sum(raw.ended for raw in crowd) <= SOCKETS + 1
    assert broker.log.count(f"{WAITING} others wait") == 1


@pytest.mark.parametrize("websockets", [False, True], ids=["tls", "wss"])
def test_those_who_say_nothing_within_tls_keep_nobody_out(
    start_amqtt: Callable[..., AmqttBroker], authority: Authority, websockets: bool
) -> None:
    """They count before their handshake is over."""
    port = free_port()
    broker = start_amqtt(extra=encrypted(port, authority.server, websockets=websockets))
    with ExitStack() as stack:
        crowd = [stack.enter_context(Raw(port)) for _ in range(WAITING + SOCKETS)]
        wait_until(
            lambda: sum(raw.ended for raw in crowd) == SOCKETS, what="those that were too many"
        )
        context = ssl.create_default_context(cafile=str(authority.ca))
        last = stack.enter_context(context.wrap_socket(crowd[-1], server_hostname=LOOPBACK))
        if not websockets:
            last.sendall(connect("last"))
            assert last.recv(4) == CONNACK_OK
        with Raw(broker.port) as good:
            good.sendall(connect("good"))
            assert good.exactly(4) == CONNACK_OK
    assert broker.log.count(f"{WAITING} others wait") == 1


def test_who_does_not_say_its_name_in_time_is_sent_away(amqtt_broker: AmqttBroker) -> None:
    with Raw(amqtt_broker.port) as silent, Raw(amqtt_broker.port) as slow:
        for raw in (silent, slow):
            raw.settimeout(2 * PATIENCE)  # the broker's own patience is as long as a test's
        slow.sendall(connect("cut")[:9])
        assert silent.until_closed() == slow.until_closed() == b""
    assert "no CONNECT within 10 s" in amqtt_broker.log


def test_a_page_from_elsewhere_does_not_speak(web: tuple[AmqttBroker, int]) -> None:
    """The browser of somebody who can reach the broker sends its ``Origin``; a program has none."""
    broker, port = web
    listed = "http://course.example.org:8080"
    own = f"Host: {LOOPBACK}:{port}"
    for headers in ([own], [own, f"Origin: http://{LOOPBACK}:{port}"]):
        with Raw(port) as raw:
            assert "101" in ask_web(raw, *headers)
            raw.sendall(sound_frame(connect("page")))
            assert raw.exactly(6)[2:] == CONNACK_OK
    for origin in ("http://evil.example", listed, "null"):
        with Raw(port) as raw:
            assert "403" in ask_web(raw, own, f"Origin: {origin}")
            assert b"websockets_origin" in raw.until_closed()
    assert "refused a web page" in broker.log
    assert "'http://evil.example'" in broker.log
    # What the file says now counts after a SIGHUP.
    conf = broker.directory / "broker.conf"
    conf.write_text(f"{conf.read_text()}websockets_origin {listed}\n")
    os.kill(broker.process.pid, signal.SIGHUP)

    def comes_in() -> bool:
        with Raw(port) as raw:
            return "101" in ask_web(raw, own, f"Origin: {listed}")

    wait_until(comes_in, what="the page that is listed")
    with Raw(port) as raw:
        assert "403" in ask_web(raw, own, "Origin: http://evil.example")
