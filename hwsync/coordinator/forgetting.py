"""A user who was a typing error, forgotten while the coordinator is stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from hwsync.protocol.errors import NotFound
from hwsync.protocol.events import ResetAsked
from hwsync.protocol.machine import decide
from hwsync.protocol.record import Moment
from hwsync.protocol.rules import Rules
from hwsync.store.api import Changes
from hwsync.store.read_only import opened
from hwsync.store.store import Store


def forget(path: Path, user: str, clear: Callable[[], None]) -> None:
    """Publish nothing of a user any more, until something new is asked; the history stays.

    ``clear`` takes away what the broker keeps; what it raises comes out of here, and nothing has
    changed then. Raises ``DatabaseError``, ``NotFound``, and ``Refused`` where the record is not at
    rest.
    """
    opened(path).close()  # a Store would make one
    with contextlib.closing(Store(path)) as store:
        record = store.load(0.0).get(user)
        if record is None:
            raise NotFound(f"{user} has never been seen", "hwsync status lists the boards")
        decision = decide(record, ResetAsked(forget=True), Moment(time.time(), 0.0), None, Rules())
        if decision.refused is not None:
            raise decision.refused
        clear()
        if decision.entry is not None:
            record = decision.record
            store.save(Changes({user: record}, log=[(record, decision.entry, None)]), 0.0)
