"""Which statuses a device believes: none that is older than one that it has seen.

The law: that holds for a while only. Who hears nothing but older ones has seen what was nobody's
word: it was forged, or an older database was put back and its coordinator does not know it
(docs/protocol.md, section 5). Until then the coordinator has heard in the heartbeat what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsync.protocol import limits

Order = tuple[int, int]  # (epoch, seq)


@dataclass(slots=True)
class Freshness:
    """``newest``: what was seen in this life. Moments are monotonic, in seconds."""

    newest: Order = (0, 0)
    _since: float | None = None  # nothing but older ones; None: the last one was not

    def is_stale(self, order: Order, now: float) -> bool:
        """Take note of a status; whether it is older than one that was seen."""
        if order >= self.newest:
            self.newest, self._since = order, None
            return False
        if self._since is None:
            self._since = now
        return True

    def is_deaf(self, now: float) -> bool:
        """Whether nothing but older ones came, for so long that these are the word."""
        return self._since is not None and now - self._since >= limits.DEAF_S

    def begin(self, order: Order) -> None:
        """Believe from here on what is not older than this."""
        self.newest, self._since = order, None
