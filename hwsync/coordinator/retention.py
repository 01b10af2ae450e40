"""What the database need not keep for ever: the texts of old commands, by age and by size.

The law: ids, hashes, ends and every row of the log stay; nothing goes that is open, that a record
shows, or whose reply is owed. It works in small steps, between the rounds of the loop.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Final

from hwsync.coordinator.store import FAILURES, Store

log = logging.getLogger("hwsync.coordinator")

LOOK_S: Final = 60.0  # between two looks
STEP: Final = 200  # commands in one transaction: a message waits no longer than for so many
DAY_S: Final = 86_400.0
MIB: Final = 1_048_576
KEEP_DAYS: Final = (1.0, 36_500.0)  # or 0: for ever
KEEP_MB: Final = (10.0, 1_000_000.0)  # or 0: any size


@dataclass(slots=True)
class Retention:
    """``days`` and ``megabytes`` as on the command line; 0: no limit. Moments are seconds."""

    store: Store
    days: float
    megabytes: float
    _next: float = 0.0  # monotonic

    def look(self, wall: float, monotonic: float) -> None:
        """Drop a little of what is too old, or the oldest of what is too much."""
        if not (self.days or self.megabytes) or monotonic < self._next:
            return
        self._next = monotonic + LOOK_S
        try:
            dropped = 0
            if self.days:
                before = wall - self.days * DAY_S
                dropped = self.store.prune(before, STEP)
                self.store.prune_refused(before)
            if self.megabytes and self.store.used() > self.megabytes * MIB:
                dropped += self.store.prune(math.inf, STEP)
        except FAILURES as error:
            log.error("cannot drop old texts: %s", error)
            return
        if dropped:
            log.info("the texts of %d old commands were dropped", dropped)
        if dropped >= STEP:
            self._next = monotonic  # there is more
