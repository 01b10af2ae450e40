"""What of a connection's subscriptions the broker has granted, and when it is asked again.

The law: a refusal is believed when it has come ``BELIEVED`` times in a row, and is asked about
further on. No sockets, and no clock.

Why: a broker that has just begun, or a cluster without its quorum, refuses what it grants later,
and whoever believed it at once would be deaf until the connection ends.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from hwsync.transport.signals import Subscribed, Subscription

log = logging.getLogger("hwsync.transport")

FIRST_S: Final = 0.5  # after a refusal, until it is asked again; then doubling
MAX_S: Final = 30.0
BELIEVED: Final = 3  # refusals in a row


class Subscribing:
    """One connection's; moments are seconds on the monotonic clock."""

    def __init__(self) -> None:
        self.asked: tuple[Subscription, ...] = ()  # in the SUBSCRIBE that is under way, if any
        self._refused: tuple[Subscription, ...] = ()
        self._refusals = 0
        self._pause = FIRST_S
        self._due_at = 0.0

    def answered(self, granted: Iterable[bool], now: float) -> Subscribed | None:
        """The SUBACK came; what the owner is told of it, now and not before."""
        pairs = zip(self.asked, granted, strict=False)
        refused = tuple(one for one, is_granted in pairs if not is_granted)
        self.asked = ()
        if self._refused:  # of what was asked before
            self._refused += refused
            return None
        if not refused:
            if self._refusals < BELIEVED:
                return Subscribed()
            log.warning("the broker lets us subscribe to all of it now")
            return None
        self._due_at, self._pause = now + self._pause, min(2 * self._pause, MAX_S)
        self._refused = refused
        self._refusals += 1
        if self._refusals != BELIEVED:
            return None
        topics = tuple(one.topic for one in refused)
        log.error("the broker refuses to let us subscribe to %s", ", ".join(topics))
        return Subscribed(topics)

    def wait(self, now: float) -> float | None:
        """Seconds until ``again`` has something; None: nothing was refused, or it is asked now."""
        return max(self._due_at - now, 0.0) if self._refused and not self.asked else None

    def again(self, now: float) -> tuple[Subscription, ...]:
        """What is to be asked for once more at this moment."""
        if self.asked or not self._refused or now < self._due_at:
            return ()
        again, self._refused = self._refused, ()
        return again
