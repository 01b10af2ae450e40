"""A program's process that waits for its instant: ``runner.release`` itself, in pretended time.

The law: when a program begins, and whether, is decided by the text that a real process runs, on a
page of the runner's. Pretended are its clock and its sleep: where it would wait it is run anew
then, from its first line.
"""

from __future__ import annotations

import builtins
import os
import sys
import time
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, Final

from hwsync.runner import release as text
from hwsync.runner.page import Page
from hwsync.testing.raw_clocks import RawClock

NEXT_S: Final = 0.000_001  # what a clock shows last changes so soon


class _Waits(BaseException):
    """It would look again after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class _Ends(BaseException):
    """Its process ends."""


class Waiting:
    """A process that is armed. ``now``: the world's time in seconds."""

    def __init__(self, page: Page, raw: RawClock, now: Callable[[], float]) -> None:
        self._page, self._raw, self._now = page, raw, now
        self._readings = 0  # of the raw clock, since it looks
        self._looks = False
        here = {"os": self._os(), "time": self._time(), "sys": self._sys()}
        names = {**vars(builtins), "__import__": lambda name, *_: here[name]}
        self._globals = {"__builtins__": names}

    def look(self) -> float | Callable[[], None] | None:
        """Let it go on: seconds until it looks again, or what it does as the last thing before the
        program's first instruction; None: it has ended, and its page says why.
        """
        self._readings, self._looks = 0, True
        release: Any = FunctionType(text.release.__code__, self._globals)
        try:
            begin: Callable[[], None] = release(*self._page.theirs, 0)(lambda: None)
        except _Waits as waits:
            return max(waits.seconds, self._raw.sleeps_on(), NEXT_S)
        except _Ends:
            return None
        self._looks = False
        return begin

    def _os(self) -> SimpleNamespace:
        def ends(_: int) -> None:
            raise _Ends

        return SimpleNamespace(
            pread=os.pread,
            write=os.write,
            set_inheritable=lambda *_: None,
            read=lambda *_: b"!",
            close=lambda _: None,
            _exit=ends,
            environ={},
        )

    def _time(self) -> SimpleNamespace:
        def sleeps(seconds: float) -> None:
            raise _Waits(seconds)

        return SimpleNamespace(
            CLOCK_MONOTONIC=time.CLOCK_MONOTONIC,
            CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
            CLOCK_MONOTONIC_RAW=time.CLOCK_MONOTONIC_RAW,
            clock_gettime_ns=self._clock,
            sleep=sleeps,
        )

    def _sys(self) -> SimpleNamespace:
        return SimpleNamespace(path=[], modules={}, byteorder=sys.byteorder)

    def _clock(self, which: int) -> int:
        if which == time.CLOCK_MONOTONIC:
            return int(self._now() * 1e9)
        if which == time.CLOCK_BOOTTIME:
            return int(self._now() * 1e9) + self._raw.asleep_us() * 1000
        now, target = self._raw.raw_ns(), self._page.instant.raw_ns
        self._readings += 1
        if self._looks and self._readings > 1 and now < target:
            raise _Waits(self._raw.until(target))  # it spins
        return now
