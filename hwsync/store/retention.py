"""What is not kept for ever: the texts of old commands, by age and by size.

The law: ids, hashes, ends and every row of the log stay; nothing goes that is open, that a record
shows, or whose reply is owed. A day is a day of running, added up over all lives: no clock that
jumps makes anything old (docs/decisions.md, 137). It works in small steps, between the rounds of
the loop.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Final

from hwsync.protocol.errors import StoreError
from hwsync.store.database import Database
from hwsync.store.pruning import LastRows, Pruning

log = logging.getLogger("hwsync.coordinator")

LOOK_S: Final = 60.0  # between two looks
STEP: Final = 200  # commands in one transaction: a message waits no longer than for so many
WRITE_S: Final = 900.0  # of running, until it is written down: a life that is lost makes it longer
DAY_S: Final = 86_400.0
MIB: Final = 1_048_576
KEEP_DAYS: Final = (1.0, 36_500.0)  # or 0: for ever
KEEP_MB: Final = (10.0, 1_000_000.0)  # or 0: any size


@dataclass(slots=True)
class Retention:
    """Drops what is older than ``days`` of running, and the oldest above ``megabytes`` (of 2**20).

    0: no limit. Raises ``StoreError`` where the database cannot be read; once it is made it raises
    nothing, and says in the log what failed.
    """

    database: Database  # the coordinator's, open
    days: float
    megabytes: float
    _next: float = 0.0
    _pruning: Pruning = field(init=False)
    _age: _Age = field(init=False)
    _look_for_old: bool = True  # at the start, and when another day is over

    def __post_init__(self) -> None:
        self._pruning = Pruning(self.database)
        self._age = _Age(self._pruning, math.ceil(self.days))

    def drop_old(self, monotonic: float) -> None:
        """Drop a little of what is too old, or the oldest of what is too much.

        ``monotonic``: seconds, now. Between two looks it does nothing for ``LOOK_S``, unless there
        is more to drop.
        """
        if not (self.days or self.megabytes) or monotonic < self._next:
            return
        self._next = monotonic + LOOK_S
        dropped = 0
        try:
            if self.days:
                self._look_for_old |= self._age.goes_on(monotonic)
            if self.days and self._look_for_old and (old := self._age.old()) is not None:
                dropped = self._pruning.prune(old.log, STEP)
                self._pruning.prune_refused(old.refused)
            self._look_for_old = dropped >= STEP
            if self.megabytes and self._pruning.used() > self.megabytes * MIB:
                dropped += self._pruning.prune(None, STEP)
        except StoreError as error:
            log.error("cannot drop old texts: %s", error)
            self._look_for_old = True
            return
        if dropped:
            log.info("the texts of %d old commands were dropped", dropped)
        if dropped >= STEP:
            self._next = monotonic  # there is more


class _Age:
    """Which rows are so many days of running old, over all lives of the coordinator."""

    def __init__(self, pruning: Pruning, days: int) -> None:
        self._pruning, self._days = pruning, days
        self._seconds, self._ends = pruning.running_days()
        self._at: float | None = None  # when it was looked at last
        self._written = self._seconds

    def goes_on(self, monotonic: float) -> bool:
        """Count the time since the last look; whether a day is over. Raises ``StoreError``."""
        seconds = self._seconds + (0.0 if self._at is None else monotonic - self._at)
        over = seconds >= DAY_S or not self._ends
        if not self._ends:
            log.info("texts are dropped after %d days of running, counted from now on", self._days)
        ends = self._ends
        if over:
            seconds = 0.0 if seconds < DAY_S else seconds % DAY_S
            ends = (*ends, self._pruning.last_rows())[-(self._days + 1) :]
        if over or seconds - self._written >= WRITE_S:
            self._pruning.write_running_days(seconds, ends if over else None)
            self._written = seconds
        self._seconds, self._ends, self._at = seconds, ends, monotonic
        return over

    def old(self) -> LastRows | None:
        """The last rows that are old enough; None: there are none yet."""
        return self._ends[-(self._days + 1)] if len(self._ends) > self._days else None
