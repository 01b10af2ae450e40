"""Two pretended clocks and a line between them, in whole nanoseconds of a true time.

Lab time is the true time; the board's raw clock is skewed, drifts, and its drift wanders. Readings
are whole microseconds, as the machine's are.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hwsync.protocol.device.clock import DRIFT_PPB, WANDER_PPB, Estimate, Estimator

SECOND = 1_000_000_000
SEGMENT = 5 * SECOND  # of one drift

Delay = Callable[[int, Random], tuple[int, int]]
"""Nanoseconds there and back, at a moment."""


class Pair:
    """A board, and the coordinator whose time it wants to know. ``now``: nanoseconds."""

    def __init__(
        self, seed: int, skew_s: int = 0, drift_ppb: int = 0, slewed: bool = False
    ) -> None:
        self.dice = Random(seed)
        self.now = 1_699_999_800 * SECOND
        self.estimator = Estimator(slewed)
        self.life = "a life"
        self.asleep = 0  # microseconds
        self._raw = self.now + skew_s * SECOND
        self._lab = 0  # by how much lab time is ahead of the true time, by the lives
        self._mean = drift_ppb
        self._wander = 1_000_000 if slewed else WANDER_PPB
        self._limit = 1_000_000 if slewed else DRIFT_PPB + WANDER_PPB
        self._left, self._drift = 0, drift_ppb

    def go(self, nanoseconds: int) -> None:
        """The time goes on. Lab time is the faster where the drift is above 0."""
        while nanoseconds > 0:
            if not self._left:
                self._left = SEGMENT
                drift = self._mean + self.dice.randint(-self._wander, self._wander)
                self._drift = min(max(drift, -self._limit), self._limit)
            step = min(nanoseconds, self._left)
            self.now += step
            # Lab time is raw time and the drift's part of raw time.
            self._raw += step * SECOND // (SECOND + self._drift)
            self._left -= step
            nanoseconds -= step

    @property
    def raw(self) -> int:
        return self._raw // 1_000

    @property
    def lab(self) -> int:
        return (self.now + self._lab) // 1_000

    def suspend(self, nanoseconds: int) -> None:
        """The board sleeps: its raw clock stands still."""
        self.now += nanoseconds
        self.asleep += nanoseconds // 1_000

    def begin_life(self, jump: int) -> None:
        """The coordinator's wall clock was set, by so many nanoseconds."""
        self._lab += jump
        self.life += "'"

    def ask(self, delay: Delay) -> bool:
        """One question and its answer."""
        there, back = delay(self.now, self.dice)
        t0 = self.raw
        self.go(there)
        t1 = self.lab
        self.go(self.dice.randint(0, 300_000))
        t2 = self.lab
        self.go(back)
        return self.estimator.add(t0, t1, t2, self.raw, self.life, self.asleep)

    def burst(self, delay: Delay) -> None:
        for _ in range(8):
            self.ask(delay)
            self.go(20_000_000)

    def estimate(self) -> Estimate | None:
        return self.estimator.estimate(self.raw, self.asleep)

    def check(self) -> Estimate | None:
        """The estimate, once it was compared with the truth."""
        estimate = self.estimate()
        if estimate is not None:
            self.compare(estimate)
        return estimate

    def compare(self, estimate: Estimate) -> None:
        error = abs(self.lab - estimate.lab_us(self.raw))
        bound = estimate.bound_at(self.raw)
        assert error <= bound, f"{error} us from the truth, and the bound is {bound}"
        there = estimate.raw_us(self.lab)
        assert abs(there - self.raw) <= bound
