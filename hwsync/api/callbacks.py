"""What users have to be called when a run ends: in a thread of its own, one after the other.

The law: what a callback does, or raises, or waits for, holds up no connection. An exception is
logged as ``concurrent.futures`` does. There is a thread only while there is something to call.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger("hwsync.api")


class Callbacks:
    """Of one lab."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], object]) -> None:
        """Soon."""
        with self._lock:
            self._waiting.append(function)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._call, name="hwsync-callbacks", daemon=True
                )
                self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until all were called, but no longer than that."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def _call(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                function = self._waiting.popleft()
            try:
                function()
            except BaseException:  # also SystemExit, which would end this thread
                log.exception("exception calling a callback of a run")
