"""What the process's signals ask for: SIGTERM and SIGINT its end, SIGHUP another configuration."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Orders:
    """What was asked for and not yet done."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False

    @property
    def any(self) -> bool:
        """Whether the loop has something to look at."""
        return self.stop or self.reload


@contextmanager
def listening(wake: Callable[[], None]) -> Iterator[Orders]:
    """The process's signals become orders; ``wake`` is called at each, within its handler.

    A terminal that goes away is a stop: SIGHUP means either that, or that somebody wants a reload.
    """
    terminals = [number for number in range(3) if os.isatty(number)]
    orders = Orders()

    def end(*_: object) -> None:
        orders.stop = True
        wake()

    def hang_up(*_: object) -> None:
        if all(os.isatty(number) for number in terminals):
            orders.reload = True
        else:
            orders.stop = True
        wake()

    handlers = {signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: hang_up}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield orders
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
