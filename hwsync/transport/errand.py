"""Something that blocks, done in a short-lived thread, for an owner that has only one.

The law: the owner never waits for it: it is told through a descriptor that the work is done. What
an abandoned errand still brings is dropped by whoever comes last.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Errand(Generic[T]):
    """``work`` raises nothing. ``drop`` gets what it brought where nobody wants it any more."""

    def __init__(self, work: Callable[[], T], drop: Callable[[T], None] = lambda _: None) -> None:
        self._work, self._drop = work, drop
        self._brought: list[T] = []
        self._is_abandoned = False
        self._ours, self._theirs = socket.socketpair()
        thread = threading.Thread(target=self._run, name="hwsync-errand", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads on this machine
            self._ours.close()
            self._theirs.close()
            raise

    def fileno(self) -> int:
        """Readable once it is done."""
        return self._ours.fileno()

    @property
    def is_done(self) -> bool:
        """Whether ``take`` has something."""
        return bool(self._brought)

    def take(self) -> T:
        """What it brought; once, and when it is done."""
        self._ours.close()
        return self._brought.pop()

    def abandon(self) -> None:
        """It is not wanted any more. Returns at once; its thread ends by itself."""
        self._is_abandoned = True
        self._ours.close()
        self._drop_all()

    def _run(self) -> None:
        self._brought.append(self._work())
        self._theirs.close()
        if self._is_abandoned:
            self._drop_all()

    def _drop_all(self) -> None:
        """Each side does so after it has done its part, so that one of them finds it."""
        with suppress(IndexError):  # the other side was faster
            while True:
                self._drop(self._brought.pop())
