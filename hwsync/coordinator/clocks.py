"""Whether this machine's wall clock can be right, as far as the database and the other clock know.

The law: nothing is decided by it. It says once what is wrong and what to do; the health has it as
long as it lasts, so that ``hwsync doctor`` finds it.
"""

from __future__ import annotations

import logging
import time
from typing import Final

log = logging.getLogger("hwsync.coordinator")

APART_S: Final = 86_400.0  # a machine without a clock chip goes on where it was switched off
CURE: Final = (
    "set it: timedatectl set-ntp true, or timedatectl set-time; meanwhile the times in the record "
    "are wrong, and expires_at counts by them"
)


def shown(wall: float) -> str:
    """A moment for people; ``wall``: Unix seconds, and a clock may say anything."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall))
    except (OverflowError, ValueError, OSError):
        return f"{wall:g}"


class ClockWatch:
    """``last``: Unix seconds of the last row of the log, None: there is none. ``trouble``: text.

    The log's end, not its latest time: with the first row of a clock that is right again, one that
    was years ahead is forgotten.
    """

    def __init__(self, wall: float, monotonic: float, last: float | None) -> None:
        self._last = last
        self._right = self._offset = wall - monotonic  # of the wall clock, ``_right`` before a jump
        self.trouble = ""
        if self._is_behind(wall):
            self._report(
                f"it says {shown(wall)}, and the database was changed at {shown(last or 0)}"
            )

    def _is_behind(self, wall: float) -> bool:
        return self._last is not None and wall < self._last - APART_S

    def watch(self, wall: float, monotonic: float) -> None:
        """Look at both clocks, once a round; ``wall``: Unix seconds, ``monotonic``: seconds."""
        offset = wall - monotonic
        jump = offset - self._offset
        if abs(jump) < APART_S:
            return
        was_behind = self._is_behind(monotonic + self._offset)
        self._offset = offset
        if (was_behind and not self._is_behind(wall)) or abs(offset - self._right) < APART_S:
            log.warning("this machine's clock was set: it says %s", shown(wall))
            self.trouble, self._right = "", offset
        else:
            way = "ahead" if jump > 0 else "back"
            self._report(f"it jumped {way} by {abs(jump) / 86_400:.0f} days and says {shown(wall)}")

    def _report(self, text: str) -> None:
        self.trouble = f"this machine's clock is wrong: {text}"
        log.error("%s; %s", self.trouble, CURE)
