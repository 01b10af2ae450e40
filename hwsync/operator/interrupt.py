"""Ctrl-C, while a connection is served by the thread that it interrupts.

The law: ``KeyboardInterrupt`` is never raised in the middle of a packet, since the connection may
still be needed: the first Ctrl-C of ``hwsync run`` cancels over it. It is raised as soon as the
connection is left alone; a wait ends at once.
"""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Self

from hwsync.transport import Waker


class Interrupts:
    """``with`` it nothing is interrupted. ``listen`` first, ``ignore`` last.

    Only in the main thread, and where Ctrl-C means what Python means by it; else it does nothing.
    """

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self._listens = self._is_held = self._came = False

    def listen(self) -> None:
        """From now on Ctrl-C comes here."""
        ours = threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupted)
            self._listens = True

    def ignore(self) -> None:
        """It is Python's own again."""
        if self._listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._listens = False

    def __enter__(self) -> Self:
        self._is_held = True
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._is_held = False
        if self._came:
            self._came = False
            raise KeyboardInterrupt

    def _interrupted(self, *_: object) -> None:
        if not self._is_held:
            raise KeyboardInterrupt
        self._came = True
        self._waker.wake()
