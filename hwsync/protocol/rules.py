"""What a coordinator was started with, as far as its decisions depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hwsync.protocol import limits
from hwsync.protocol.groups import NO_GROUPS, Groups
from hwsync.protocol.record import Analyser
from hwsync.protocol.topics import DEFAULT_ROOT


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is allowed of new requests, for each user by itself: never more than the protocol does.

    It is asked of new commands only: a repeat is no second request (docs/protocol.md, section 4).
    """

    requests_per_minute: int = 0  # 0: no limit
    max_program: int = limits.MAX_PROGRAM  # bytes of UTF-8
    max_queue: int = limits.MAX_QUEUE
    max_idle: int = limits.MAX_IDLE  # bytes


FULL: Final = Allowance()  # as much as the protocol allows


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
    groups: Groups = NO_GROUPS  # as the file says now
    offered: frozenset[str] = frozenset()  # analysers of analysts that are online
