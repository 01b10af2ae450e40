"""A broker that is pretended, with the habits of real ones, good and bad.

The law: it keeps what MQTT 3.1.1 and 5 say of sessions, retained messages, wills and QoS 1, as far
as hwsync uses them, and departs from it only by a habit (``Habits``) or a fault that it was told.
It knows no hwsync. Packets travel on connections that somebody else carries (network.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import Final, Protocol

from hwsync.transport import Subscription, Will

WINDOW: Final = 20  # QoS 1 messages under way to one client, as in mosquitto
LATE_COPY_S: Final = (0.001, 1.0, 5.0, 30.0)  # by at most so much a copy comes later
DROPPED: Final = "a client ended its own session"
MEMORY_S: Final = 1.0  # what a kill -9 may take with it, where the broker saves each second


@dataclass(frozen=True, slots=True)
class Habits:
    """What tells one broker from another (measured; see docs/reliability.md)."""

    name: str
    speaks_v5: bool
    resends: bool = True  # what was not acknowledged, at the next connect
    flags_queued: bool = False  # queued messages come with the retain flag
    queues: bool = True  # for a session that is away
    again_s: float | None = None  # unacknowledged ones also while connected, after so long
    remembers: bool = True  # over its own end, but for the last second
    largest: int | None = None  # bytes of a payload; None: whatever is sent
    announces: bool = False  # that limit, to who speaks MQTT 5
    drops: bool = False  # what is larger, with a PUBACK; MQTT 5 clients are cut off all the same


MOSQUITTO: Final = Habits("mosquitto", speaks_v5=True)
AMQTT: Final = Habits("amqtt", speaks_v5=False, resends=False, queues=False, remembers=False)
AMQTT_WITH_LOGIN: Final = replace(AMQTT, name="amqtt-login", flags_queued=True, queues=True)
NATS: Final = Habits("nats", speaks_v5=False, again_s=30.0)
REFUSED: Final = "refused/"  # the beginning of topics that a broker with a limit hangs up on
BROKERS: Final = (MOSQUITTO, AMQTT, AMQTT_WITH_LOGIN, NATS)


@dataclass(slots=True)
class Packet:
    """One PUBLISH; ``mid`` is 0 until it is under way. ``at``: when the broker took it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    at: float
    dup: bool = False
    mid: int = 0
    reply_topic: str = ""
    correlation: bytes = b""


class Connection(Protocol):
    """The broker's end of a connection."""

    def deliver(self, packet: Packet) -> None:
        """Send it to the client."""

    def close(self) -> None:
        """End it from here."""


@dataclass(slots=True, eq=False)
class Session:
    """What is kept for one client id."""

    client_id: str
    clean: bool
    made_at: float
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    waiting: deque[Packet] = field(default_factory=deque)
    under_way: dict[int, Packet] = field(default_factory=dict)
    acknowledged: deque[tuple[float, Packet]] = field(default_factory=deque)  # of the last second
    connection: Connection | None = None
    will: Will | None = None
    last_mid: int = 0


@lru_cache(maxsize=4096)
def matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter takes a topic."""
    levels, names = pattern.split("/"), topic.split("/")
    for number, level in enumerate(levels):
        if level == "#":
            return True
        if number >= len(names) or level not in ("+", names[number]):
            return False
    return len(levels) == len(names)


class Broker:
    """One broker. ``clock`` says the time, ``later`` does something after so many seconds;
    ``tell`` is told of each fault that takes effect.
    """

    def __init__(
        self,
        habits: Habits,
        dice: Random,
        clock: Callable[[], float],
        tell: Callable[[str, Packet | None], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.habits = habits
        self.up = True
        self.loss = 0.0  # of the copies to a subscriber, silently; after the PUBACK
        self.copies = 0.0  # delivered twice, as two messages
        self.dups = 0.0  # sent again, marked DUP, though nothing was lost
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, Packet] = {}
        self._before: dict[str, tuple[float, Packet | None]] = {}  # changed in the last second
        self._dice, self._clock, self._tell, self._later = dice, clock, tell, later
        self._routes: dict[str, list[tuple[Session, Subscription]]] = {}

    # -- clients ------------------------------------------------------------------------------

    def connect(
        self,
        client_id: str,
        clean: bool,
        will: Will | None,
        connection: Connection,
        *,
        keep: bool | None = None,
    ) -> tuple[Session, bool]:
        """Take a client; (its session, whether there was one).

        ``keep``: whether the session outlives the connection; None: unless it is clean.
        """
        old = self.sessions.get(client_id)
        if old is not None and old.connection is not None:
            taken_over = old.connection
            self.gone(taken_over)
            taken_over.close()
        present = not clean and client_id in self.sessions
        if not present:
            self.sessions[client_id] = Session(client_id, clean, self._clock())
            self._routes.clear()
        session = self.sessions[client_id]
        session.connection, session.will = connection, will
        session.clean = clean if keep is None else not keep
        return session, present

    def say_if_dropped(self, session: Session) -> None:
        """Whether this session is gone, with messages that were acknowledged to their senders."""
        left = [*session.under_way.values(), *session.waiting]
        if left and self.sessions.get(session.client_id) is not session:
            self._tell(DROPPED, left[0])

    def resume(self, session: Session) -> None:
        """Send what waited for it, first what was under way before."""
        again = sorted(session.under_way.values(), key=lambda packet: packet.at)
        session.under_way.clear()
        if self.habits.resends:
            for packet in reversed(again):
                packet.dup = True
                session.waiting.appendleft(packet)
        elif again:
            self._tell("not sent again", again[0])
        if self.habits.flags_queued:
            for packet in session.waiting:
                packet.retain = True
                self._tell("queued with the retain flag", packet)
        self._send(session)

    def subscribe(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """Add filters, and send what is retained for them."""
        for one in subscriptions:
            session.subscriptions[one.topic] = one
        self._routes.clear()
        for topic, packet in self.retained.items():
            for one in subscriptions:
                if matches(one.topic, topic):
                    copy = replace(
                        packet, qos=min(packet.qos, one.qos), retain=True, mid=0, dup=False,
                        at=self._clock(),
                    )  # fmt: skip
                    if copy.qos == 0 and session.connection is not None:
                        session.connection.deliver(copy)  # it waits for no window
                    else:
                        self._queue(session, copy)
                    break
        self._send(session)

    def refuses(self, packet: Packet) -> bool:
        """Whether it does not take this message."""
        largest = self.habits.largest
        return largest is not None and (
            len(packet.payload) > largest or packet.topic.startswith(REFUSED)
        )

    def publish(self, packet: Packet, sender: Session | None = None) -> None:
        """Take a message and pass it on."""
        if packet.retain:
            now = self._clock()
            if now - self._before.get(packet.topic, (-MEMORY_S, None))[0] >= MEMORY_S:
                self._before[packet.topic] = (now, self.retained.get(packet.topic))
            if packet.payload:
                self.retained[packet.topic] = packet
            else:
                self.retained.pop(packet.topic, None)
        for session, subscription in self._subscribers(packet.topic):
            if subscription.no_local and session is sender and self.habits.speaks_v5:
                continue
            self._route(session, subscription, packet)

    def acknowledge(self, session: Session, mid: int) -> None:
        """A PUBACK came."""
        packet = session.under_way.pop(mid, None)
        if packet is not None:
            now = self._clock()
            session.acknowledged.append((now, packet))
            while session.acknowledged[0][0] < now - MEMORY_S:
                session.acknowledged.popleft()
            self._send(session)

    def gone(self, connection: Connection, *, politely: bool = False) -> None:
        """A connection ended; unless politely, its will is published."""
        session = next(
            (one for one in self.sessions.values() if one.connection is connection), None
        )
        if session is None:
            return
        session.connection = None
        will, session.will = session.will, None
        if session.clean:
            del self.sessions[session.client_id]
            self._routes.clear()
        if will is not None and not politely:
            self.publish(Packet(will.topic, will.payload, 1, will.retain, self._clock()))

    def send_again(self, session: Session) -> bool:
        """Send what is under way once more, marked DUP, on the same connection."""
        if session.connection is None or not session.under_way:
            return False
        for packet in session.under_way.values():
            session.connection.deliver(replace(packet, dup=True))
        return True

    # -- its own end --------------------------------------------------------------------------

    def stop(self) -> None:
        """End, and every connection with it; no will is published."""
        self.up = False
        for session in list(self.sessions.values()):
            if session.connection is not None:
                session.connection.close()
                session.connection, session.will = None, None

    def start(self, *, forget_s: float, everything: bool = False) -> None:
        """Begin again. ``forget_s``: what happened in that many last seconds did not happen."""
        self.up = True
        if everything:
            self.sessions.clear()
            self.retained.clear()
        else:
            self._roll_back(self._clock() - forget_s)
        self.sessions = {name: one for name, one in self.sessions.items() if not one.clean}
        self._routes.clear()

    def _roll_back(self, moment: float) -> None:
        for topic, (at, before) in self._before.items():
            if at > moment:
                if before is None:
                    self.retained.pop(topic, None)
                else:
                    self.retained[topic] = before
        for name, session in list(self.sessions.items()):
            if session.made_at > moment:
                del self.sessions[name]
                continue
            session.waiting = deque(one for one in session.waiting if one.at <= moment)
            session.under_way = {
                mid: one for mid, one in session.under_way.items() if one.at <= moment
            }
            for at, packet in session.acknowledged:
                if at > moment and packet.at <= moment:
                    session.under_way[packet.mid] = packet
            session.acknowledged.clear()

    # -- inside -------------------------------------------------------------------------------

    def _subscribers(self, topic: str) -> list[tuple[Session, Subscription]]:
        found = self._routes.get(topic)
        if found is None:
            found = self._routes[topic] = [
                (session, one)
                for session in self.sessions.values()
                for one in session.subscriptions.values()
                if matches(one.topic, topic)
            ]
        return found

    def _route(self, session: Session, subscription: Subscription, packet: Packet) -> None:
        qos = min(packet.qos, subscription.qos)
        retain = packet.retain and self.habits.speaks_v5
        copy = replace(packet, qos=qos, retain=retain, dup=False, mid=0, at=self._clock())
        if qos == 0:
            if session.connection is not None:
                session.connection.deliver(copy)
            return
        if self.loss and self._dice.random() < self.loss:
            self._tell("loss", packet)
            return
        self._queue(session, copy)
        if self.copies and self._dice.random() < self.copies:
            self._tell("copy", packet)
            again = replace(copy)
            late = self._dice.choice(LATE_COPY_S) * self._dice.random()
            self._later(late, lambda: self._copy(session, again))
        self._send(session)

    def _copy(self, session: Session, packet: Packet) -> None:
        if self.sessions.get(session.client_id) is session:
            packet.at = self._clock()
            self._queue(session, packet)
            self._send(session)

    def _queue(self, session: Session, packet: Packet) -> None:
        if session.connection is not None or self.habits.queues:
            session.waiting.append(packet)

    def _send(self, session: Session) -> None:
        while session.connection is not None and session.waiting:
            if len(session.under_way) >= WINDOW:
                return
            packet = session.waiting.popleft()
            if packet.qos:
                if not packet.mid:  # one that is sent again keeps its own
                    packet.mid = session.last_mid = session.last_mid % 65_535 + 1
                session.under_way[packet.mid] = packet
            session.connection.deliver(packet)
            if packet.qos and self.dups and self._dice.random() < self.dups:
                self._tell("dup", packet)
                session.connection.deliver(replace(packet, dup=True))
