"""A broker's websocket listeners, as a web page from elsewhere finds them: who comes in there.

The law: it connects without a login and leaves; it subscribes to nothing and publishes nothing.
What does not speak MQTT over websockets is no finding.
"""

from __future__ import annotations

import base64
import os
import secrets
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Final

from hwsync.address import BrokerUrl

USUAL: Final = (
    9001,
    8083,
    8080,
    8000,
    15675,
)  # mosquitto, EMQX, HiveMQ, RabbitMQ
PATHS: Final = ("/mqtt", "/ws")  # mosquitto and hwsync broker take any; RabbitMQ the second
PAGE: Final = "http://a-page-from-elsewhere.invalid"
ANSWER_S: Final = 2.0  # for each answer; most ports refuse at once
HEAD: Final = 16_384  # bytes of an answer's head
PROC: Final = Path("/proc")
LISTENS: Final = "0A"  # the state of a socket, in /proc/net/tcp

# A CONNECT of MQTT 3.1.1 with a clean session and an id of 12 characters, and a DISCONNECT.
_CONNECT: Final = b"\x10\x18\0\4MQTT\4\2\0\x0a\0\x0c"
_DISCONNECT: Final = b"\xe0\0"
_CONNACK: Final = b"\x82\x04\x20\x02"  # as a frame, before its flags and its code


class Open(Enum):
    """To whom a listener is."""

    LOGIN = "whoever has a login"
    PROGRAMS = "every program, and no page from elsewhere"
    PAGES = "every program, and every web page"


@dataclass(frozen=True, slots=True)
class WebListener:
    """One that speaks MQTT over websockets."""

    url: str
    open: Open


def look(url: BrokerUrl) -> Iterator[WebListener]:
    """Those of the broker at that address, as far as its ports can be known; raises nothing.

    On this machine the ports of its process, elsewhere the usual ones; each takes up to some
    seconds, all of them together.
    """
    ports = [url.port] if url.websockets else _ports(url)
    if ports:
        # At once: behind a firewall each port that says nothing takes its time.
        with ThreadPoolExecutor(len(ports)) as pool:
            yield from filter(None, pool.map(partial(_seen, url), ports))


def _seen(url: BrokerUrl, port: int) -> WebListener | None:
    """What is there; None: nothing, or nothing that speaks HTTP, or no MQTT behind it."""
    for path in dict.fromkeys((url.path or PATHS[0], *PATHS)):
        try:
            answer, opened = _asked(url, port, path, PAGE), Open.PAGES
            if answer is None:
                answer, opened = _asked(url, port, path, ""), Open.PROGRAMS
        except (OSError, ValueError):
            return None
        if answer is not None:
            host = f"[{url.host}]" if ":" in url.host else url.host
            where = f"{'wss' if url.encrypted else 'ws'}://{host}:{port}{path}"
            return WebListener(where, Open.LOGIN if answer else opened)
    return None


def _asked(url: BrokerUrl, port: int, path: str, origin: str) -> int | None:
    """The code of the CONNACK without a login; None: there is no MQTT for this page there.

    Raises ``OSError`` and ``ValueError`` where there is nothing that answers, or no HTTP.
    """
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1", f"Host: {url.host}:{port}", "Upgrade: websocket",
        "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt", *([f"Origin: {origin}"] if origin else []),
    ]  # fmt: skip
    with _opened(url, port) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        head, _, rest = _until(connection, b"\r\n\r\n", HEAD).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1."):
            raise ValueError("no HTTP")
        if head.split()[1:2] != [b"101"]:
            return None
        connection.sendall(_frame(_CONNECT + f"hwsync-{secrets.token_hex(4)[:5]}".encode()))
        while len(rest) < len(_CONNACK) + 2 and (data := connection.recv(64)):
            rest += data
        if not rest.startswith(_CONNACK) or len(rest) < len(_CONNACK) + 2:
            return None
        with suppress(OSError):
            connection.sendall(_frame(_DISCONNECT))
        return rest[len(_CONNACK) + 1]


def _opened(url: BrokerUrl, port: int) -> socket.socket:
    plain = socket.create_connection((url.host, port), ANSWER_S)
    if not url.encrypted:
        return plain
    from hwsync.transport import tls
    from hwsync.transport.failed import Failed

    try:
        return tls.context(url).wrap_socket(plain, server_hostname=url.host)
    except Failed as error:
        plain.close()
        raise ValueError(error.reason) from None
    except OSError:
        plain.close()
        raise


def _until(connection: socket.socket, end: bytes, most: int) -> bytes:
    heard = b""
    while end not in heard and len(heard) < most and (data := connection.recv(1_024)):
        heard += data
    return heard


def _frame(data: bytes) -> bytes:
    """One short frame, masked with zeros."""
    return bytes([0x82, 0x80 | len(data), 0, 0, 0, 0]) + data


# The ports of a broker that is on this machine


def _ports(url: BrokerUrl) -> list[int]:
    """Other ports of the process that listens on the broker's; else the usual ones."""
    if _is_here(url.host) and (mine := _of_the_same_process(url.port)) is not None:
        return sorted(mine - {url.port})
    return [port for port in USUAL if port != url.port]


def _is_here(host: str) -> bool:
    """Whether this is an address of this machine: only such a one can be bound."""
    with suppress(OSError):
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe:
                probe.bind(address)
                return True
    return False


def _of_the_same_process(port: int) -> set[int] | None:
    """All ports on which the process listens that listens on this one; None: we may not know."""
    listening = dict(_listening())
    wanted = {name for name, found in listening.items() if found == port}
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):
            names = {os.readlink(file) for file in (process / "fd").iterdir()}
            if wanted & names:
                return {found for name, found in listening.items() if name in names}
    return None


def _listening() -> Iterator[tuple[str, int]]:
    """(its name in a folder of descriptors, port) of each TCP socket that listens here."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / name).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == LISTENS:
                    yield f"socket:[{words[9]}]", int(words[1].rpartition(":")[2], 16)
