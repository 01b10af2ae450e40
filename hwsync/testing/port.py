"""A process's connection to the pretended broker: the real machine, on a wire without a network.

The law: the rules of a connection are ``hwsync.transport``'s own. Here is only what carries its
packets, and the moments at which it is pumped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.testing.broker import Broker, Packet
from hwsync.testing.network import Cable, Line
from hwsync.testing.schedule import Schedule, Timer
from hwsync.transport import Connection, Delivery, Signal, Subscription, Will
from hwsync.transport.connecting import Attempt
from hwsync.transport.failed import Failed
from hwsync.transport.paho_client import KEEPALIVE_S, SILENCE, UNSUPPORTED_VERSION
from hwsync.transport.publish import Publish
from hwsync.transport.wire import WireOwner

ADDRESS: Final = BrokerUrl("mqtt", "broker", 1883)


class Door:
    """``wire.Work`` that is done at once: the broker is there, or it is not."""

    is_done = True

    def __init__(self, failure: Failed | None) -> None:
        self._failure = failure

    def fileno(self) -> int:
        return -1

    def take(self) -> Failed | None:
        return self._failure

    def abandon(self) -> None:
        """It was done."""


class FalseWire:
    """See ``wire.Wire``."""

    look_s = KEEPALIVE_S / 2  # nothing is to be looked at, but more seldom would be a pause
    unreadable = ""
    wants_write = False
    is_flushed = True
    secured = None

    def __init__(self, port: Port, attempt: Attempt, will: Will | None, owner: WireOwner) -> None:
        self.line = Line(*port.ends, port.client_id, attempt, will, self, stays=port.stays)
        self._port, self._owner = port, owner
        self._came: deque[Callable[[], None]] = deque()
        self._early: list[Packet] = []  # overtook the CONNACK
        self._mid = 0
        self._at_once: list[int] = []  # of what was said at QoS 0

    @property
    def has_come(self) -> bool:
        """Whether ``read`` has something."""
        return bool(self._came)

    # What the link does.

    def dial(self) -> Door:
        self._port.look_soon()
        return Door(None if self._port.reaches else Failed("no connection"))

    def ask_why(self, otherwise: Failed) -> Door:
        self._port.look_soon()
        return Door(otherwise)

    def fileno(self) -> None:
        """Nothing is to be watched."""

    @property
    def read_us(self) -> int:
        return self._port.raw_us()

    def say_hello(self) -> None:
        self.line.up(self.line.connect)

    def say_goodbye(self) -> None:
        self.line.politely = True

    def close(self) -> None:
        if not self.line.ended_here:
            self.line.ended_here = True
            self.line.up(self.line.lose)

    def send(
        self, topic: str, payload: bytes, qos: int, retain: bool, correlation: bytes = b""
    ) -> int:
        packet = Packet(topic, payload, qos, retain, 0.0, correlation=correlation)
        self._mid = mid = self._mid + 1
        self.line.up(lambda: self.line.publish(packet, mid), topic)
        if not qos:
            self._at_once.append(mid)
        return mid

    def acknowledge(self, mid: int, qos: int) -> None:
        self.line.up(lambda: self.line.acknowledge(mid))

    def ask_for(self, subscriptions: Sequence[Subscription]) -> None:
        self.line.up(lambda: self.line.subscribe(subscriptions))

    def read(self) -> None:
        while self._came:
            self._came.popleft()()

    def write(self) -> None:
        written, self._at_once = self._at_once, []
        for mid in written:
            self._owner.acknowledged(mid)

    def look(self) -> None:
        """No ping is sent: a cable that is blocked says itself when that is noticed."""

    # What arrives.

    def _comes(self, what: Callable[[], None]) -> None:
        self._came.append(what)
        self._port.look()

    def turned_away(self) -> None:
        """CONNACK: not this version."""
        reason = "unsupported protocol version"
        self._comes(lambda: self._owner.turned_away(UNSUPPORTED_VERSION, reason))

    def accepted(self, present: bool, max_packet: int | None) -> None:
        """CONNACK."""
        self.line.opened_at = self._port.now
        early, self._early = self._early, []
        self._came.append(lambda: self._owner.accepted(present, max_packet, None))
        for packet in early:
            self._take(packet)
        self._port.look()

    def granted(self, count: int) -> None:
        """SUBACK."""
        self._comes(lambda: self._owner.granted([True] * count))

    def answered(self, mid: int) -> None:
        """PUBACK."""
        self._comes(lambda: self._owner.acknowledged(mid))

    def delivered(self, packet: Packet) -> None:
        """PUBLISH."""
        if self.line.opened_at is None:
            self._early.append(packet)
        else:
            self._take(packet)
            self._port.look()

    def _take(self, packet: Packet) -> None:
        self._port.cable.message_arrived()
        read = Publish(
            packet.topic.encode(),
            packet.mid,
            packet.payload,
            packet.reply_topic,
            packet.correlation,
        )
        self._came.append(
            lambda: self._owner.delivered(read, packet.qos, packet.retain, packet.dup)
        )

    def end(self, reason: str, *, silent: bool = False) -> None:
        """The client notices the end; nothing comes any more, and the broker notices it, too."""
        if not self.line.ended_here:
            self.close()
            self._comes(lambda: self._owner.disconnected(SILENCE if silent else 0, reason, False))


class Port:
    """A process's connection to the broker; what comes is told to ``on_signal``."""

    def __init__(
        self,
        schedule: Schedule,
        broker: Broker,
        cable: Cable,
        dice: Random,
        client_id: str,
        *,
        on_signal: Callable[[Signal], None],
        subscriptions: Sequence[Subscription],
        will: Will | None = None,
        clean_session: bool = True,
        prefer_v5: bool = False,
        raw_us: Callable[[], int] = lambda: 0,
    ) -> None:
        self.raw_us = raw_us
        self.cable, self.client_id, self.stays = cable, client_id, not clean_session
        cable.port = self
        self._schedule, self._broker, self._dice = schedule, broker, dice
        self._on_signal = on_signal
        self._wire: FalseWire | None = None  # the last one
        self._refused_at = -inf  # of those before it
        self._timer: Timer | None = None
        self._is_over = False  # its process has ended
        self._connection = Connection(
            ADDRESS,
            client_id,
            subscriptions=subscriptions,
            will=will,
            clean_session=clean_session,
            prefer_v5=prefer_v5,
            wire=self._make_wire,
            monotonic=lambda: schedule.now,
            dice=dice,
        )

    def _make_wire(
        self, _: BrokerUrl, __: str, attempt: Attempt, will: Will | None, owner: WireOwner
    ) -> FalseWire:
        self._refused_at = self.refused_at
        self._wire = FalseWire(self, attempt, will, owner)
        return self._wire

    # What a process asks of its connection.

    @property
    def connection(self) -> int:
        return self._connection.connection

    @property
    def connected(self) -> bool:
        return self._connection.connection != 0

    @property
    def backlog(self) -> int:
        return self._connection.backlog

    @property
    def all_acknowledged(self) -> bool:
        return self._connection.all_acknowledged

    def under_way(self, topic: str) -> bool:
        return self._connection.under_way(topic)

    def start(self) -> None:
        self._schedule.after(self._dice.random() * 0.01, self._begin)

    def _begin(self) -> None:
        self._connection.start()
        self.look()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        sent = self._connection.publish(
            topic, payload, qos=qos, retain=retain, correlation=correlation
        )
        self._connection.write()
        return sent

    def acknowledge(self, delivery: Delivery) -> None:
        self._connection.acknowledge(delivery)

    def end(self) -> None:
        """The process ends: the broker sees its connection vanish."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._wire is not None and not self._wire.line.ended_here:
            self._wire.line.vanish()

    # What the world asks of it, and does to it.

    @property
    def ends(self) -> tuple[Schedule, Broker, Cable]:
        """What a line of it lies between."""
        return self._schedule, self._broker, self.cable

    @property
    def now(self) -> float:
        return self._schedule.now

    @property
    def reaches(self) -> bool:
        """Whether a broker is to be reached now."""
        return self._broker.up and self.cable.whole

    @property
    def wanted(self) -> bool:
        """Whether its process lives."""
        return not self._is_over

    @property
    def line(self) -> Line | None:
        """The present connection."""
        return self._wire.line if self._wire is not None and self.connected else None

    @property
    def refused_at(self) -> float:
        """When the broker last hung up on something."""
        return max(self._refused_at, self._wire.line.refused_at if self._wire else -inf)

    def silent(self) -> None:
        """The cable was blocked just now."""
        if self.line is not None:
            self.line.silent(self._dice)

    def cut(self) -> None:
        """The connection breaks: what was under way is lost."""
        if self._wire is not None and self.line is not None:
            self.line.lose()
            self._wire.end("reset")

    # Pumping.

    def look_soon(self) -> None:
        """Pump it at this moment, when what happens now is over."""
        self._schedule.after(0.0, self.look)

    def look(self) -> None:
        """Have the connection handle what has come, and plan when it is looked at again."""
        if self._is_over:
            return
        readable = self._wire is not None and self._wire.has_come
        for signal in self._connection.handle(self.now, readable):
            self._on_signal(signal)
        at = self._connection.next_at
        if at is None or (self._timer and self._timer.action and self._timer.at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._schedule.after(at - self.now, self.look)
