"""Time that is an argument: what is to happen, and when. Seconds; nothing waits."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class Timer:
    """Something planned; ``cancel`` takes it back."""

    at: float
    number: int
    action: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Take it back; nothing where it has happened already."""
        self.action = None


class Schedule:
    """What is planned, in order of time and, at one moment, in the order of planning."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[Timer] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Plan something that many seconds from now."""
        timer = Timer(self.now + max(seconds, 0.0), next(self._numbers), action)
        heapq.heappush(self._heap, timer)
        return timer

    def run_next(self) -> bool:
        """Go to the next moment and do what is planned then; False: nothing is."""
        while self._heap:
            timer = heapq.heappop(self._heap)
            if timer.action is not None:
                self.now = timer.at
                action, timer.action = timer.action, None
                action()
                return True
        return False
