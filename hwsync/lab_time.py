"""Lab time, for a program that began at an instant: what its device knows by now.

    from hwsync.lab_time import bound, now

    print(now(), bound())

What the variables ``HWSYNC_LAB_…`` say is of the moment at which the program began, and grows old;
these functions go on with what the device has learnt since. The law: they ask nobody and import
nothing of hwsync; a copy of what the device wrote counts only where it is of one writing.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

WORDS: Final = 17  # of eight bytes each (``runner/release.py`` names them)
PPB: Final = 1_000_000_000
APART_NS: Final = 5_000_000  # more than two clocks differ that are read one after the other


class NoLabTime(Exception):
    """Lab time is not known: this program did not begin at an instant, or not in this process, or
    the board was suspended and has not asked again.
    """


def now() -> float:
    """Lab time in Unix seconds. Raises ``NoLabTime``."""
    return now_us() / 1_000_000


def now_us() -> int:
    """Lab time in whole microseconds. Raises ``NoLabTime``."""
    words = _page()
    since = (time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - words[11]) // 1_000
    return words[10] + since + since * words[8] // PPB


def bound() -> float:
    """How far ``now`` may be from lab time, in seconds. Raises ``NoLabTime``."""
    words = _page()
    since = abs(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - words[11]) // 1_000
    return (words[12] + since * words[13] // PPB + 1) / 1_000_000


def _slept(before: int) -> bool:
    """Whether the board was suspended since: the raw clock has stood still meanwhile."""
    for _ in range(10):
        always = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if abs(always - time.clock_gettime_ns(time.CLOCK_MONOTONIC) - before * 1_000) <= APART_NS:
            return False
    return True


def _page() -> list[int]:
    try:
        page = int(os.environ["HWSYNC_LAB_PAGE"])
        for _ in range(1000):
            data = os.pread(page, 8 * WORDS, 0)
            words = [
                int.from_bytes(data[at : at + 8], sys.byteorder, signed=True)
                for at in range(0, 8 * WORDS, 8)
            ]
            total = sum(number * word for number, word in enumerate(words[:-1], 1))
            if words[0] == words[-2] and words[-1] == total % (1 << 62):
                if _slept(words[14]):
                    break
                return words
    except (KeyError, ValueError, OSError):
        pass
    raise NoLabTime(
        "lab time is not known: this program did not begin at an instant, or its board slept"
    )
