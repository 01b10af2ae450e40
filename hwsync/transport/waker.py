"""What ends a loop's wait from outside of it.

The law: ``wake`` may be called by any thread and in a signal's handler, and never blocks; all else
is the loop's.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

WOKEN: Final = 4_096  # bytes read at once, one for each wake-up since the last wait


class Waker:
    """A pipe to oneself; a wake-up stays until the loop has seen it."""

    def __init__(self) -> None:
        self._woken, self._waker = os.pipe()
        for descriptor in (self._woken, self._waker):
            os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """Readable once somebody has called ``wake``."""
        return self._woken

    def wake(self) -> None:
        """End the present wait, or else the next one."""
        with suppress(BlockingIOError):  # as many wake-ups wait as the pipe takes
            os.write(self._waker, b"\0")

    def clear(self) -> None:
        """The loop is awake, and looks at everything."""
        with suppress(BlockingIOError):
            os.read(self._woken, WOKEN)

    def close(self) -> None:
        """Nobody may wake any more."""
        os.close(self._waker)
        os.close(self._woken)
