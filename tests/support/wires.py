"""Two ends of a TCP connection on this machine, and a broker that a test plays by hand."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from hwsync.transport import Connection, Pump, Signal
from tests.support.ports import LOOPBACK
from tests.support.proxy import Packet, packet_size, parse
from tests.support.waiting import wait_until

CONNACK = bytes([0x20, 2, 0, 0])  # MQTT 3.1.1: accepted, no session
CONNACK_5 = bytes([0x20, 3, 0, 0, 0])
SUBACK = bytes([0x90, 3, 0, 1, 1])  # of the first SUBSCRIBE, with one filter, at QoS 1
SUBACK_5 = bytes([0x90, 4, 0, 1, 0, 1])
PATIENCE_S = 10.0


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, connected."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


class ByHand:
    """A listener, and one client of it after the other; nothing answers by itself."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._client: socket.socket | None = None

    @property
    def client(self) -> socket.socket:
        """The last one that was accepted."""
        assert self._client is not None
        return self._client

    def accept(self) -> None:
        self.hang_up()
        self._listener.settimeout(PATIENCE_S)
        self._client, _ = self._listener.accept()
        self._client.settimeout(PATIENCE_S)

    def next(self) -> list[Packet]:
        """The packets of the next piece that comes; empty at the end of the connection."""
        data, found = self.client.recv(1_000_000), []
        while (size := packet_size(data)) is not None:
            found.append(parse(data[:size], True))
            data = data[size:]
        return found

    def say(self, data: bytes) -> None:
        self.client.sendall(data)

    def hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def close(self) -> None:
        self.hang_up()
        self._listener.close()


class Pumped:
    """A connection and its pump; everything that it signalled, in order."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.pump = connection, Pump(connection)
        self.signals: list[Signal] = []
        connection.start()

    def until(self, condition: Callable[[], Any]) -> None:
        """Pump until that is so."""

        def holds() -> bool:
            self.signals += self.pump.wait(0.05)
            return bool(condition())

        wait_until(holds, PATIENCE_S)

    def came(self, kind: type[Signal]) -> list[Any]:
        """The signals of that kind."""
        return [signal for signal in self.signals if isinstance(signal, kind)]

    def after(self, seconds: float) -> None:
        """Handle what is there, as if so much time had passed."""
        descriptor = self.connection.fileno()
        watched = [] if descriptor is None else [descriptor]
        readable = bool(select.select(watched, [], [], 0.0)[0])
        self.signals += self.connection.handle(time.monotonic() + seconds, readable)

    def close(self) -> None:
        self.connection.close()
