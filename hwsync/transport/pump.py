"""Waits for a connection's descriptor, for its next moment, or to be woken: a loop's one wait.

The law: ``wake`` may be called by any thread and in a signal's handler; all else by one thread.
"""

from __future__ import annotations

import math
import os
import select
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hwsync.transport.connection import Connection
from hwsync.transport.signals import Signal

LONGEST_S: Final = 3_600.0  # any number that a poll accepts
WOKEN: Final = 4_096  # bytes read at once, one for each wake-up since the last wait


@dataclass(frozen=True, slots=True)
class Watched:
    """What the next wait is for. ``until``: monotonic seconds; None: it has no end."""

    descriptor: int | None
    wants_write: bool
    until: float | None


class Pump:
    """``wait`` is the whole of it, for an owner that has one thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._woken, self._waker = os.pipe()
        for descriptor in (self._woken, self._waker):
            os.set_blocking(descriptor, False)

    def wake(self) -> None:
        """End the present wait, or else the next one."""
        with suppress(BlockingIOError):  # as many wake-ups wait as the pipe takes
            os.write(self._waker, b"\0")

    def wait(self, seconds: float | None) -> list[Signal]:
        """What the connection tells within so many seconds; empty too where it only went on.

        None: until something comes.
        """
        watched = self.watched()
        if seconds is not None:
            until = time.monotonic() + seconds
            until = until if watched.until is None else min(until, watched.until)
            watched = Watched(watched.descriptor, watched.wants_write, until)
        readable = self.poll(watched)
        return self._connection.handle(time.monotonic(), readable)

    def leave(self, patience: float) -> None:
        """Wait so many seconds for what is under way, then leave without a will, and close.

        What still comes is dropped: it was not acknowledged.
        """
        connection = self._connection
        until = time.monotonic() + patience
        connection.write()
        while connection.connection and not connection.settled:
            if (left := until - time.monotonic()) <= 0.0:
                break
            self.wait(left)
        connection.leave()
        while not connection.is_over:  # which it says itself how long it waits for
            self.wait(None)
        self.close()

    def watched(self) -> Watched:
        """What the connection waits for now."""
        connection = self._connection
        return Watched(connection.fileno(), connection.wants_write, connection.next_at)

    def poll(self, watched: Watched) -> bool:
        """Wait; whether the descriptor can be read, or is broken."""
        seconds = LONGEST_S
        if watched.until is not None:
            seconds = min(max(watched.until - time.monotonic(), 0.0), LONGEST_S)
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        if watched.descriptor is not None:
            writes = select.POLLOUT if watched.wants_write else 0
            poller.register(watched.descriptor, select.POLLIN | writes)
        events = dict(poller.poll(math.ceil(1_000 * seconds)))
        if self._woken in events:
            with suppress(BlockingIOError):
                os.read(self._woken, WOKEN)
        found = 0 if watched.descriptor is None else events.get(watched.descriptor, 0)
        return bool(found & ~select.POLLOUT)

    def close(self) -> None:
        """Its descriptors are given back; nobody may wake it any more."""
        os.close(self._waker)
        os.close(self._woken)
