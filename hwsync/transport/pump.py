"""Waits for a connection's descriptor, for its next moment, or to be woken: a loop's one wait.

The law: what was said is on its way before anything is waited for. One thread calls it; others
have its ``Waker``.
"""

from __future__ import annotations

import math
import select
import time
from dataclasses import dataclass
from typing import Final

from hwsync.transport.connection import Connection
from hwsync.transport.signals import Signal
from hwsync.transport.waker import Waker

LONGEST_S: Final = 3_600.0  # any number that a poll accepts


@dataclass(frozen=True, slots=True)
class Watched:
    """What the next wait is for. ``until``: monotonic seconds; None: it has no end."""

    descriptor: int | None
    wants_write: bool
    until: float | None


class Pump:
    """One loop's wait for one connection. ``waker``: who may end a wait; None: nobody.

        connection.start()
        while not over:
            for signal in pump.wait(seconds):
                ...
        pump.leave(5.0)

    Neither raises anything of the network's: a broker that goes is a signal.
    """

    def __init__(self, connection: Connection, waker: Waker | None = None) -> None:
        self._connection, self._waker = connection, waker

    def wait(self, seconds: float | None) -> list[Signal]:
        """What the connection tells within so many seconds; None: until there is something to do.

        Returns nothing also where the connection only went on, or a waker was called: its caller
        looks at its own work, and waits again.
        """
        self._connection.write()
        watched = self.watched()
        if seconds is not None:
            until = time.monotonic() + seconds
            until = until if watched.until is None else min(until, watched.until)
            watched = Watched(watched.descriptor, watched.wants_write, until)
        readable = self.poll(watched)
        return self._connection.handle(time.monotonic(), readable)

    def leave(self, patience: float) -> None:
        """Wait so many seconds for what is under way, then leave without a will.

        What still comes is dropped: it was not acknowledged.
        """
        connection = self._connection
        until = time.monotonic() + patience
        while connection.connection and not connection.all_acknowledged:
            if (left := until - time.monotonic()) <= 0.0:
                break
            self.wait(left)
        connection.leave()
        while not connection.is_over:  # which it says itself how long it waits for
            self.wait(None)

    def watched(self) -> Watched:
        """What the connection waits for now."""
        connection = self._connection
        return Watched(connection.fileno(), connection.wants_write, connection.next_at)

    def poll(self, watched: Watched) -> bool:
        """Wait until then, or for it to be read or written; whether it can be read, or is broken.

        False too where it was woken, or the time was over.
        """
        seconds = LONGEST_S
        if watched.until is not None:
            seconds = min(max(watched.until - time.monotonic(), 0.0), LONGEST_S)
        poller = select.poll()
        if self._waker is not None:
            poller.register(self._waker, select.POLLIN)
        if watched.descriptor is not None:
            writes = select.POLLOUT if watched.wants_write else 0
            poller.register(watched.descriptor, select.POLLIN | writes)
        events = dict(poller.poll(math.ceil(1_000 * seconds)))
        if self._waker is not None and self._waker.fileno() in events:
            self._waker.clear()
        found = 0 if watched.descriptor is None else events.get(watched.descriptor, 0)
        return bool(found & ~select.POLLOUT)
