"""The page that the daemon and a program's process share until the program begins (``release.py``).

The law: the daemon's part is written by one thread at a time, whole; a copy that is not of one
writing is known by its sum. What the process has written counts when it has ended, or when its mark
stands.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final

from hwsync.runner.job import Instant

SIZE: Final = 4096  # bytes
THEIRS: Final = 1024  # where the words of the program's process begin
NOT_YET, ARMED, DISARMED = 0, 1, 2

REASONS: Final = {
    1: "what the device knew of the time could not be read",
    2: "it was taken back before its instant",
    3: "its instant was past by more than `within`",
    4: "the coordinator was last heard more than 10 s before the instant",
    5: "the coordinator had said something that had not been heard by the instant",
    6: "the clock was not known within `within`",
    7: "the board was suspended after it had last asked for the time",
}
"""Why a program was not released, by the number that its process writes."""


def raw_ns() -> int:
    """The clock of instants: no wall clock, and nobody slews it."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@dataclass(frozen=True, slots=True)
class Released:
    """What the process wrote when it began. ``raw_ns``: 0 where it was ended in that moment."""

    raw_ns: int
    lab_us: int
    bound_us: int


class Page:
    """``processor``: seconds of processor time that the program may use; 0: no limit."""

    def __init__(self, processor: int) -> None:
        self.descriptor = os.memfd_create("hwsync-start", os.MFD_CLOEXEC)
        self._lock = threading.Lock()
        self._processor = processor
        self._number = 0
        self._state = NOT_YET
        self._released: Released | None = None
        self.instant = Instant(0, 0)
        os.ftruncate(self.descriptor, SIZE)
        self._write()

    def aim(self, instant: Instant) -> None:
        """The instant, as it is known now."""
        with self._lock:
            self.instant = instant
            self._write()

    def arm(self) -> None:
        """From now on it may be released, unless it was disarmed."""
        self._become(ARMED)

    def disarm(self) -> None:
        """It is not to be released any more; it may have been."""
        self._become(DISARMED)

    def _become(self, state: int) -> None:
        with self._lock:
            self._state = max(self._state, state)
            self._write()

    def _write(self) -> None:
        if self.descriptor < 0:
            return
        self._number += 1
        now = self.instant
        words = [
            *(self._number, self._state, now.start_at_us, now.raw_ns, now.fresh_until_ns),
            *(int(now.heard), now.bound_us, now.within_us, now.drift_ppb, self._processor),
            *(now.known.lab_us, now.known.raw_ns, now.known.bound_us, now.known.grows_ppb),
            now.asleep_us,
            self._number,
        ]
        total = sum(number * word for number, word in enumerate(words, 1))
        data = [
            word.to_bytes(8, sys.byteorder, signed=True) for word in (*words, total % (1 << 62))
        ]
        os.pwrite(self.descriptor, b"".join(data), 0)

    @property
    def released(self) -> Released | None:
        """What the process wrote as the program began; None: it has not begun."""
        if self._released is None or not self._released.raw_ns:
            mark, _, raw, lab, bound = self._theirs()
            if mark:
                self._released = Released(raw, lab, bound)
        return self._released

    @property
    def refusal(self) -> str:
        """Why the process did not release it; empty where it has not said so."""
        return REASONS.get(self._theirs()[1], "")

    def _theirs(self) -> list[int]:
        with self._lock:
            data = b"" if self.descriptor < 0 else os.pread(self.descriptor, 40, THEIRS)
        data = data.ljust(40, b"\0")
        return [
            int.from_bytes(data[at : at + 8], sys.byteorder, signed=True) for at in range(0, 40, 8)
        ]

    def close(self) -> None:
        """What was read before stays known."""
        with self._lock:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1
