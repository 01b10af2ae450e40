"""What is sent when, so that one message that the broker does not take stops nothing else.

The law: as long as the broker takes everything, each message goes at once. After it hung up right
after something was sent, nothing that may be the reason is sent beside other messages: what is
small and no courtesy (a reply, ``result/<id>``, an error) goes first, then one at a time. What the
broker hung up on by itself twice is made smaller, or, where it is a courtesy that cannot be, given
up. What is no courtesy is never given up: a board that merely loses its network twice loses nothing
(docs/protocol.md, section 3). Courtesies of one owner go in their order, whatever waits.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from hwsync.protocol.errors import HwsyncError
from hwsync.protocol.limits import KIB, MAX_MESSAGE, MAX_REPLY_TOPIC
from hwsync.transport.signals import Connected, Disconnected, Signal, Subscribed

log = logging.getLogger("hwsync.transport")

FLOOR: Final = KIB  # bytes; no message is made smaller than that
SMALL: Final = 8 * KIB  # bytes; no broker is known to refuse that for its size
HEADER: Final = 2 * MAX_REPLY_TOPIC + 64  # of a packet: topic, correlation data, lengths
_PACKETS: Final = (1024, 256, 128, 64, 32, 16, 8, 4, 2)  # KiB; limits that brokers have, and less
LIKELY: Final = (
    MAX_MESSAGE,
    *(KIB * size - min(HEADER, KIB * size // 4) for size in _PACKETS),
    FLOOR,
)  # bytes of payloads that a broker may take
LEARNED_S: Final = 3_600.0

TWICE: Final = 2  # times that the broker hangs up on a message by itself, until that is believed
CALM_S: Final = 10.0  # of a connection that stands, until nothing goes by itself any more
AT_ONCE_S: Final = 1.0  # a broker that does not want a message hangs up at its beginning
LOOK_S: Final = 0.01  # between two looks whether the one message was taken
MOST_REFUSED: Final = 8  # topics in an hour: then somebody makes the broker hang up on purpose
MOST_EACH: Final = 50  # of them about one user, or for one topic that somebody chose
MOST_HELD: Final = 1_000  # courtesies that wait for their turn; more are dropped, and counted


def below(refused: int) -> int:
    """The next smaller payload that a broker may take, in bytes."""
    return next((size for size in LIKELY if size < refused), FLOOR)


class Capacity:
    """How large a message the broker takes, as far as that is known: in bytes of a payload.

    What the broker announces and what the keeper configured (``configured``: ``--max-message``) is
    believed; what was learned from being cut off is believed for an hour, since it may have been
    chance. MQTT 3.1.1 announces nothing, and mosquitto's ``message_size_limit`` is announced to
    nobody (docs/decisions.md).
    """

    def __init__(self, configured: int = MAX_MESSAGE) -> None:
        self._configured = configured
        self._announced = MAX_MESSAGE
        self._learned: tuple[int, float] | None = None  # bytes, monotonic seconds

    def limit_reported(self, payload: int) -> None:
        """What another client of this broker has found out, in bytes of a payload."""
        self._announced = max(FLOOR, min(payload, MAX_MESSAGE))

    def connected(self, max_packet: int | None) -> None:
        """What the broker says of its largest packet, in bytes; None: nothing."""
        self._announced = max(FLOOR, (max_packet or MAX_MESSAGE + HEADER) - HEADER)

    def learn(self, refused: int, now: float) -> None:
        """A message of so many bytes was not taken: one of the next step may be."""
        self._learned = (below(min(refused, self.bytes(now))), now)

    @property
    def sure(self) -> int:
        """Bytes that were announced or configured, whatever was learned."""
        return min(self._configured, self._announced, MAX_MESSAGE)

    def bytes(self, now: float) -> int:
        """The most that is sent; ``now``: monotonic seconds."""
        if self._learned is None or now - self._learned[1] >= LEARNED_S:
            return self.sure
        return min(self.sure, self._learned[0])


class Publisher(Protocol):
    """What sends: a ``Connection``, or a test's."""

    @property
    def all_acknowledged(self) -> bool:
        """Whether the broker has acknowledged everything that was sent on this connection."""

    def under_way(self, topic: str) -> bool:
        """Whether a message on that topic was sent on this connection and not acknowledged."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        """Send; False where nobody is connected. Raises ``HwsyncError`` for what is no topic."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent. ``make`` writes it in at most so many bytes, or as few as it can.

    ``key``: a newer one of that key takes its place while it waits. ``courtesy``: it may be given
    up. ``foreign``: somebody else chose the topic, so that may be why the broker hangs up: then
    nothing is sent there any more. ``owner``: of whose courtesies so many may wait.
    """

    topic: str
    make: Callable[[int], bytes]
    key: str
    retain: bool = False
    correlation: bytes = b""
    courtesy: bool = False
    foreign: bool = False
    owner: str = ""


def _blamed(message: Message) -> str:
    """What the broker seems to hang up on: the topic that somebody chose, or the message."""
    return message.topic if message.foreign else message.key


class Outbox:
    """Stands before one connection, and is brought its signals (``note_connection``). One thread.

    ``capacity``: what the broker takes, by what is known. ``monotonic``: seconds.
    ``on_given_up`` is told of each courtesy that is never sent again. What cannot be sent raises
    nothing: it is said in the log, and counted where it is a courtesy. Its owner calls ``flush``
    at the end of each round, and at the latest after ``wait``; at ``Subscribed`` it sends again
    whatever is no courtesy and still due, since that is not held over the end of a connection.
    """

    def __init__(
        self,
        publisher: Publisher,
        capacity: Capacity,
        monotonic: Callable[[], float],
        on_given_up: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self.capacity = capacity
        self.given_up = 0  # courtesies
        self.last_given_up = ""  # the last one: its topic, and why
        self.dropped = 0  # courtesies for which there was no room
        self._publisher = publisher
        self._monotonic = monotonic
        self._on_given_up = on_given_up
        self._held: dict[str, Message] = {}  # by key, in their order
        self._last: deque[Message] = deque(maxlen=MOST_HELD)  # courtesies that may be under way
        self._careful = False
        self._open = True  # False from an end of the connection until it is subscribed anew
        self._proven = 0  # bytes that went through by themselves on this connection
        self._connected_at = monotonic()
        self._alone: tuple[Message, int] | None = None  # the one under way by itself; its bytes
        self._alone_at = 0.0  # monotonic
        self._strikes: Counter[str] = Counter()  # by what is blamed
        self._refused: dict[str, float] = {}  # topics that somebody chose; since when, monotonic
        self._too_large: dict[str, None] = {}  # keys of which that was said

    @property
    def all_acknowledged(self) -> bool:
        """Whether nothing waits for its turn, and all that was sent has arrived."""
        return not self._held and self._publisher.all_acknowledged

    @property
    def _small(self) -> int:
        """Bytes that are surely not the reason."""
        return max(FLOOR, min(SMALL, self.limit // 2))

    @property
    def limit(self) -> int:
        """Bytes that a message may have now."""
        return self.capacity.bytes(self._monotonic())

    def send(self, message: Message) -> int:
        """Send it now, or in its turn; the bytes that went now.

        0: it waits, or it never goes (it is larger than the broker takes, its topic was refused,
        or there is no room for one more courtesy); or nobody is connected, and it is not held.
        """
        if self._is_refused(message):
            self._count(message)
            return 0
        if not message.courtesy or self._open or not self._careful:
            payload = message.make(self.limit)
            if self._may_go(message, len(payload)) and not self._is_behind(message):
                return len(payload) if self._go(message, payload) else 0
        if message.courtesy and self._alone is not None and self._alone[0].key == message.key:
            return 0  # it is under way
        if message.courtesy and message.key not in self._held and self._is_full(message.owner):
            if not self.dropped:
                log.error("too many answers wait for their turn: those beyond it are dropped")
            self.dropped += 1
        else:
            self._held[message.key] = message
        return 0

    def _may_go(self, message: Message, size: int) -> bool:
        """Whether it goes beside others: it is surely not what the broker hangs up on."""
        if not self._careful:
            return True
        sure = max(self._proven, 0 if message.courtesy else self._small)
        return not message.foreign and size <= sure

    def _is_behind(self, message: Message) -> bool:
        """Whether an older courtesy of its owner waits, or goes by itself: that is said first."""
        alone = () if self._alone is None else (self._alone[0],)
        return message.courtesy and any(
            one.courtesy and one.owner == message.owner and one.key != message.key
            for one in (*alone, *self._held.values())
        )

    def _go(self, message: Message, payload: bytes) -> bool:
        """Send it beside others."""
        self._held.pop(message.key, None)
        if message.courtesy:
            self._last.append(message)
        return self._publish(message, payload)

    def _is_full(self, owner: str) -> bool:
        held = [one for one in self._held.values() if one.courtesy]
        mine = sum(one.owner == owner for one in held)
        return len(held) >= MOST_HELD or mine >= MOST_EACH

    def flush(self) -> None:
        """A round is over: send the next of what goes by itself, if it is its turn."""
        if not self._open:
            return
        if self._last and self._publisher.all_acknowledged:
            self._last.clear()
        if not self._careful:
            return
        if self._alone is not None:
            if self._publisher.under_way(self._alone[0].topic):
                return
            # The broker took it: it is not to blame, and nothing of its size is.
            self._strikes.pop(_blamed(self._alone[0]), None)
            size, self._alone = self._alone[1], None
            if size > self._proven:
                self._proven = size
                self._release()
        if not self._held:
            calm = self._monotonic() - self._connected_at >= CALM_S
            self._careful = not (calm and self._publisher.all_acknowledged)
            return
        message = next((one for one in self._held.values() if not one.courtesy), None)
        message = message or next(iter(self._held.values()))
        payload = message.make(self.limit)
        if self._publish(message, payload):
            self._alone, self._alone_at = (message, len(payload)), self._monotonic()
        del self._held[message.key]

    def _release(self) -> None:
        """Larger ones have turned out to be harmless: what waits goes, as far as it may."""
        behind: set[str] = set()  # owners of whom a courtesy still waits
        for message in list(self._held.values()):
            if message.courtesy and message.owner in behind:
                continue
            payload = message.make(self.limit)
            if self._may_go(message, len(payload)):
                self._go(message, payload)
            elif message.courtesy:
                behind.add(message.owner)

    def wait(self) -> float | None:
        """Seconds until ``flush`` has something to do by itself."""
        return LOOK_S if self._careful and (self._held or self._alone) else None

    def note_connection(self, signal: Signal) -> None:
        """Whether the connection changed: its owner brings each signal, before it sends more."""
        if isinstance(signal, Subscribed):
            self._open = True
        elif isinstance(signal, Connected):
            self._connected_at = self._monotonic()
            self.capacity.connected(signal.max_packet)
        elif isinstance(signal, Disconnected) and signal.was_connected:
            self._ended(signal)

    def _ended(self, signal: Disconnected) -> None:
        alone, self._alone = self._alone, None
        self._open, self._proven = False, 0
        # Everybody else says again at the next connect what is no courtesy.
        self._held = {key: one for key, one in self._held.items() if one.courtesy}
        if alone is not None:
            message, size = alone
            at_once = self._monotonic() - self._alone_at < AT_ONCE_S
            under_way = any(one.topic == message.topic for one in signal.unanswered)
            if signal.hung_up and at_once and under_way:
                self._strike(message, size)
            elif message.courtesy:
                self._held = {message.key: message} | self._held
        elif signal.hung_up:
            self._careful = True
            lost = {one.topic for one in signal.unanswered}
            # What was sent is older than what waits: it goes first.
            self._held = {one.key: one for one in self._last if one.topic in lost} | self._held
        self._last.clear()

    def _strike(self, message: Message, size: int) -> None:
        """The broker hung up on it, and nothing else was under way."""
        self._careful = True
        self._strikes[_blamed(message)] += 1
        now = self._monotonic()
        again = self._strikes[_blamed(message)] >= TWICE
        if again and not message.foreign and size > FLOOR:
            del self._strikes[_blamed(message)]
            self.capacity.learn(size, now)
            log.warning(
                "the broker hangs up on %s (%d bytes): messages have at most %d bytes now; "
                "--max-message says so from the beginning",
                *(message.topic[:120], size, self.limit),
            )
        elif again and message.courtesy:
            self._refuse(message, size)
            return
        elif again:
            log.error("the broker hangs up on %s (%d bytes)", message.topic[:120], size)
        if message.courtesy:  # first again: what is it, before others are tried
            self._held = {message.key: message} | self._held

    def _refuse(self, message: Message, size: int) -> None:
        """The broker never takes it; nor whatever else goes to a topic that somebody chose."""
        del self._strikes[_blamed(message)]
        self.give_up(message, f"the broker hangs up each time ({size} bytes)")
        if not message.foreign:
            return
        now = self._monotonic()
        recent = {topic: at for topic, at in self._refused.items() if now - at < LEARNED_S}
        self._refused = recent | {message.topic: now}
        if len(self._refused) == MOST_REFUSED:
            log.error(
                "the broker hung up on %d topics that senders chose for their answers: until an "
                "hour after the first, all such answers are given up", MOST_REFUSED,
            )  # fmt: skip
        for one in [one for one in self._held.values() if self._is_refused(one)]:
            del self._held[one.key]
            self._count(one)

    def _is_refused(self, message: Message) -> bool:
        """Whether it goes to a refused topic. Where many were refused, no chosen one is tried."""
        if not message.foreign or not self._refused:
            return False
        now = self._monotonic()
        if len(self._refused) >= MOST_REFUSED:
            return now - min(self._refused.values()) < LEARNED_S
        return now - self._refused.get(message.topic, -LEARNED_S) < LEARNED_S

    def give_up(self, message: Message, reason: str) -> None:
        """Never send this courtesy; say so, and count it."""
        self.last_given_up = f"{message.topic[:120]}: {reason}"
        log.error("GIVEN UP, what was to be said on %s", self.last_given_up)
        self._count(message)

    def _count(self, message: Message) -> None:
        self.given_up += 1
        self._on_given_up(message)

    def _publish(self, message: Message, payload: bytes) -> bool:
        limit = self.limit
        if len(payload) > limit:
            if message.key not in self._too_large:
                log.error(
                    "NOT SENT, %d bytes on %s: the broker takes at most %d bytes",
                    *(len(payload), message.topic[:120], limit),
                )
            self._too_large[message.key] = None
            while len(self._too_large) > MOST_HELD:
                del self._too_large[next(iter(self._too_large))]
            return False
        try:
            return self._publisher.publish(
                message.topic, payload, retain=message.retain, correlation=message.correlation
            )
        except HwsyncError as error:
            log.error("cannot publish on %s: %s", message.topic[:120], error)
            return False
