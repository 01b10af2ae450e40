"""When what is due: deadlines on a clock that runs only while connected, and repetitions.

Both are heaps of moments that may be out of date; the record says whether one still holds, so
nothing is ever removed but at its time.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from hwsync.protocol import limits


@dataclass(slots=True)
class ConnectedClock:
    """Seconds of connection so far: while the broker is away no deadline comes nearer.

    After each connect the deadlines are held back for ``settle`` seconds: whoever finished
    meanwhile is heard first (docs/protocol.md, section 2, "Deadlines").
    """

    settle: float
    _counted: float = 0.0
    _since: float | None = None

    def connect(self, monotonic: float) -> None:
        """The connection stands and is subscribed."""
        self.disconnect(monotonic)
        self._since = monotonic

    def disconnect(self, monotonic: float) -> None:
        """The connection is gone."""
        self._counted = self.ticks(monotonic)
        self._since = None

    def ticks(self, monotonic: float) -> float:
        """The clock's reading."""
        return self._counted + (0.0 if self._since is None else monotonic - self._since)

    def wait(self, monotonic: float, due_at: float) -> float | None:
        """Seconds until a deadline may fire; None while disconnected."""
        if self._since is None:
            return None
        return max(due_at - self.ticks(monotonic), self._since + self.settle - monotonic, 0.0)


@dataclass(slots=True)
class Agenda:
    """Users by the moment at which something is to be done for them."""

    _heap: list[tuple[float, str]] = field(default_factory=list)

    def add(self, moment: float, user: str) -> None:
        """Look at this user at that moment."""
        heapq.heappush(self._heap, (moment, user))

    def nearest(self) -> float | None:
        """The earliest moment."""
        return self._heap[0][0] if self._heap else None

    def passed(self, moment: float) -> list[str]:
        """The users whose moment has come; they are taken off."""
        users: list[str] = []
        while self._heap and self._heap[0][0] <= moment:
            users.append(heapq.heappop(self._heap)[1])
        return users


def backoff(attempt: int, dice: random.Random) -> float:
    """Seconds to the next repetition: 1 doubling to 30, less up to a quarter by jitter."""
    pause = min(limits.REPEAT_FIRST_S * 2.0 ** min(attempt, 10), limits.REPEAT_MAX_S)
    return float(pause * (1.0 - 0.25 * dice.random()))
