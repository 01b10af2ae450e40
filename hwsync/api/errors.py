"""How a run can end otherwise than ``ok``, as exceptions; each has the run, which has the record.

    NotOk               any of these
    ├── Failed          the program's exit code was not 0
    ├── TimedOut        its own time limit
    ├── Killed          another limit, or a signal
    ├── Cancelled       somebody cancelled or reset it; a concurrent.futures.CancelledError too
    ├── Interrupted     the device died while it ran
    ├── Rejected        the device refused to run it
    ├── Expired         nobody collected it in time
    └── Lost            it was collected, and no answer came in time

What comes before a run (``Refused``) and beside it (``Unreachable``, ``Closed``) is in
``protocol.errors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final

from hwsync.logs import escape
from hwsync.protocol.errors import HwsyncError

if TYPE_CHECKING:
    from hwsync.api.run import Run

LINES: Final = 20  # of standard error, the last ones, which a traceback shows


class NotOk(HwsyncError):
    """A run that did not end ``ok``. ``run``: all of it, ``run.record`` as it was published."""

    def __init__(self, run: Run) -> None:
        super().__init__(_sentence(run))
        self.run = run
        if lines := run.stderr.splitlines()[-LINES:]:
            self.add_note("\n".join(f"  {escape(line)}" for line in lines))

    @property
    def record(self) -> Mapping[str, Any]:
        """The fields of its status or result (docs/protocol.md, sections 1 and 3)."""
        return self.run.record


class Failed(NotOk):
    """The program's exit code was not 0."""


class TimedOut(NotOk):
    """It ran longer than its ``timeout``."""


class Killed(NotOk):
    """A limit of its device, or a signal."""


class Cancelled(NotOk, CancelledError):
    """Somebody cancelled or reset it."""


class Interrupted(NotOk):
    """Its device died while it ran."""


class Rejected(NotOk):
    """Its device did not run it."""


class Expired(NotOk):
    """Nobody collected it in time."""


class Lost(NotOk):
    """It was collected and no answer came in time: it may have run."""


KINDS: Final[Mapping[str, type[NotOk]]] = {
    "error": Failed,
    "timeout": TimedOut,
    "killed": Killed,
    "cancelled": Cancelled,
    "interrupted": Interrupted,
    "rejected": Rejected,
    "expired": Expired,
    "lost": Lost,
}


def not_ok(run: Run) -> NotOk:
    """The exception for a run that has ended otherwise; of a later version's outcome, any."""
    return KINDS.get(str(run.outcome), NotOk)(run)


def _sentence(run: Run) -> str:
    said = run.reason or ("" if run.exit_code is None else f"exit code {run.exit_code}")
    ran = "" if run.ran == "yes" else f" (ran: {run.ran})"
    return escape(f"{run.board}: {run.outcome}{f': {said}' if said else ''}{ran}")
