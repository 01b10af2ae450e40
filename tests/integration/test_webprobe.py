"""What a page from elsewhere finds of a broker's websocket listeners."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwsync import webprobe
from hwsync.address import BrokerUrl, Tls
from hwsync.broker.access import hashed
from hwsync.webprobe import Open, WebListener, look
from tests.support.brokers import Broker, encrypted
from tests.support.certificates import Authority
from tests.support.ports import LOOPBACK, free_port
from tests.support.waiting import PATIENCE

Starter = Callable[..., Broker]


@pytest.fixture(params=["mosquitto", "amqtt"])
def start_one(request: pytest.FixtureRequest) -> Starter:
    starter: Starter = request.getfixturevalue(f"start_{request.param}")
    return starter


def web(port: int) -> list[str]:
    return [f"listener {port} {LOOPBACK}", "protocol websockets"]


def test_what_wants_a_login_is_open_to_nobody_else(start_one: Starter, tmp_path: Path) -> None:
    port, passwords = free_port(), tmp_path / "passwords"
    passwords.write_text(f"pi1:{hashed('secret')}\n")
    accounts = [*web(port), "allow_anonymous false", f"password_file {passwords}"]
    url = BrokerUrl.parse(start_one(extra=accounts).url)
    assert list(look(url)) == [WebListener(f"ws://{LOOPBACK}:{port}/mqtt", Open.LOGIN)]


def test_every_listener_of_the_brokers_process_is_found(start_one: Starter) -> None:
    ports = sorted(free_port() for _ in range(2))
    broker = start_one(extra=[*web(ports[0]), *web(ports[1])])
    expected = Open.PAGES if broker.name == "mosquitto" else Open.PROGRAMS
    found = list(look(BrokerUrl.parse(broker.url)))
    assert found == [WebListener(f"ws://{LOOPBACK}:{port}/mqtt", expected) for port in ports]
    assert list(look(BrokerUrl.parse(f"ws://{LOOPBACK}:{ports[1]}/x"))) == [
        WebListener(f"ws://{LOOPBACK}:{ports[1]}/x", expected)
    ]


def test_one_with_tls_is_found_too(start_one: Starter, authority: Authority) -> None:
    port = free_port()
    broker = start_one(extra=encrypted(port, authority.server, websockets=True))
    url = BrokerUrl.parse(f"wss://localhost:{port}").with_tls(Tls(str(authority.ca)))
    (found,) = look(url)
    assert found.open is (Open.PAGES if broker.name == "mosquitto" else Open.PROGRAMS)


def test_without_a_sight_of_the_process_the_usual_ports_are_tried(
    start_one: Starter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_port()
    broker = start_one(extra=web(port))
    monkeypatch.setattr(webprobe, "PROC", tmp_path)
    assert list(look(BrokerUrl.parse(broker.url))) == []
    monkeypatch.setattr(webprobe, "USUAL", (free_port(), port))
    (found,) = look(BrokerUrl.parse(broker.url))
    assert found.url == f"ws://{LOOPBACK}:{port}/mqtt"


ANSWERS = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "half a head": b"HTTP/1.1",
    "another websocket": b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi",
    "an endless head": b"HTTP/1.1 101 X\r\n" + b"A: b\r\n" * 10_000,
}


@pytest.fixture(params=ANSWERS.values(), ids=ANSWERS)
def stranger(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of something that is no broker."""

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    connection.recv(4_096)
                    connection.sendall(request.param)
                    connection.recv(4_096)
                except OSError:
                    pass

    with socket.create_server((LOOPBACK, free_port())) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_what_is_no_broker_is_no_finding(stranger: int) -> None:
    assert list(look(BrokerUrl.parse(f"ws://{LOOPBACK}:{stranger}"))) == []
    assert list(look(BrokerUrl.parse(f"ws://{LOOPBACK}:{free_port()}"))) == []


def test_ports_that_say_nothing_are_asked_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = threading.Barrier(3)

    def asked(*_: object) -> None:
        gate.wait(PATIENCE)
        raise TimeoutError

    monkeypatch.setattr(webprobe, "PROC", tmp_path)
    monkeypatch.setattr(webprobe, "USUAL", tuple(free_port() for _ in range(3)))
    monkeypatch.setattr(webprobe, "_asked", asked)
    assert list(look(BrokerUrl.parse(f"mqtt://{LOOPBACK}:{free_port()}"))) == []
