"""Cables between processes and the broker, and the transport that a process has at its end.

The law: a connection keeps the order of its packets, or loses its end, like TCP; unless a fault
says otherwise. ``Port`` behaves as ``hwsync.transport.Transport`` does: what is sent on a
connection that ends is lost with it, and it comes back by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from hwsync.testing.broker import Broker, Packet, Session
from hwsync.testing.schedule import Schedule
from hwsync.transport import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    STABLE_S,
    Connected,
    Delivery,
    Disconnected,
    Sent,
    Signal,
    Subscribed,
    Subscription,
    Will,
)
from hwsync.transport.capacity import HEADER
from hwsync.transport.connecting import Attempt, attempts
from hwsync.transport.link import HANG_UP_S
from hwsync.transport.paho_client import KEEPALIVE_S

UP: Final = True  # to the broker
DOWN: Final = False
SILENCE: Final = "no answer"


class Cable:
    """What lies between one process and the broker; it outlives both."""

    def __init__(self, schedule: Schedule, dice: Random, deliver: Callable[[], None]) -> None:
        self.blocked = {UP: False, DOWN: False}
        self.latency = 0.001  # seconds, on average
        self.trouble_at = -1.0  # when something was last blocked
        self.reorders = False  # messages of different topics may overtake each other
        self.port: Port | None = None  # the last one that was plugged in
        self._schedule, self._dice, self._delivered = schedule, dice, deliver
        self._free: dict[object, float] = {}
        self._held: list[tuple[Line, bool, Callable[[], None]]] = []

    @property
    def whole(self) -> bool:
        """Whether both directions pass."""
        return not (self.blocked[UP] or self.blocked[DOWN])

    def carry(self, line: Line, up: bool, topic: str, action: Callable[[], None]) -> None:
        """Let something arrive at the other end, in order."""
        if self.blocked[up]:
            self._held.append((line, up, action))
            return
        now = self._schedule.now
        after = (up, topic) if self.reorders and topic else up  # nothing of that kind is overtaken
        at = max(self._free.get(after, 0.0), now + self.latency * (0.5 + self._dice.random()))
        self._free[up, topic] = at
        self._free[up] = max(self._free.get(up, 0.0), at)
        self._schedule.after(at - now, lambda: self._arrive(line, up, action))

    def _arrive(self, line: Line, up: bool, action: Callable[[], None]) -> None:
        if self.blocked[up]:
            self._held.append((line, up, action))
        elif not (line.ended_there if up else line.ended_here):
            action()

    def block(self, *directions: bool) -> None:
        """Nothing passes any more in these directions; the packets wait, as TCP's do."""
        self.trouble_at = self._schedule.now
        for up in directions:
            self.blocked[up] = True

    def heal(self) -> None:
        """Both directions pass again; what still has a connection arrives."""
        if not self.whole:
            self.trouble_at = self._schedule.now
        self.blocked = {UP: False, DOWN: False}
        held, self._held = self._held, []
        for line, up, action in held:
            self.carry(line, up, "", action)

    def message_arrived(self) -> None:
        """Count one delivered message."""
        self._delivered()


class Line:
    """One connection: both ends believe in it until they notice its end."""

    def __init__(self, port: Port, number: int, attempt: Attempt) -> None:
        self.port, self.number, self.attempt = port, number, attempt
        self.session: Session | None = None
        self.unanswered: list[Sent] = []  # publishes without PUBACK
        self.sent_at = -HANG_UP_S  # the last one
        self.ended_here = False  # the client's end
        self.ended_there = False  # the broker's end
        self.opened_at: float | None = None
        self.early: list[Packet] = []  # overtook the CONNACK

    # the broker's end

    def deliver(self, packet: Packet) -> None:
        copy = replace(packet)  # the broker may mark it DUP while it is under way
        cable = self.port.cable
        cable.carry(self, DOWN, packet.topic, lambda: self.port.arrived(self, copy))

    def close(self) -> None:
        """The broker ends it; the client is told, where the cable passes."""
        self.ended_there = True
        self.port.cable.carry(self, DOWN, "", lambda: self.port.over(self, "closed by the broker"))


class Port:
    """A process's connection to the broker; as ``Transport``, without threads."""

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
    ) -> None:
        self.cable = cable
        cable.port = self
        self._schedule, self._broker, self._dice = schedule, broker, dice
        self._client_id, self._on_signal = client_id, on_signal
        self._subscriptions, self._will = tuple(subscriptions), will
        self._clean, self._prefer_v5 = clean_session, prefer_v5
        self._worked = 0
        self._attempts: list[Attempt] = []  # what is left of this connect
        self._line: Line | None = None
        self._numbers = 0
        self._pause = BACKOFF_FIRST_S
        self._stopped = False
        self.refused_at = -math.inf  # when the broker last hung up on something

    # -- as a transport -----------------------------------------------------------------------

    @property
    def connection(self) -> int:
        return self._line.number if self._line is not None else 0

    @property
    def connected(self) -> bool:
        return self._line is not None

    @property
    def wanted(self) -> bool:
        """Whether its process lives."""
        return not self._stopped

    @property
    def settled(self) -> bool:
        return self._line is not None and not self._line.unanswered

    def under_way(self, topic: str) -> bool:
        line = self._line
        return line is not None and any(one.topic == topic for one in line.unanswered)

    @property
    def line(self) -> Line | None:
        """The present connection."""
        return self._line

    def start(self) -> None:
        self._schedule.after(self._dice.random() * 0.01, self._connect)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
        reply_topic: str = "",
    ) -> bool:
        line = self._line
        if line is None:
            return False
        packet = Packet(topic, payload, qos, retain, 0.0, False, 0, reply_topic, correlation)
        if qos:
            line.unanswered.append(Sent(topic, len(payload)))
            line.sent_at = self._schedule.now
        self.cable.carry(line, UP, topic, lambda: self._published(line, packet))
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        line = self._line
        if line is not None and line.number == delivery.connection and delivery.qos:
            mid = delivery.mid
            self.cable.carry(line, UP, "", lambda: self._acknowledged(line, mid))

    def end(self) -> None:
        """The process ends."""
        self._stopped = True
        line, self._line = self._line, None
        if line is not None:
            line.ended_here = True
            self.cable.carry(line, UP, "", lambda: self._lost(line))
            self._schedule.after(1.5 * KEEPALIVE_S, lambda: self._lost(line))

    # -- both ends ----------------------------------------------------------------------------

    def silent(self) -> None:
        """The cable was blocked just now: each end notices in its own time, unless it heals."""
        line = self._line
        if line is not None:
            for notice in (lambda: self._notices(line), lambda: self._missed(line)):
                self._schedule.after(KEEPALIVE_S * (1.0 + self._dice.random() / 2), notice)

    def _notices(self, line: Line) -> None:
        if not self.cable.whole:
            self.over(line, SILENCE)

    def _missed(self, line: Line) -> None:
        if not self.cable.whole and not line.ended_there:
            self._lost(line)
            line.close()

    def cut(self) -> None:
        """The connection breaks: what was under way is lost."""
        line = self._line
        if line is not None:
            self._lost(line)
            self.over(line, "reset")

    def over(self, line: Line, reason: str) -> None:
        """The client notices the end."""
        if line.ended_here or self._stopped:
            return
        line.ended_here = True
        self._line = None
        just_sent = bool(line.unanswered) and self._schedule.now - line.sent_at < HANG_UP_S
        hung_up = just_sent and reason != SILENCE
        if line.opened_at is not None and self._schedule.now - line.opened_at > STABLE_S:
            self._pause = BACKOFF_FIRST_S
        self.cable.carry(line, UP, "", lambda: self._lost(line))
        unanswered = tuple(line.unanswered)
        self._on_signal(Disconnected(reason, True, hung_up=hung_up, unanswered=unanswered))
        self._again()

    def _lost(self, line: Line) -> None:
        """The broker notices the end."""
        if not line.ended_there:
            line.ended_there = True
            self._broker.gone(line)
            self._dropped(line.session)

    def _again(self) -> None:
        pause = self._pause * (0.5 + self._dice.random() / 2)
        self._pause = min(2 * self._pause, BACKOFF_MAX_S)
        self._schedule.after(pause, self._connect)

    def _connect(self) -> None:
        if self._stopped or self._line is not None:
            return
        if not (self._broker.up and self.cable.whole):
            self._on_signal(Disconnected("no connection", False))
            self._again()
            return
        worked, self._worked = self._worked, 0
        self._attempts = list(attempts(self._clean, self._prefer_v5, worked))
        self._try()

    def _try(self) -> None:
        """The next attempt of this connect."""
        self._numbers += 1
        line = Line(self, self._numbers, self._attempts.pop(0))
        self.cable.carry(line, UP, "", lambda: self._accepted(line))
        # Nobody answers where the cable breaks just now.
        self._schedule.after(line.attempt.patience, lambda: self._failed(line, "no answer"))

    def _failed(self, line: Line, reason: str) -> None:
        """At the client: this attempt led to nothing."""
        if self._line is line or line.ended_here or self._stopped:
            return
        line.ended_here = True
        self.cable.carry(line, UP, "", lambda: self._lost(line))
        if self._attempts and self.cable.whole and self._broker.up:
            self._try()
        else:
            self._on_signal(Disconnected(reason, False))
            self._again()

    def _accepted(self, line: Line) -> None:
        """At the broker: CONNECT."""
        if not self._broker.up:
            return
        attempt = line.attempt
        if attempt.protocol == 5 and not self._broker.habits.speaks_v5:
            self.cable.carry(line, DOWN, "", lambda: self._failed(line, "unsupported version"))
            return
        before = self._broker.sessions.get(self._client_id)
        line.session, present = self._broker.connect(
            self._client_id, attempt.clean, self._will, line, keep=attempt.keep
        )
        self._dropped(before)
        self.cable.carry(line, DOWN, "", lambda: self._opened(line, present))
        self._broker.resume(line.session)

    def _dropped(self, session: Session | None) -> None:
        """Say it where our own doing has ended a session that was to stay, and what was in it."""
        if session is not None and not self._clean:
            self._broker.say_if_dropped(session)

    def _opened(self, line: Line, present: bool) -> None:
        """At the client: CONNACK."""
        if line.ended_here or self._stopped:
            return
        self._line = line
        line.opened_at = self._schedule.now
        self._worked = line.attempt.protocol
        habits = self._broker.habits
        largest = habits.largest if self._worked == 5 and habits.announces else None
        most = None if largest is None else largest + HEADER
        self._on_signal(Connected(present, self._worked, max_packet=most))
        early, line.early = line.early, []
        for packet in early:
            self.arrived(line, packet)
        self.cable.carry(line, UP, "", lambda: self._subscribes(line))

    def _subscribes(self, line: Line) -> None:
        """At the broker: SUBSCRIBE."""
        if line.session is None or line.session.connection is not line:
            return
        self.cable.carry(line, DOWN, "", lambda: self._subscribed(line))
        self._broker.subscribe(line.session, self._subscriptions)

    def _subscribed(self, line: Line) -> None:
        if line is self._line:
            self._on_signal(Subscribed())

    def _published(self, line: Line, packet: Packet) -> None:
        """At the broker: PUBLISH."""
        if line.session is None or line.session.connection is not line or not self._broker.up:
            return
        packet.at = self._schedule.now
        if not self._broker.refuses(packet):
            self._broker.publish(packet, line.session)
        elif line.attempt.protocol == 5 or not self._broker.habits.drops:
            self.refused_at = packet.at
            self._lost(line)
            line.close()
            return
        if packet.qos:
            self.cable.carry(line, DOWN, "", lambda: self._answered(line, packet))

    def _answered(self, line: Line, packet: Packet) -> None:
        line.unanswered.remove(Sent(packet.topic, len(packet.payload)))

    def _acknowledged(self, line: Line, mid: int) -> None:
        if line.session is not None and line.session.connection is line:
            self._broker.acknowledge(line.session, mid)

    def arrived(self, line: Line, packet: Packet) -> None:
        """At the client: PUBLISH."""
        if line.opened_at is None:
            line.early.append(packet)
        if line is not self._line:
            return
        self.cable.message_arrived()
        self._on_signal(
            Delivery(
                packet.topic,
                packet.payload,
                packet.qos,
                packet.retain,
                packet.dup,
                packet.mid,
                line.number,
                packet.reply_topic,
                packet.correlation,
            )
        )
