"""Which runs of the past an operator wants, and the question that this is for one board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsync.protocol import limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which commands are wanted; what is None or empty chooses all (docs/protocol.md, section 10).

    ``since`` and ``until``: Unix seconds, below 0: before now, by the coordinator's clock.
    ``last``: so many of each board, the newest.
    """

    since: float | None = None
    until: float | None = None
    last: int | None = None
    outcome: tuple[str, ...] = ()
    by: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    id: str | None = None
    analyser: str | None = None
    judged: bool | None = None

    def question(self, have: int, after: int | None, reply: str) -> dict[str, Any]:
        """The fields of the next question; ``have``: rows that came before."""
        left = limits.HISTORY_ROWS if self.last is None else self.last - have
        return {
            "since": self.since,
            "until": self.until,
            "last": min(left, limits.HISTORY_ROWS),
            "outcome": list(self.outcome) or None,
            "by": self.by,
            "meta": dict(self.meta) or None,
            "name": self.name,
            "id": self.id,
            "analyser": self.analyser,
            "judged": self.judged,
            "after": after,
            "reply": reply,
        }
