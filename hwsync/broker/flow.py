"""The messages of one session that are under way (MQTT 3.1.1, sections 4.3, 4.4 and 4.6).

The law: what goes out at QoS 1 or 2 stays until its client has acknowledged it, over all of its
connections, in the order in which it came; only so much of it is under way, and only so much waits.
What comes in at QoS 2 is passed on once.

Why: amqtt forgets a message that was not acknowledged within five seconds, or before the connection
ended; it has no window and no limit, raises the QoS of a message to that of the subscription, and
answers nothing to what it does not know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hwsync.broker.reading import Malformed, Publish

WINDOW: Final = 100  # messages under way to one client, as in the packaged broker.conf
WINDOW_BYTES: Final = 16 * 2**20  # likewise; one larger message goes alone
QUEUE: Final = 10_000  # messages that wait for one client, as in the packaged broker.conf
EACH: Final = 500  # bytes of memory that a message costs beside topic and payload
RECEIVED: Final = 1_000  # messages of QoS 2 that one client leaves half-way
MIDS: Final = 65_535


@dataclass(slots=True, eq=False)
class Message:
    """One that goes out; ``released``: its client has it, and its end is under way (QoS 2)."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    mid: int = 0
    released: bool = False

    def packet(self, *, again: bool = False) -> bytes:
        """The PUBLISH, or the PUBREL."""
        if self.released:
            return acknowledgement(0x62, self.mid)
        topic = self.topic.encode()
        head = len(topic).to_bytes(2, "big") + topic
        head += self.mid.to_bytes(2, "big") if self.qos else b""
        first = 0x30 | self.qos << 1 | self.retain | (8 if again else 0)
        return bytes([first]) + _length(len(head) + len(self.payload)) + head + self.payload


class Room:
    """Bytes of messages that may be kept."""

    def __init__(self, size: int) -> None:
        self.left = size
        self._held: dict[str, int] = {}  # bytes, by holder

    def take(self, topic: str, payload: bytes, holder: str | None = None) -> bool:
        """Whether this one finds room; it has taken it then.

        No ``holder`` gets more than it leaves to the others: one alone gets half.
        """
        size = len(topic) + len(payload) + EACH
        held = 0 if holder is None else self._held.get(holder, 0)
        if held + size > self.left:
            return False
        self.left -= size
        if holder is not None:
            self._held[holder] = held + size
        return True

    def give_back(self, topic: str, payload: bytes, holder: str | None = None) -> None:
        """This one is kept no more."""
        size = len(topic) + len(payload) + EACH
        self.left += size
        if holder is not None:
            held = self._held.pop(holder) - size
            if held:
                self._held[holder] = held


class Flow:
    """One session's. ``dropped`` is called with a topic where there is no room.

    ``room``: for what waits for all sessions; what is retained has its own. ``holder``: whose
    part of it this is.
    """

    def __init__(self, room: Room, holder: str, dropped: Callable[[str], None]) -> None:
        self._room, self._holder, self._dropped = room, holder, dropped
        self._send: Callable[[bytes], None] | None = None  # on the present connection
        self._waiting: deque[Message] = deque()
        self._sent: dict[int, Message] = {}
        self._received: dict[int, Publish] = {}  # at QoS 2, and not released
        self._sent_bytes = self._mid = 0

    def attach(self, send: Callable[[bytes], None], may_read: Callable[[str], bool]) -> None:
        """Its client is there: what it has not acknowledged goes out again, then what waits.

        What it may not read any more is dropped.
        """
        for one in [one for one in self._waiting if not may_read(one.topic)]:
            self._waiting.remove(one)
            self._waits_no_more(one)
        for mid, one in list(self._sent.items()):
            if not one.released and not may_read(one.topic):
                self._done(mid)
        self._send = send
        for one in self._sent.values():
            send(one.packet(again=True))
        self._fill()

    def detach(self, send: Callable[[bytes], None]) -> None:
        """That connection has ended; a newer one stays."""
        if self._send == send:
            self._send = None

    def deliver(self, topic: str, payload: bytes, qos: int, *, retain: bool = False) -> None:
        """To its client, now or later; at QoS 0 now or never."""
        message = Message(topic, payload, qos, retain)
        if not qos:
            if self._send is not None:
                self._send(message.packet())
        elif not self._waiting and self._may_go(message):
            self._go(message)
        elif len(self._waiting) < QUEUE and (
            retain or self._room.take(topic, payload, self._holder)
        ):
            self._waiting.append(message)
            self._fill()
        else:
            self._dropped(topic)

    def clear(self) -> None:
        """The session is over."""
        while self._waiting:
            self._waits_no_more(self._waiting.popleft())

    def acknowledged(self, mid: int) -> None:
        """PUBACK. Raises ``Malformed``."""
        if (one := self._sent.get(mid)) is not None:
            if one.qos != 1:
                raise Malformed("a PUBACK for QoS 2")
            self._done(mid)
            self._fill()

    def released(self, mid: int) -> None:
        """PUBREC; a PUBREL answers also what nobody knows. Raises ``Malformed``."""
        if (one := self._sent.get(mid)) is not None:
            if one.qos != 2:
                raise Malformed("a PUBREC for QoS 1")
            self._sent_bytes -= len(one.payload)
            one.released, one.payload = True, b""
        self._answer(0x62, mid)

    def completed(self, mid: int) -> None:
        """PUBCOMP. Raises ``Malformed``."""
        if (one := self._sent.get(mid)) is not None:
            if not one.released:
                raise Malformed("a PUBCOMP before the PUBREC")
            self._done(mid)
            self._fill()

    def hold(self, message: Publish) -> None:
        """A PUBLISH at QoS 2: it is passed on when it is released. Raises ``Malformed``."""
        if len(self._received) >= RECEIVED:
            raise Malformed(f"it leaves {RECEIVED} messages half-way")
        self._received.setdefault(message.mid, message)
        self._answer(0x50, message.mid)

    def release(self, mid: int) -> Publish | None:
        """PUBREL: the message that is to be passed on; None: it was. ``close`` it then."""
        return self._received.get(mid)

    def close(self, mid: int) -> None:
        """That message is over."""
        self._received.pop(mid, None)
        self._answer(0x70, mid)

    def _answer(self, first: int, mid: int) -> None:
        if self._send is not None:
            self._send(acknowledgement(first, mid))

    def _fill(self) -> None:
        while self._waiting and self._may_go(self._waiting[0]):
            one = self._waiting.popleft()
            self._waits_no_more(one)
            self._go(one)

    def _may_go(self, one: Message) -> bool:
        """Whether its client is there, and the window has a place."""
        return (
            self._send is not None
            and len(self._sent) < WINDOW
            and (not self._sent_bytes or self._sent_bytes + len(one.payload) <= WINDOW_BYTES)
        )

    def _go(self, one: Message) -> None:
        self._sent_bytes += len(one.payload)
        self._mid = next(
            mid
            for mid in (n % MIDS + 1 for n in range(self._mid, self._mid + MIDS))
            if mid not in self._sent
        )
        one.mid = self._mid
        self._sent[one.mid] = one
        if self._send is not None:
            self._send(one.packet())

    def _waits_no_more(self, one: Message) -> None:
        if not one.retain:
            self._room.give_back(one.topic, one.payload, self._holder)

    def _done(self, mid: int) -> None:
        self._sent_bytes -= len(self._sent.pop(mid).payload)


def acknowledgement(first: int, mid: int) -> bytes:
    """A packet of two bytes: PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK."""
    return bytes([first, 2]) + mid.to_bytes(2, "big")


def subscribed(mid: int, codes: list[int]) -> bytes:
    """A SUBACK."""
    return b"\x90" + _length(2 + len(codes)) + mid.to_bytes(2, "big") + bytes(codes)


def _length(length: int) -> bytes:
    """Of a packet (section 2.2.3)."""
    found = bytearray()
    while True:
        length, low = divmod(length, 128)
        found.append(low | (128 if length else 0))
        if not length:
            return bytes(found)
