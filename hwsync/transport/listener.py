"""One signal of a connection after the other, for an owner that waits for each of them.

The law: it has no thread: the connection is served while its owner waits, and comes back by itself
where that was too long ago.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from hwsync.transport.connection import Connection
from hwsync.transport.pump import Pump
from hwsync.transport.signals import Signal
from hwsync.transport.waker import Waker


class Listener:
    """For whoever has no loop of its own.

    ``waker``: who may end a wait, as of ``Pump``. ``whole``: entered while the connection is
    served, so that nothing interrupts it within a packet (``operator.interrupt``).
    """

    def __init__(
        self,
        connection: Connection,
        waker: Waker | None = None,
        whole: AbstractContextManager[object] | None = None,
    ) -> None:
        self._connection, self._pump = connection, Pump(connection, waker)
        self._whole = whole or nullcontext()
        self._came: deque[Signal] = deque()  # and was not taken yet

    def next(self, seconds: float) -> Signal | None:
        """The next signal; None: nothing came within so many seconds, which may be infinite."""
        until = time.monotonic() + seconds
        while not self._came:
            left = until - time.monotonic()
            self._serve(max(left, 0.0))
            if left <= 0.0:
                break
        return self._came.popleft() if self._came else None

    def put_back(self, signals: Iterable[Signal]) -> None:
        """They are the next ones, in this order."""
        self._came.extendleft(reversed(list(signals)))

    def arrives(self, patience: float) -> bool:
        """Whether all that was said on this connection arrives within so many seconds.

        False too where the connection ends meanwhile, or there is none: say it again then. What
        comes meanwhile is kept for ``next``.
        """
        connection = self._connection
        until, number = time.monotonic() + patience, connection.connection
        while number and not connection.all_acknowledged:
            left = until - time.monotonic()
            if left <= 0.0 or connection.connection != number:
                return False
            self._serve(left)
        return bool(number) and connection.connection == number

    def leave(self, patience: float) -> None:
        """Wait at most so many seconds for what is under way, then leave without a will.

        It is closed also where that wait is interrupted.
        """
        try:
            self._pump.leave(patience)
        finally:
            self._connection.close()

    def _serve(self, seconds: float) -> None:
        with self._whole:
            self._came += self._pump.wait(seconds)
