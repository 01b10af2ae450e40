"""A TCP proxy in front of a broker that reads MQTT's packets, and loses what a test tells it to.

    proxy = Proxy(broker)
    proxy.start()                                   # proxy.port stands where broker.port would
    rule = proxy.drop(PUBACK, TO_BROKER)            # the next one is lost
    proxy.cut_after(PUBLISH, TO_BROKER, topic="hw/pi1/collected")
    rule.wait()                                     # until it was applied
    proxy.stop()

A rule is applied to the next packets of its type and direction, ``times`` times (by default once);
the first rule that fits takes the packet. A connection is cut by an end of stream in both
directions: what was passed before arrives, and nothing after it. MQTT 3.1.1 and 5, without TLS.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.support.mqtt import HasPort
from tests.support.ports import LOOPBACK, free_port
from tests.support.waiting import PATIENCE, wait_until

CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBSCRIBE: Final = 8
SUBACK: Final = 9
NAMES: Final = {1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 8: "SUBSCRIBE", 9: "SUBACK"}

TO_BROKER: Final = True
TO_CLIENT: Final = False

ALWAYS: Final = 1_000_000  # times
LOSING: Final = ("drop", "cut before")
CHUNK: Final = 65_536  # bytes read at once
CONNECT_S: Final = 5.0  # for a connection to the broker, which is on this machine

Condition = Callable[["Packet"], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """One MQTT packet; two of the same bytes are two.

    ``topic``: of a PUBLISH; ``mid``: 0 where it has no packet identifier.
    """

    type: int
    to_broker: bool
    flags: int
    topic: str
    mid: int
    body: bytes  # what follows topic and packet identifier, MQTT 5's properties included
    raw: bytes

    @property
    def dup(self) -> bool:
        """Sent again, as its sender says."""
        return self.type == PUBLISH and bool(self.flags & 8)

    @property
    def retain(self) -> bool:
        return self.type == PUBLISH and bool(self.flags & 1)


@dataclass(slots=True)
class Rule:
    """What is done to the next packets that fit; ``applied``: to so many so far."""

    action: str
    type: int
    to_broker: bool
    topic: str | None
    where: Condition
    times: int
    applied: int = 0

    def fits(self, packet: Packet) -> bool:
        return (
            self.applied < self.times
            and (packet.type, packet.to_broker) == (self.type, self.to_broker)
            and self.topic in (None, packet.topic)
            and self.where(packet)
        )

    def wait(self, times: int = 1) -> None:
        """Until it was applied so often. Fails the test after a while."""
        what = f"{self.action} {NAMES.get(self.type, self.type)} {self.topic or ''}"
        wait_until(lambda: self.applied >= times, what=f"{what}: {times} times")


@dataclass(eq=False, slots=True)
class _Connection:
    client: socket.socket
    broker: socket.socket
    cut: bool = False
    pumps: list[threading.Thread] = field(default_factory=list)

    def end(self) -> None:
        """No more bytes in either direction; those that were sent before still arrive."""
        self.cut = True
        for side in (self.client, self.broker):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_WR)


class Proxy:
    """Listens on ``port`` for as long as it is started; every connection gets one to the broker.

    ``remember``: keep every packet for ``seen`` and ``acknowledged``; not for one that runs long.
    """

    def __init__(self, broker: HasPort, *, remember: bool = True) -> None:
        self.broker = broker
        self._remember = remember
        self.port = free_port()
        self._lock = threading.Condition()
        self._rules: list[Rule] = []
        self._seen: list[Packet] = []
        self._withheld: set[Packet] = set()  # lost here, or not sent on yet
        self._connections: set[_Connection] = set()
        self._held = False
        self._refusing = False
        self._stopped = threading.Event()
        self._pause = 0.0  # seconds before each packet
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    def start(self) -> None:
        self._listener = socket.create_server((LOOPBACK, self.port))
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """End everything, and wait for the end of its threads."""
        self._stopped.set()
        with self._lock:
            connections = list(self._connections)
            self._lock.notify_all()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        if self._acceptor is not None:
            self._acceptor.join(PATIENCE)
        with self._lock:
            connections += [one for one in self._connections if one not in connections]
        for connection in connections:
            for side in (connection.client, connection.broker):
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
            for pump in list(connection.pumps):
                pump.join(PATIENCE)
        if self._listener is not None:
            self._listener.close()

    # -- what it is told ----------------------------------------------------------------------

    def drop(self, type: int, to_broker: bool, *, topic: str | None = None,
             where: Condition = lambda _: True, times: int = 1) -> Rule:  # fmt: skip
        """Pass the packet over: its sender believes that it has arrived."""
        return self._add(Rule("drop", type, to_broker, topic, where, times))

    def repeat(self, type: int, to_broker: bool, *, topic: str | None = None,
               where: Condition = lambda _: True, times: int = 1) -> Rule:  # fmt: skip
        """Pass the packet twice."""
        return self._add(Rule("repeat", type, to_broker, topic, where, times))

    def cut_before(self, type: int, to_broker: bool, *, topic: str | None = None,
                   where: Condition = lambda _: True, times: int = 1) -> Rule:  # fmt: skip
        """Cut the connection instead of passing the packet."""
        return self._add(Rule("cut before", type, to_broker, topic, where, times))

    def cut_after(self, type: int, to_broker: bool, *, topic: str | None = None,
                  where: Condition = lambda _: True, times: int = 1) -> Rule:  # fmt: skip
        """Pass the packet and cut the connection."""
        return self._add(Rule("cut after", type, to_broker, topic, where, times))

    def forget_rules(self) -> None:
        """From now on everything passes."""
        with self._lock:
            self._rules = []

    def cut(self) -> None:
        """Cut the present connections; new ones are taken."""
        with self._lock:
            for connection in self._connections:
                self._end(connection)

    def refuse(self) -> None:
        """Cut the present connections, and end new ones at once, until ``accept``."""
        with self._lock:
            self._refusing = True
            for connection in self._connections:
                self._end(connection)

    def accept(self) -> None:
        """Take new connections again."""
        with self._lock:
            self._refusing = False

    def delay(self, seconds: float) -> None:
        """Wait so long before each packet, in each direction."""
        with self._lock:
            self._pause = seconds

    def hold(self) -> None:
        """Pass nothing, in no direction, until ``release``; nothing is lost."""
        with self._lock:
            self._held = True

    def release(self) -> None:
        with self._lock:
            self._held = False
            self._lock.notify_all()

    # -- what it saw --------------------------------------------------------------------------

    def seen(self, type: int, to_broker: bool, topic: str | None = None) -> list[Packet]:
        """The packets that came to the proxy so far, also those that it then lost."""
        with self._lock:
            return [
                packet
                for packet in self._seen
                if (packet.type, packet.to_broker) == (type, to_broker)
                and topic in (None, packet.topic)
            ]

    def acknowledged(self, packet: Packet) -> bool:
        """Whether the PUBACK of a PUBLISH has come since and was sent on: no cut undoes it."""
        with self._lock:
            later = self._seen[self._seen.index(packet) :]
            return any(
                (one.type, one.to_broker, one.mid) == (PUBACK, not packet.to_broker, packet.mid)
                for one in later
                if one not in self._withheld
            )

    @property
    def connections(self) -> int:
        """How many pass packets now."""
        with self._lock:
            return sum(not one.cut for one in self._connections)

    # -- how it does it -----------------------------------------------------------------------

    def _add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def _end(self, connection: _Connection) -> None:
        connection.end()
        self._lock.notify_all()  # what was held is lost with it

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                refusing = self._refusing or self._stopped.is_set()
            try:
                if refusing:
                    raise OSError("refused")
                broker = socket.create_connection((LOOPBACK, self.broker.port), CONNECT_S)
            except OSError:  # no broker behind a proxy looks like this, too
                client.close()
                continue
            broker.settimeout(None)
            for side in (client, broker):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(client, broker)
            connection.pumps = [
                threading.Thread(target=self._pump, args=(connection, way), daemon=True)
                for way in (TO_BROKER, TO_CLIENT)
            ]
            with self._lock:
                self._connections.add(connection)
                if self._refusing:
                    self._end(connection)
            for pump in connection.pumps:
                pump.start()

    def _pump(self, connection: _Connection, to_broker: bool) -> None:
        """Pass one direction's packets until its sender ends it."""
        source, target = connection.client, connection.broker
        if not to_broker:
            source, target = target, source
        with contextlib.suppress(OSError):
            for packet in packets(source, to_broker):
                # After a cut the rest is read and thrown away, else the kernel sends a reset.
                if not connection.cut:
                    self._pass(connection, packet, target)
        with self._lock:
            self._end(connection)
            over = threading.current_thread()
            if all(pump is over or not pump.is_alive() for pump in connection.pumps):
                self._connections.discard(connection)
                source.close()
                target.close()
            else:
                connection.pumps.remove(over)

    def _pass(self, connection: _Connection, packet: Packet, target: socket.socket) -> None:
        with self._lock:
            pause = self._pause
        self._stopped.wait(pause)
        with self._lock:
            self._lock.wait_for(lambda: not self._held or connection.cut or self._stopped.is_set())
            if connection.cut or self._stopped.is_set():
                return
            rule = next((rule for rule in self._rules if rule.fits(packet)), None)
            action = rule.action if rule else ""
            if self._remember:
                self._seen.append(packet)
                self._withheld.add(packet)
            if action == "cut before":
                self._end(connection)
            elif action == "cut after":
                connection.cut = True  # before it arrives: no answer passes any more
        if action not in LOSING:
            target.sendall(packet.raw * (2 if action == "repeat" else 1))
        with self._lock:
            if action not in LOSING:
                self._withheld.discard(packet)
            if action == "cut after":
                self._end(connection)
            if rule is not None:
                rule.applied += 1


def packets(source: socket.socket, to_broker: bool) -> Iterator[Packet]:
    """The packets of a stream. Ends with the stream; a last piece of a packet is dropped."""
    waiting = bytearray()
    while chunk := source.recv(CHUNK):
        waiting += chunk
        while (size := packet_size(waiting)) is not None and size <= len(waiting):
            yield parse(bytes(waiting[:size]), to_broker)
            del waiting[:size]


def packet_size(data: bytes | bytearray) -> int | None:
    """Bytes of the first packet, its header included; None where the header is not whole."""
    length = 0
    for place, byte in enumerate(data[1:5]):
        length |= (byte & 127) << (7 * place)
        if byte < 128:
            return 2 + place + length
    return None


def parse(raw: bytes, to_broker: bool) -> Packet:
    """One whole packet."""
    start = 2
    while raw[start - 1] >= 128:
        start += 1
    type, flags, body = raw[0] >> 4, raw[0] & 15, raw[start:]
    topic, mid = "", 0
    if type == PUBLISH:
        length = int.from_bytes(body[:2], "big")
        topic = body[2 : 2 + length].decode(errors="replace")
        body = body[2 + length :]
    if (type == PUBLISH and flags & 6) or PUBACK <= type <= 11:
        mid, body = int.from_bytes(body[:2], "big"), body[2:]
    return Packet(type, to_broker, flags, topic, mid, body, raw)
