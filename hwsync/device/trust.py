"""Which commands a board with ``trust`` runs: those that a trusted key signed for it, once.

The law: an envelope counts only as the text that was signed; it is for this board and for this
journal, and newer, by (epoch, seq), than everything that the journal ever received: so no wrong
clock, no pruning and no lost journal brings an old one back (docs/protocol.md, section 5).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hwsync.findings import CLOCK_SET
from hwsync.protocol.wire.envelope import Envelope, Seal
from hwsync.signing import Trusted

UNSIGNED: Final = "it is not signed, and this board runs only what is"
CLOCK_SLACK_S: Final = 60.0  # between the clocks of coordinator and board, when something expires


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why an envelope does not run. ``answer``: it is refused; else it is passed over."""

    reason: str
    answer: bool = True


class Trust:
    """The keys of one board. Raises ``UsageError`` where one is none, or PyNaCl is missing."""

    def __init__(self, user: str, keys: Iterable[str]) -> None:
        self._user = user
        self._trusted = Trusted(keys)

    def at_grant(self, envelope: Envelope, wall: float) -> str:
        """Why an envelope that was received must not start now; empty: it may.

        Trust may have changed since, and whoever forges a grant may have waited with it.
        """
        if envelope.signed_by not in self._trusted:
            return _untrusted(envelope.signed_by)
        return _expired(envelope, wall)

    def doubt(
        self,
        envelope: Envelope,
        seal: Seal | None,
        journal: str,
        newest: tuple[int, int],
        wall: float,
    ) -> Doubt | None:
        """What speaks against an envelope that is new here; ``seal`` None: it is not signed.

        ``newest``: (epoch, seq) of the newest envelope that this journal received; ``wall``: Unix
        seconds by this board's clock.
        """
        refusal = self._refusal(envelope, seal, newest, wall)
        if refusal:
            return Doubt(refusal)
        if seal is not None and seal.journal != journal:
            # The coordinator has not heard of this journal yet. It sends it again once it has.
            return Doubt(f"it is signed for the journal {seal.journal}", answer=False)
        return None

    def _refusal(
        self, envelope: Envelope, seal: Seal | None, newest: tuple[int, int], wall: float
    ) -> str:
        if seal is None:
            return UNSIGNED
        if seal.key not in self._trusted:
            return _untrusted(seal.key)
        if not self._trusted.verifies(seal.key, seal.text, seal.signature):
            return "its signature is wrong: it was altered on its way"
        if envelope.user != self._user:
            return f"it is signed for {envelope.user}, this board is {self._user}"
        if (envelope.epoch, envelope.seq) <= newest:
            return "it is older than what this board has already received: somebody sent it again"
        return _expired(envelope, wall)


def _untrusted(key: str) -> str:
    return f"it is signed by a key that this board does not trust: {key[:80]}" if key else UNSIGNED


def _expired(envelope: Envelope, wall: float) -> str:
    """A clock that was never set says nothing; the order of envelopes holds without any."""
    expires = envelope.expires_at
    if expires is not None and wall >= CLOCK_SET and wall > expires + CLOCK_SLACK_S:
        return f"it expired at {_shown(expires)}, and this board's clock says {_shown(wall)}"
    return ""


def _shown(wall: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall))
    except (OverflowError, ValueError, OSError):
        return f"{wall:g}"
