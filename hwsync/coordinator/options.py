"""What ``hwsync coordinator`` is started with, but for its way to the broker (``service.Access``).

The law: a field for each option of the command, of the same name: ``cli.services`` says what it may
be and what it is by default, here stands what it means. Whoever needs it reads it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwsync.protocol import limits
from hwsync.protocol.rules import Allowance


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Times are seconds, unless a name says otherwise."""

    db: Path  # made where there is none
    analysis: str  # the analyser of requests that name none
    analysis_within: float  # of state 3; 0: for ever (docs/protocol.md, section 7)
    hold_deadlines_s: float  # after a connect no deadline fires (docs/protocol.md, section 2)
    clean_session: bool  # the broker is to keep nothing while we are away
    backup_dir: Path | None  # None: no backups
    backup_every: float
    metrics_file: Path | None
    keep_days: float  # texts of commands; 0: for ever
    keep_mb: float  # likewise
    requests_per_minute: int  # of a board; 0: any number of
    max_program_kb: int
    max_queue: int
    max_message: int  # bytes that the broker is known to take
    take_over: bool  # also where another coordinator serves the root, or has the lab's database

    @property
    def allowance(self) -> Allowance:
        """What a board may ask for."""
        program = self.max_program_kb * limits.KIB
        return Allowance(self.requests_per_minute, program, self.max_queue)
