"""The loop's one wait: for the connection, for an order of the process, for what is due.

The law: while too much of what we said has not arrived, one message a second is handled at most;
what is not handled is not acknowledged, so that the broker keeps the rest of QoS 1. All that is
handled together is answered together, so that the same answers go out once. A round does not begin
while the last one's words wait for their turn at the broker.

Why: a small message may be answered with a status of a megabyte, and the answers would fill memory.
A round that begins early says nothing earlier: its own words would wait behind the last one's, and
a commit for each of many small rounds is what a disk takes worst.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from hwsync.coordinator.schedule import Clock
from hwsync.orders import Orders
from hwsync.transport import Signal

MAX_ROUND: Final = 500  # messages in one transaction: more gain nothing and delay the first answer
BACKLOG: Final = 16 * 1_048_576  # bytes said and not arrived; then nothing more is heard
CROWDED_S: Final = 1.0  # so long at most until the next look whether it has arrived
GATHER_S: Final = 0.05  # so long at most a round waits until the last one's words could all be sent


class Network(Protocol):
    """What is asked of the connection."""

    @property
    def backlog(self) -> int:
        """Bytes that were published and have not arrived."""

    @property
    def is_full(self) -> bool:
        """Whether something that was published waits for its turn."""


class Waiting(Protocol):
    """What is asked of its pump, which first sends what was said."""

    def wait(self, seconds: float | None) -> list[Signal]:
        """What comes within so many seconds; empty too where it only went on, or was woken."""


class Intake:
    """What comes, in portions: ``take`` is called once a round."""

    def __init__(
        self,
        network: Network,
        pump: Waiting,
        orders: Orders,
        clock: Clock,
        is_awaited: Callable[[], bool] = lambda: False,
    ) -> None:
        self._network, self._pump, self._orders, self._clock = network, pump, orders, clock
        self._is_awaited = is_awaited  # whoever woke the loop has something for it
        self._came: deque[Signal] = deque()

    @property
    def depth(self) -> int:
        """What waits for the next round."""
        return len(self._came)

    def take(self, seconds: float | None) -> list[Signal]:
        """What is to be handled now, in order, once the last round's words are on their way.

        Waits so long at most, None: until something comes; an order ends the wait, and so does
        another thread's find. One at a time where what we said does not arrive.
        """
        most = MAX_ROUND
        if self._network.backlog > BACKLOG:
            most = MAX_ROUND if self._has_arrived() else 1
            seconds = 0.0
        now = self._clock.monotonic()
        until, gather_until = None if seconds is None else now + seconds, now + GATHER_S
        while True:
            left = None if until is None else max(until - now, 0.0)
            if self._came:
                left = max(gather_until - now, 0.0) if self._is_gathering else 0.0
            self._came += self._pump.wait(left)
            now = self._clock.monotonic()
            if self._orders.any or self._is_awaited() or left == 0.0:
                break
            if self._came and not (self._is_gathering and now < gather_until):
                break
        return [self._came.popleft() for _ in range(min(most, len(self._came)))]

    @property
    def _is_gathering(self) -> bool:
        return self._network.is_full and len(self._came) < MAX_ROUND

    def _has_arrived(self) -> bool:
        """Wait until little enough is under way; False: it takes too long, or there is an order."""
        until = self._clock.monotonic() + CROWDED_S
        while self._network.backlog > BACKLOG:
            left = until - self._clock.monotonic()
            if left <= 0.0 or self._orders.any:
                return False
            self._came += self._pump.wait(left)
        return True
