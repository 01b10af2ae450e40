"""A broker of MQTT 3.1.1 with the habits of others, which a test cannot install.

What it is told to be like was seen on the real ones: NATS 2.9.10 ends the connection of whoever
publishes on a topic with a dot; RabbitMQ 3.10.8 makes a ``/`` of it, and gives what is retained to
exact filters only. Neither speaks MQTT 5, nor says its name. It knows no sessions, and delivers at
QoS 0.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal

from hwsync.testing.broker import matches
from tests.support.ports import LOOPBACK
from tests.support.proxy import CONNECT, PUBLISH, SUBSCRIBE, Packet, packets

PINGREQ = 12
VERSION = 6  # the place of the protocol's version in a CONNECT


class TinyBroker:
    """``refusals``: so many SUBSCRIBE are refused. ``dots``: what a dot in a topic becomes."""

    def __init__(
        self,
        *,
        refusals: int = 0,
        dots: Literal["kept", "the end", "/"] = "kept",
        retained_for_all: bool = True,
    ) -> None:
        self.subscribed = 0  # SUBSCRIBEs that came
        self.connects: list[Packet] = []
        self._refusals, self._dots, self._for_all = refusals, dots, retained_for_all
        self._lock = threading.Lock()
        self._retained: dict[str, bytes] = {}
        self._filters: dict[socket.socket, set[str]] = {}
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="tiny-broker", daemon=True).start()

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for client in self._filters:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._filters[client] = set()
        with client, contextlib.suppress(OSError):
            for packet in packets(client, True):
                with self._lock:
                    if not self._take(client, packet):
                        break
        with self._lock:
            del self._filters[client]

    def _take(self, client: socket.socket, packet: Packet) -> bool:
        """Whether the connection goes on."""
        if packet.type == CONNECT:
            understood = packet.body[VERSION] == 4
            self.connects.append(packet)
            client.sendall(b"\x20\x02\0\0" if understood else b"\x20\x02\0\1")
            return understood
        if packet.type == SUBSCRIBE:
            self._subscribe(client, packet)
        elif packet.type == PUBLISH:
            return self._publish(client, packet)
        elif packet.type == PINGREQ:
            client.sendall(b"\xd0\0")
        return True

    def _subscribe(self, client: socket.socket, packet: Packet) -> None:
        wanted, body = list[str](), packet.body
        while body:
            length = int.from_bytes(body[:2], "big")
            wanted.append(body[2 : 2 + length].decode())
            body = body[3 + length :]
        self.subscribed += 1
        refused = self.subscribed <= self._refusals
        codes = (b"\x80" if refused else b"\0") * len(wanted)
        size = bytes([2 + len(codes)])
        client.sendall(b"\x90" + size + packet.mid.to_bytes(2, "big") + codes)
        if refused:
            return
        self._filters[client] |= set(wanted)
        for topic, payload in self._retained.items():
            exact = topic in wanted
            if exact or (self._for_all and any(matches(one, topic) for one in wanted)):
                client.sendall(publishing(topic, payload, retain=True))

    def _publish(self, client: socket.socket, packet: Packet) -> bool:
        topic, qos = packet.topic, packet.flags >> 1 & 3
        if "." in topic and self._dots == "the end":
            return False
        if self._dots == "/":
            topic = topic.replace(".", "/")
        if qos:
            client.sendall(b"\x40\x02" + packet.mid.to_bytes(2, "big"))
        if packet.retain:
            self._retained.pop(topic, None)
            if packet.body:
                self._retained[topic] = packet.body
        for other, filters in self._filters.items():
            if any(matches(one, topic) for one in filters):
                with contextlib.suppress(OSError):
                    other.sendall(publishing(topic, packet.body))
        return True


def publishing(topic: str, payload: bytes, *, retain: bool = False) -> bytes:
    """PUBLISH at QoS 0."""
    body = len(topic.encode()).to_bytes(2, "big") + topic.encode() + payload
    size, left = bytearray(), len(body)
    while True:
        left, digit = left >> 7, left & 127
        size.append(digit | (128 if left else 0))
        if not left:
            return bytes([0x30 | retain]) + size + body
