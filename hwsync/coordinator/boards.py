"""When the coordinator last heard each board: kept in memory, for one life of the process.

The law: a heartbeat counts as heard when it comes, never when the broker had kept it, which may
have been for days. It needs no disk, so a full one makes no board offline. Moments are seconds on
the monotonic clock. Only on which day a board was heard is stored, for the group of everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from hwsync.coordinator.deliveries import message_of
from hwsync.coordinator.schedule import Clock
from hwsync.protocol.errors import Refused
from hwsync.protocol.events import HeartbeatReceived
from hwsync.protocol.limits import HEARD_S, MAX_BOARDS, OFFLINE_AFTER_S
from hwsync.protocol.presence import is_outdated_will
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.itself import encode_boards
from hwsync.protocol.wire.messages import read
from hwsync.transport import Delivery, Disconnected, Signal, Subscribed

STORE_S: Final = 600.0  # between two times that it is stored when a board was heard


@dataclass(frozen=True, slots=True)
class _Board:
    last: HeartbeatReceived
    at: float | None  # None: only what the broker had kept was heard


class Boards:
    """By user, the one that was silent longest first.

    ``stored``: the time of day at which each was heard, as an earlier life has stored it.
    """

    def __init__(
        self, topics: Topics, clock: Clock, stored: Mapping[str, float] | None = None
    ) -> None:
        self._topics, self._clock = topics, clock
        self._stored = dict(stored or {})
        self._heard = dict(self._stored)  # Unix seconds of the last heartbeat that came
        self._boards: dict[str, _Board] = {}
        self._listening_since: float | None = None
        self._left_out = 0
        self.changes = 0  # times that somebody came or went, so far as that was said

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

    def known(self) -> Iterable[str]:
        """Of whom a heartbeat was heard, or is kept by the broker."""
        return self._boards.keys()

    def lately(self) -> list[str]:
        """Who was heard within a day."""
        now = self._clock.wall()
        return [user for user, at in self._heard.items() if now - at < HEARD_S]

    def to_store(self) -> dict[str, float]:
        """When those were heard of whom it is to be stored now: it was long ago that it was."""
        return {
            user: at
            for user, at in self._heard.items()
            if not 0.0 <= at - self._stored.get(user, -STORE_S) < STORE_S
        }

    def note_stored(self, times: Mapping[str, float]) -> None:
        """These are stored."""
        self._stored |= times

    def online(self, user: str) -> bool | None:
        """Whether a board is online; None: nobody can say yet, since it was not listened long."""
        board = self._boards.get(user)
        if self.is_offline(user):
            return False
        return None if board is None or board.at is None else True

    def is_offline(self, user: str) -> bool:
        """Whether its last word was that it goes, or it was silent while it was listened long."""
        board = self._boards.get(user)
        if board is not None and not board.last.online:
            return True
        if self._listening_since is None:
            return False
        at = board.at if board is not None else None
        since = self._listening_since if at is None else max(at, self._listening_since)
        return self._clock.monotonic() - since >= OFFLINE_AFTER_S

    def encode(self) -> bytes:
        """The list, as it is published."""
        now = self._clock.monotonic()
        since = now if self._listening_since is None else self._listening_since
        wall = self._clock.wall()
        return encode_boards(
            wall, now - since, self._seconds(now), self._left_out, self._gone(now, wall)
        )

    def _gone(self, now: float, wall: float) -> dict[str, float]:
        """How many seconds ago those were heard that are offline, an earlier life's word included.

        That one goes by the wall clock: it is for people.
        """
        gone = {}
        for user, board in self._boards.items():
            if board.last.online:
                continue
            if board.at is not None:
                gone[user] = now - board.at
            elif (heard := self._heard.get(user, 0.0)) and heard <= wall:
                gone[user] = wall - heard
        return gone

    def _seconds(self, now: float) -> Iterator[tuple[str, float | None]]:
        for user, board in reversed(self._boards.items()):
            if not board.last.online:
                yield user, None
            elif board.at is not None:
                yield user, now - board.at

    def _note(self, user: str, delivery: Delivery) -> None:
        if not delivery.payload:
            self.changes += self._boards.pop(user, None) is not None
            if user in self._heard:
                self._heard[user] = 0.0  # it was forgotten
            return
        try:
            heard = read(message_of(delivery), self._topics)
        except Refused:
            return  # whoever stores it says so
        known = self._boards.get(user)
        last = known.last if known else None
        if not isinstance(heard, HeartbeatReceived) or is_outdated_will(last, heard):
            return
        was = known is not None and known.at is not None and known.last.online
        self.changes += was is not (heard.online and not delivery.retain)
        if delivery.retain or not heard.online:
            self._boards[user] = replace(known, last=heard) if known else _Board(heard, None)
        else:
            self._boards.pop(user, None)  # it becomes the one that was heard last
            self._boards[user] = _Board(heard, self._clock.monotonic())
            self._heard.pop(user, None)
            self._heard[user] = self._clock.wall()
        while len(self._boards) > MAX_BOARDS:
            del self._boards[next(iter(self._boards))]
            self._left_out += 1
        while len(self._heard) > MAX_BOARDS:
            del self._heard[next(iter(self._heard))]
