"""Whether another client seems to use our client id: each connect ends the other's connection.

The law: it is said once a minute at most, and only of ends that nobody explained.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SHORT_S: Final = 5.0  # a connection that ends sooner may have been taken over
TAKEOVERS: Final = 3  # so many short ones within a minute are no accident
MINUTE_S: Final = 60.0


class Takeovers:
    """Told of each connection that ended without us; moments are monotonic seconds."""

    def __init__(self) -> None:
        # Ends of short connections of which the broker did not say why.
        self._short: deque[float] = deque(maxlen=TAKEOVERS)
        self._said_at: float | None = None

    def ended(self, now: float, lived: float, *, named: bool, explained: bool) -> bool:
        """Whether that is to be said now. ``named``: the broker itself said so.

        ``explained``: it gave another reason, or may not have liked a message of ours.
        """
        if lived < SHORT_S and not explained:
            self._short.append(now)
        often = len(self._short) == TAKEOVERS and now - self._short[0] < MINUTE_S
        quiet = self._said_at is not None and now - self._said_at < MINUTE_S
        if not (named or often) or quiet:
            return False
        self._said_at = now
        return True
