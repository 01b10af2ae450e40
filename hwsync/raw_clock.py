"""The machine's clocks that nobody sets or slews, in whole microseconds.

The law: two clocks that are compared are read so close together that a process which had to wait
in between is not taken for a machine that was suspended.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

CLOSE_NS: Final = 100_000  # between the first and the last of three readings
TRIES: Final = 10  # on a machine that is too busy for that
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

_RAW: Final = getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC)
_WITH_SLEEP: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def raw_us() -> int:
    """CLOCK_MONOTONIC_RAW where there is one, else CLOCK_MONOTONIC, which is slewed."""
    return time.clock_gettime_ns(_RAW) // 1_000


def asleep_us() -> int:
    """How long this boot was suspended: what CLOCK_BOOTTIME counted and CLOCK_MONOTONIC did not."""
    for _ in range(TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        with_sleep = time.clock_gettime_ns(_WITH_SLEEP)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if after - before <= CLOSE_NS:
            break
    return (with_sleep - after) // 1_000


def is_slewed() -> bool:
    """Whether the raw clock may be slewed: there is no CLOCK_MONOTONIC_RAW here."""
    return _RAW == time.CLOCK_MONOTONIC


def boot() -> str:
    """The kernel's name of this boot; empty where it has none."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
