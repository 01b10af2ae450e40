"""Cables between processes and the broker, and the connections on them as the broker sees them.

The law: a connection keeps the order of its packets, or loses its end, like TCP; unless a fault
says otherwise. What a client makes of its end stands in ``port``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import Final, Protocol

from hwsync.testing.broker import Broker, Packet, Session
from hwsync.testing.schedule import Schedule
from hwsync.transport import Subscription, Will
from hwsync.transport.connecting import Attempt
from hwsync.transport.outbox import HEADER
from hwsync.transport.paho_client import KEEPALIVE_S

UP: Final = True  # to the broker
DOWN: Final = False


class Plug(Protocol):
    """A process's end of a cable, as faults and the world see it (``port.Port``)."""

    @property
    def wanted(self) -> bool:
        """Whether its process lives."""

    @property
    def connected(self) -> bool:
        """Whether it believes in a connection."""

    @property
    def refused_at(self) -> float:
        """When the broker last hung up on something."""

    def silent(self) -> None:
        """The cable was blocked just now."""

    def cut(self) -> None:
        """The connection breaks: what was under way is lost."""


class Client(Protocol):
    """The client's end of a line (``port.FalseWire``): what arrives there."""

    def turned_away(self) -> None:
        """CONNACK: not this version."""

    def accepted(self, present: bool, max_packet: int | None) -> None:
        """CONNACK."""

    def granted(self, count: int) -> None:
        """SUBACK."""

    def answered(self, mid: int) -> None:
        """PUBACK."""

    def delivered(self, packet: Packet) -> None:
        """PUBLISH."""

    def end(self, reason: str, *, silent: bool = False) -> None:
        """The client notices the end."""


class Cable:
    """What lies between one process and the broker; it outlives both."""

    def __init__(self, schedule: Schedule, dice: Random, deliver: Callable[[], None]) -> None:
        self.blocked = {UP: False, DOWN: False}
        self.latency = 0.001  # seconds, on average
        self.trouble_at = -1.0  # when something was last blocked
        self.reorders = False  # messages of different topics may overtake each other
        self.late_s = 0.0  # by which statuses come later than all else, where messages overtake
        self.port: Plug | None = None  # the last one that was plugged in
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
        late = self.late_s if self.reorders and topic.endswith("/status") else 0.0
        latency = self.latency * (0.5 + self._dice.random())
        at = max(self._free.get(after, 0.0), now + latency + late)
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

    def __init__(
        self,
        schedule: Schedule,
        broker: Broker,
        cable: Cable,
        client_id: str,
        attempt: Attempt,
        will: Will | None,
        client: Client,
        *,
        stays: bool,
    ) -> None:
        """``stays``: whether its client wants its session to outlive it, whatever it asks for."""
        self.session: Session | None = None
        self.ended_here = False  # the client's end
        self.ended_there = False  # the broker's end
        self.opened_at: float | None = None  # the client heard the CONNACK
        self.politely = False  # the client said that it goes
        self.refused_at = -inf  # when the broker hung up on a message of it
        self._schedule, self._broker, self._cable = schedule, broker, cable
        self._client_id, self._attempt, self._will = client_id, attempt, will
        self._client, self._stays = client, stays

    @property
    def is_known(self) -> bool:
        """Whether the broker has it for its client's present one."""
        return self.session is not None and self.session.connection is self

    def up(self, action: Callable[[], None], topic: str = "") -> None:
        """Let something arrive at the broker."""
        self._cable.carry(self, UP, topic, action)

    def down(self, action: Callable[[], None], topic: str = "") -> None:
        """Let something arrive at the client."""
        self._cable.carry(self, DOWN, topic, action)

    # What arrives at the broker.

    def connect(self) -> None:
        """CONNECT."""
        broker, attempt = self._broker, self._attempt
        if not broker.up:
            return
        if attempt.protocol == 5 and not broker.habits.speaks_v5:
            self.down(self._client.turned_away)
            return
        before = broker.sessions.get(self._client_id)
        self.session, present = broker.connect(
            self._client_id, attempt.clean, self._will, self, keep=attempt.keep
        )
        self._dropped(before)
        habits = broker.habits
        largest = habits.largest if attempt.protocol == 5 and habits.announces else None
        most = None if largest is None else largest + HEADER
        self.down(lambda: self._client.accepted(present, most))
        broker.resume(self.session)

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """SUBSCRIBE."""
        if self.session is not None and self.is_known:
            self.down(lambda: self._client.granted(len(subscriptions)))
            self._broker.subscribe(self.session, subscriptions)

    def publish(self, packet: Packet, mid: int) -> None:
        """PUBLISH."""
        broker = self._broker
        if self.session is None or not self.is_known or not broker.up:
            return
        packet.at = self._schedule.now
        if not broker.refuses(packet):
            broker.publish(packet, self.session)
        elif self._attempt.protocol == 5 or not broker.habits.drops:
            self.refused_at = packet.at
            self.lose()
            self.close()
            return
        if packet.qos:
            self.down(lambda: self._client.answered(mid))

    def acknowledge(self, mid: int) -> None:
        """PUBACK."""
        if self.session is not None and self.is_known:
            self._broker.acknowledge(self.session, mid)

    def lose(self) -> None:
        """The end of the client, as the broker notices it."""
        if not self.ended_there:
            self.ended_there = True
            self._broker.gone(self, politely=self.politely)
            self._dropped(self.session)

    def _dropped(self, session: Session | None) -> None:
        """Say it where our own doing has ended a session that was to stay, and what was in it."""
        if session is not None and self._stays:
            self._broker.say_if_dropped(session)

    # What the broker does (``broker.Connection``).

    def deliver(self, packet: Packet) -> None:
        copy = replace(packet)  # the broker may mark it DUP while it is under way
        self.down(lambda: self._client.delivered(copy), packet.topic)

    def close(self) -> None:
        """The broker ends it; the client is told, where the cable passes."""
        self.ended_there = True
        self.down(lambda: self._client.end("closed by the broker"))

    # What a fault does.

    def silent(self, dice: Random) -> None:
        """The cable was blocked just now: each end notices in its own time, unless it heals."""
        for notice in (self._notice, self._miss):
            self._schedule.after(KEEPALIVE_S * (1.0 + dice.random() / 2), notice)

    def _notice(self) -> None:
        if not self._cable.whole:
            self._client.end("no answer", silent=True)

    def _miss(self) -> None:
        if not self._cable.whole and not self.ended_there:
            self.lose()
            self.close()

    def vanish(self) -> None:
        """The client's process has ended, without a word."""
        self.ended_here = True
        self.up(self.lose)
        self._schedule.after(1.5 * KEEPALIVE_S, self.lose)
