"""How long to wait before something is said again: the same everywhere (docs/protocol.md)."""

from __future__ import annotations

from typing import Final

from hwsync.protocol import limits

SHORTER: Final = 0.25  # at most, by chance, so that many do not speak at once


def pause(attempt: int, chance: float) -> float:
    """Seconds before the next try: 1 doubling to 30, shortened by up to a quarter.

    ``attempt`` counts from 0, ``chance`` is from 0 to 1.
    """
    full = min(limits.REPEAT_FIRST_S * 2.0 ** min(attempt, 10), limits.REPEAT_MAX_S)
    return float(full * (1.0 - SHORTER * chance))
