"""MQTT 3.1.1, and 5 for one publish, over TLS in the test's own thread: packets, also wrong ones.

Nothing happens between two calls. A client may say more than it was asked for before it was let
in, or be gone without a word; a library would not.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.ports import LOOPBACK
from tests.support.waiting import PATIENCE

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP = 2, 3, 4, 9, 11, 13
KEEPALIVE = 120  # seconds
READ = 65_536  # bytes
ACCEPTED = 0


@dataclass(frozen=True, slots=True)
class Login:
    """``name`` None: anonymous."""

    name: str | None
    password: str | None = None
    port: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """One message: as it is to be published, or as it came."""

    topic: str
    text: str
    retain: bool = False


class Closed(Exception):
    """The broker has ended the connection."""


class Client:
    """One connection. ``code``: the CONNACK's; -1: the broker said nothing and hung up.

    ``early``: packets that are sent at once behind CONNECT, before it was answered.
    """

    def __init__(
        self,
        login: Login,
        context: ssl.SSLContext,
        *,
        id: str = "",
        will: Told | None = None,
        clean: bool = True,
        early: bytes = b"",
        version: int = 4,
    ) -> None:
        self.received: list[Told] = []
        self.session_present = False
        self._buffer = bytearray()
        self._answers: list[tuple[int, bytes]] = []
        self._packet_id = 0
        plain = socket.create_connection((LOOPBACK, login.port), PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket = context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise
        self._socket.settimeout(PATIENCE)
        self.code = -1
        with contextlib.suppress(OSError, Closed):
            self._socket.sendall(_connect(login, id, will, clean, version) + early)
            flags, self.code = self._answer(CONNACK)[:2]
            self.session_present = bool(flags)

    @property
    def accepted(self) -> bool:
        return self.code == ACCEPTED

    def publish(self, messages: Iterable[Told]) -> None:
        """At QoS 1; returns after the last PUBACK."""
        sent = [(self._next_id(), message) for message in messages]
        self._socket.sendall(b"".join(publishing(message, id) for id, message in sent))
        for _ in sent:
            self._answer(PUBACK)

    def publish_v5(self, message: Told, properties: bytes) -> None:
        """At QoS 1, as MQTT 5; ``properties``: without their length. Returns after the PUBACK."""
        self._socket.sendall(publishing_v5(message, self._next_id(), properties))
        self._answer(PUBACK)

    def subscribe(self, filters: Sequence[str]) -> list[int]:
        """At QoS 1; returns the granted ones (128: refused)."""
        self._socket.sendall(subscribing(filters, self._next_id()))
        return list(self._answer(SUBACK)[2:])

    def unsubscribe(self, filters: Sequence[str]) -> None:
        body = self._next_id().to_bytes(2, "big") + b"".join(map(_text, filters))
        self._socket.sendall(_packet(0xA2, body))
        self._answer(UNSUBACK)

    def until(self, found: Callable[[Told], bool], what: str) -> list[Told]:
        """Everything that has come up to the first such message; it is forgotten then."""
        looked_at = 0
        deadline = time.monotonic() + PATIENCE
        while True:
            for number in range(looked_at, len(self.received)):
                if found(self.received[number]):
                    before = self.received[: number + 1]
                    del self.received[: number + 1]
                    return before
            looked_at = len(self.received)
            assert time.monotonic() < deadline, f"{what}; what came last: {self.received[-5:]}"
            try:
                self._read()
            except (Closed, OSError) as error:
                raise AssertionError(f"{what}: {error!r}; {self.received[-5:]}") from error

    def lives(self) -> bool:
        """Whether the broker still answers on this connection."""
        try:
            self._socket.sendall(b"\xc0\x00")
            self._answer(PINGRESP)
        except (OSError, Closed):
            return False
        return True

    def close(self) -> None:
        """DISCONNECT: no will is published. Returns when the broker has ended it, too."""
        with contextlib.suppress(OSError, Closed):
            self._socket.sendall(b"\xe0\x00")
            while True:
                self._read()
        self._socket.close()

    def until_closed(self) -> None:
        """Take what comes until the broker hangs up."""
        with contextlib.suppress(OSError, Closed):
            while True:
                self._read()

    def certificate_names(self) -> set[str]:
        """The hosts that the broker's certificate is for."""
        found: dict[str, Any] = self._socket.getpeercert() or {}
        return {str(name) for _, name in found.get("subjectAltName", ())}

    def drop(self) -> None:
        """Be gone without a word."""
        self._socket.close()

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id

    def _answer(self, kind: int) -> bytes:
        """The body of the next packet of that kind; messages that come first are kept."""
        while True:
            for number, (came, body) in enumerate(self._answers):
                if came == kind:
                    del self._answers[number]
                    return body
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ)
        except TimeoutError:
            raise AssertionError(f"the broker said nothing for {PATIENCE:g} s") from None
        if not data:
            raise Closed
        self._buffer += data
        acknowledged = b""
        while (length := _whole(self._buffer)) is not None:
            first, body = self._buffer[0], bytes(self._buffer[length[0] : length[1]])
            del self._buffer[: length[1]]
            if first >> 4 == PUBLISH:
                acknowledged += self._take(first, body)
            else:
                self._answers.append((first >> 4, body))
        if acknowledged:
            self._socket.sendall(acknowledged)

    def _take(self, first: int, body: bytes) -> bytes:
        size = int.from_bytes(body[:2], "big") + 2
        qos = first >> 1 & 3
        text = body[size + (2 if qos else 0) :].decode(errors="replace")
        self.received.append(Told(body[2:size].decode(errors="replace"), text, bool(first & 1)))
        return _packet(0x40, body[size : size + 2]) if qos else b""


def publishing(message: Told, id: int) -> bytes:
    """PUBLISH at QoS 1."""
    body = _text(message.topic) + id.to_bytes(2, "big") + message.text.encode()
    return _packet(0x32 | message.retain, body)


def publishing_v5(message: Told, id: int, properties: bytes) -> bytes:
    """The same with MQTT 5's properties."""
    head = _text(message.topic) + id.to_bytes(2, "big") + _size(len(properties))
    body = head + properties + message.text.encode()
    return _packet(0x32 | message.retain, body)


def subscribing(filters: Sequence[str], id: int) -> bytes:
    """SUBSCRIBE at QoS 1."""
    wanted = b"".join(_text(one) + b"\x01" for one in filters)
    return _packet(0x82, id.to_bytes(2, "big") + wanted)


def _connect(login: Login, id: str, will: Told | None, clean: bool, version: int) -> bytes:
    flags, payload = 0x02 if clean else 0, _text(id)
    if version == 5:
        assert will is None, "a will has properties of its own"
        payload = b"\0" + payload  # no properties
    if will is not None:
        flags |= 0x0C | (0x20 if will.retain else 0)  # QoS 1
        payload += _text(will.topic) + _text(will.text)
    if login.name is not None:
        flags |= 0x80
        payload += _text(login.name)
    if login.password is not None:
        flags |= 0x40
        payload += _text(login.password)
    body = _text("MQTT") + bytes([version, flags]) + KEEPALIVE.to_bytes(2, "big") + payload
    return _packet(0x10, body)


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _size(len(body)) + body


def _size(left: int) -> bytes:
    """A variable byte integer."""
    size = bytearray()
    while True:
        left, digit = left >> 7, left & 127
        size.append(digit | (128 if left else 0))
        if not left:
            return bytes(size)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _whole(buffer: bytearray) -> tuple[int, int] | None:
    """Where the first packet's body begins and ends; None: not all of it is there."""
    length = 0
    for number, digit in enumerate(buffer[1:5]):
        length |= (digit & 127) << 7 * number
        if not digit & 128:
            ends = 2 + number + length
            return (2 + number, ends) if len(buffer) >= ends else None
    return None
