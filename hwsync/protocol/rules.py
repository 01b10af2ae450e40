"""What a coordinator was started with, as far as its decisions depend on it."""

from __future__ import annotations

from dataclasses import dataclass

from hwsync.protocol import limits
from hwsync.protocol.allowance import FULL, Allowance
from hwsync.protocol.record import Analyser
from hwsync.protocol.topics import DEFAULT_ROOT


@dataclass(frozen=True, slots=True)
class Rules:
    """What the coordinator was started with."""

    root: str = DEFAULT_ROOT
    analysis: str = Analyser.MANUAL  # the analyser of a request that names none
    analysis_within: float = limits.DEFAULT_ANALYSIS_WITHIN_S  # seconds in state 3; 0: for ever
    restored_at: float | None = None  # in ticks; at the last rise of the epoch
    allowance: Allowance = FULL
    max_message: int = limits.MAX_MESSAGE  # bytes that the broker is said to take
    sendable: int = limits.MAX_MESSAGE  # and as far as was learned
    signed: bool = False  # whether envelopes are
