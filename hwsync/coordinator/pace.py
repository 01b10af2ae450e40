"""How many a second: what is beyond is its caller's to refuse or to drop."""

from __future__ import annotations

from collections import Counter

from hwsync.coordinator.schedule import Clock


class PerSecond:
    """Counts by name; each second begins anew with the first that comes after it."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most, self._clock = most, clock
        self._counts: Counter[str] = Counter()
        self._second = clock.monotonic()

    def is_too_many(self, name: str) -> bool:
        """One more of that name: whether it is beyond."""
        now = self._clock.monotonic()
        if now - self._second >= 1.0:
            self._second = now
            self._counts.clear()
        self._counts[name] += 1
        return self._counts[name] > self._most
