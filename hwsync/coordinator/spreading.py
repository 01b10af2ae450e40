"""Statuses and envelopes of many boards at once: so many that the broker is not drowned in them.

The law: what a board is told is made when it is sent, of its record then; while it waits here, a
newer status takes the older one's place. Nothing waits here while little is under way, so that each
change of a board is told as ever. At the end of a connection all of it goes: the next one begins
with all statuses, and all that is due.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hwsync.protocol.effects import Effect, PublishEnvelope, PublishStatus
from hwsync.protocol.limits import MAX_UNDER_WAY
from hwsync.protocol.record import Record, State

LOOK_S: Final = 0.02  # between two looks whether enough has arrived


class Spread:
    """``backlog``: bytes that were said and have not arrived."""

    def __init__(self, backlog: Callable[[], int]) -> None:
        self._backlog = backlog
        self._waiting: dict[str, tuple[Record, bool]] = {}  # by user; whether an envelope, too

    def holds(self, user: str, effect: Effect) -> bool:
        """Whether this status or envelope waits here now; False: it is to be said at once."""
        if not isinstance(effect, PublishStatus | PublishEnvelope):
            return False
        _, envelope = self._waiting.get(user, (None, False))
        if user not in self._waiting and self._backlog() <= MAX_UNDER_WAY:
            return False
        self._waiting[user] = (effect.record, envelope or isinstance(effect, PublishEnvelope))
        return True

    def release(self, user: str) -> None:
        """What waits here of this user is said by somebody else, at once."""
        self._waiting.pop(user, None)

    def clear(self) -> None:
        """The connection has ended."""
        self._waiting.clear()

    def wait(self) -> float | None:
        """Seconds until it is to be looked again; None: nothing waits."""
        return LOOK_S if self._waiting else None

    def next(self, records: dict[str, Record]) -> tuple[str, tuple[Effect, ...]] | None:
        """The next that may be said; None: nothing waits, or enough is under way."""
        if not self._waiting or self._backlog() > MAX_UNDER_WAY:
            return None
        user = next(iter(self._waiting))
        record, envelope = self._waiting.pop(user)
        record = records.get(user, record)
        if envelope and record.state is State.REQUESTED:
            return user, (PublishStatus(record), PublishEnvelope(record))
        return user, (PublishStatus(record),)
