"""A board's raw clock in a pretended world: skewed, faster or slower, and asleep with its machine.

The law: what it shows follows from the world's time, and from what was slept; nobody sets it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

SKEW_S: Final = 500  # to both sides of an hour
DRIFT_PPB: Final = 100_000  # to both sides
PPB: Final = 1_000_000_000


class RawClock:
    """``now``: the world's time in seconds; ``dice``: its own, for its skew and its drift."""

    def __init__(self, dice: Random, now: Callable[[], float]) -> None:
        self._skew_us = 1_000_000 * (3_600 + dice.randint(-SKEW_S, SKEW_S))
        self._rate = PPB / (PPB + dice.randint(-DRIFT_PPB, DRIFT_PPB))
        self._now = now
        self._slept: list[tuple[float, float]] = []  # from, and until

    def sleep(self, seconds: float) -> None:
        """The machine is suspended now, for so long."""
        begin = max([self._now(), *(until for _, until in self._slept)])
        self._slept.append((begin, begin + seconds))

    def _asleep(self) -> float:
        now = self._now()
        return sum(max(min(now, until) - begin, 0.0) for begin, until in self._slept)

    def asleep_us(self) -> int:
        """For how long the machine was suspended."""
        return round(self._asleep() * 1e6)

    def sleeps_on(self) -> float:
        """Seconds until the machine is awake."""
        now = self._now()
        return max((until - now for begin, until in self._slept if begin <= now), default=0.0)

    def raw_us(self) -> int:
        """What it shows."""
        return self.raw_ns() // 1_000

    def raw_ns(self) -> int:
        """The same in nanoseconds."""
        return self._skew_us * 1_000 + int((self._now() - self._asleep()) * self._rate * 1e9)

    def until(self, raw_ns: int) -> float:
        """Seconds of the world's time until it shows that, where the machine stays awake."""
        return (raw_ns - self.raw_ns()) / 1e9 / self._rate
