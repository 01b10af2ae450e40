"""How a run ended, from what was seen of it: outcome, reason and exit code.

The law: an outcome says what is known. Which limit ended a program is said where the runner ended
it; where the kernel only refused a call, the reason names the limit beside the exit code.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.runner.job import Job
from hwsync.runner.settings import Settings

Verdict = tuple[str, str, int | None]

SAID: Final = (
    ("MemoryError", "memory_mb"),
    ("Too many open files", "open_files"),
    ("File too large", "file_size_mb"),
    ("can't start new thread", "processes"),
    ("Resource temporarily unavailable", "processes"),
)
"""What the last line of standard error has where the kernel kept a limit."""


SHEBANG: Final = re.compile(r"#! *(\S.*)")
OF_PYTHON: Final = re.compile(r"python|pypy|\buv\b", re.I)  # in such a line
NO_PYTHON: Final = ("SyntaxError", "IndentationError", "TabError", "NameError")
SHOWN: Final = 60  # characters of such a line

BY_SERVER: Final = {
    "memory": "memory limit of {0.memory_mb} MB",
    "processes": "limit of {0.processes} processes and threads",
    "disk": "less than {0.free_disk_mb} MB free on the disk",
}
"""What the fork server ends a program for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the daemon saw of a run that is over."""

    why: str  # "time", "cancelled" or "output" where the daemon ended it, else empty
    began: bool
    exit: tuple[int, float] | None  # wait status, processor time in s
    end: str  # the limit that the server ended it for, or another word; empty: it is gone
    failure: str | None  # its process could not be made
    stderr: str
    forced: float | None = None  # s; how long it had been asked to end, where it did not


def verdict(seen: Seen, job: Job, settings: Settings) -> Verdict:
    """Outcome, reason and exit code (``RunEnd``) of a run that is over.

    Raises ``CannotRun`` where it did not begin, and was not cancelled: nothing has run then.
    """
    forced = "" if seen.forced is None else f"; it did not end by itself within {seen.forced:g} s"
    if seen.why == "cancelled":
        when = "while it ran" if seen.began else "before it began"
        return "cancelled", f"cancelled {when}{forced}", None
    if not seen.began:
        raise CannotRun(f"the program did not begin: {_hindrance(seen, job.timeout)}")
    # The server looks by itself: what it has found came before whatever the daemon waited for.
    if seen.end in BY_SERVER:
        return "killed", BY_SERVER[seen.end].format(settings.limits), None
    if seen.why == "time":
        return "timeout", f"time limit of {job.timeout:g} s{forced}", None
    if seen.why == "output":
        return "killed", f"output limit of {settings.limits.output_mb} MB", None
    if seen.exit is None or not seen.end:
        return "killed", "its parent process was ended, and so it was", None
    return _of_exit(*seen.exit, seen.stderr, job, settings)


def _hindrance(seen: Seen, timeout: float) -> str:
    if seen.failure is not None:
        return seen.failure
    if seen.why == "time":
        return f"time limit of {timeout:g} s"
    if seen.exit is not None and os.WIFSIGNALED(seen.exit[0]):
        return f"killed by {_signal_name(os.WTERMSIG(seen.exit[0]))}"
    return "it was ended"


def _of_exit(status: int, used: float, stderr: str, job: Job, settings: Settings) -> Verdict:
    limits = settings.limits
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        reason = f"killed by {_signal_name(number)}"
        cpu = limits.cpu_s
        if cpu and (number == signal.SIGXCPU or (number == signal.SIGKILL and used >= cpu)):
            reason = f"CPU time limit of {cpu:g} s"
        elif number == signal.SIGXFSZ and limits.file_size_mb:
            reason = f"file size limit of {limits.file_size_mb} MB"
        return "killed", reason, 128 + number
    code = os.WEXITSTATUS(status)
    if not code:
        return "ok", "", 0
    hint = _hint(stderr, settings) or _other_language(job.program, stderr, settings)
    return "error", f"exit code {code}{hint}", code


def _hint(stderr: str, settings: Settings) -> str:
    last = stderr.rstrip().rpartition("\n")[2]
    for text, name in SAID:
        value = getattr(settings.limits, name)
        if text in last and value:
            return f" ({text}; {name} = {value})"
    return ""


def _other_language(program: str, stderr: str, settings: Settings) -> str:
    """Where Python could not read a program whose first line asks for something else."""
    match = SHEBANG.match(program)
    last = stderr.rstrip().rpartition("\n")[2]
    if match is None or settings.interpreter or OF_PYTHON.search(match[1]):
        return ""
    if not last.startswith(NO_PYTHON):
        return ""
    return f" (its first line asks for {match[1][:SHOWN].strip()}, and this board runs Python)"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
