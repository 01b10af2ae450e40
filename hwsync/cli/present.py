"""Whether a board's device was ever heard: its name may be a typing error.

The law: nothing is asked for it. The broker gives what it keeps before anything is answered.
"""

from __future__ import annotations

from hwsync.protocol.record import State
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import CommandFields


class Present:
    """What was heard of one device."""

    def __init__(self, user: str) -> None:
        self._user, self._heard = user, False

    def hear(self, heard: Received) -> None:
        self._heard |= heard.heartbeat is not None

    def warning(self, status: CommandFields) -> str:
        """What to say; ``status``: what acknowledged the request."""
        if self._heard or status["state"] != State.REQUESTED:
            return ""
        return f"hwsync: a device {self._user} has never been seen; the program waits for one"
