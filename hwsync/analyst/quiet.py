"""When nothing is said to the coordinator, since nobody would answer it.

The law: a broker keeps for a coordinator what is said while that is away, and drops what does not
fit: whoever repeats himself for hours pushes out others. So who does not answer is left alone,
longer each time, until something of it is heard. Nothing is sent here. Moments are monotonic
seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

FIRST_S: Final = 10.0  # of quiet; doubles,
MAX_S: Final = 300.0  # to this
JUST_S: Final = 20.0  # since it was heard: it is there, and has not answered something else


class Quiet:
    """What is known of the coordinator; at first, that it may be there."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._heard_at = -inf
        self._pause = FIRST_S
        self.until = -inf  # when it may be spoken to again

    @property
    def may_speak(self) -> bool:
        """Whether it may be there."""
        return self._monotonic() >= self.until

    @property
    def is_there(self) -> bool:
        """Whether it was heard just now, and is no worse than that."""
        return self.may_speak and self._monotonic() - self._heard_at <= JUST_S

    def hush(self) -> None:
        """It has not answered, is going, or cannot save."""
        if self.may_speak:
            self.until = self._monotonic() + self._pause
            self._pause = min(2.0 * self._pause, MAX_S)

    def heard(self) -> None:
        """Something of it came."""
        self._heard_at = self._monotonic()
        self.speak()

    def speak(self) -> None:
        """There is a new connection: nothing is known again."""
        self.until, self._pause = -inf, FIRST_S
