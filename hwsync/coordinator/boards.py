"""When the coordinator last heard each board: kept in memory, for one life of the process.

The law: a heartbeat counts as heard when it comes, never when the broker had kept it, which may
have been for days. It needs no disk, so a full one makes no board offline. Moments are seconds on
the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from hwsync.coordinator.deciding import message_of
from hwsync.coordinator.schedule import Clock
from hwsync.protocol.errors import Refused
from hwsync.protocol.events import HeartbeatReceived
from hwsync.protocol.limits import MAX_BOARDS
from hwsync.protocol.presence import is_outdated_will
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.itself import encode_boards
from hwsync.protocol.wire.messages import read
from hwsync.transport import Delivery, Disconnected, Signal, Subscribed


@dataclass(frozen=True, slots=True)
class _Board:
    last: HeartbeatReceived
    at: float | None  # None: only what the broker had kept was heard


class Boards:
    """By user, the one that was silent longest first."""

    def __init__(self, topics: Topics, clock: Clock) -> None:
        self._topics, self._clock = topics, clock
        self._boards: dict[str, _Board] = {}
        self._listening_since: float | None = None
        self._left_out = 0

    def note(self, signals: Iterable[Signal]) -> None:
        """Take note of heartbeats and wills, and of the connection on which they come."""
        for signal in signals:
            if isinstance(signal, Subscribed):
                self._listening_since = self._clock.monotonic()
            elif isinstance(signal, Disconnected):
                self._listening_since = None
            elif isinstance(signal, Delivery):
                user, kind = self._topics.split(signal.topic)
                if kind is TopicKind.HEARTBEAT:
                    self._note(user, signal)

    def encode(self) -> bytes:
        """The list, as it is published."""
        now = self._clock.monotonic()
        since = now if self._listening_since is None else self._listening_since
        return encode_boards(self._clock.wall(), now - since, self._seconds(now), self._left_out)

    def _seconds(self, now: float) -> Iterator[tuple[str, float | None]]:
        for user, board in reversed(self._boards.items()):
            if not board.last.online:
                yield user, None
            elif board.at is not None:
                yield user, now - board.at

    def _note(self, user: str, delivery: Delivery) -> None:
        if not delivery.payload:
            self._boards.pop(user, None)
            return
        try:
            heard = read(message_of(delivery), self._topics)
        except Refused:
            return  # whoever stores it says so
        known = self._boards.get(user)
        last = known.last if known else None
        if not isinstance(heard, HeartbeatReceived) or is_outdated_will(last, heard):
            return
        if delivery.retain or not heard.online:
            self._boards[user] = replace(known, last=heard) if known else _Board(heard, None)
        else:
            self._boards.pop(user, None)  # it becomes the one that was heard last
            self._boards[user] = _Board(heard, self._clock.monotonic())
        while len(self._boards) > MAX_BOARDS:
            del self._boards[next(iter(self._boards))]
            self._left_out += 1
