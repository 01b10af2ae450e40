"""How a run ended, from what was seen of it: outcome, reason and exit code.

The law: an outcome says what is known. Which limit ended a program is said where the runner ended
it; where the kernel only refused a call, the reason names the limit beside the exit code.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.runner.settings import Isolation, Settings

Verdict = tuple[str, str, int | None]

SAID: Final = (
    ("MemoryError", "memory_mb"),
    ("Too many open files", "open_files"),
    ("File too large", "file_size_mb"),
    ("can't start new thread", "processes"),
    ("Resource temporarily unavailable", "processes"),
)
"""What the last line of standard error has where the kernel kept a limit."""


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
    end: tuple[int, float, str] | None  # wait status, processor time in s, the server's limit
    failure: str | None  # its process could not be made
    stderr: str
    duration: float  # s


def verdict(seen: Seen, timeout: float, settings: Settings) -> Verdict:
    """Raises ``CannotRun`` where it did not begin for another reason than its own text."""
    exited = seen.end is not None and seen.end[0] >= 0 and os.WIFEXITED(seen.end[0])
    if seen.why == "cancelled":
        return "cancelled", f"cancelled {'while it ran' if seen.began else 'before it began'}", None
    # What cannot be compiled never begins, and ends by itself with its own complaint.
    if not seen.began and (seen.why or seen.failure is not None or not exited):
        raise CannotRun(f"the program did not begin: {_hindrance(seen, timeout)}")
    # The server looks by itself: what it has found came before whatever the daemon waited for.
    found = seen.end is not None and seen.end[2] in BY_SERVER
    if seen.why == "time" and not found:
        return "timeout", f"time limit of {timeout:g} s", None
    if seen.why == "output" and not found:
        return "killed", f"output limit of {settings.limits.output_mb} MB", None
    if seen.end is None:
        return "killed", "its parent process was ended, and so it was", None
    return _of_end(seen, settings)


def _hindrance(seen: Seen, timeout: float) -> str:
    if seen.failure is not None:
        return seen.failure
    if seen.why == "time":
        return f"time limit of {timeout:g} s"
    if seen.end is not None and os.WIFSIGNALED(seen.end[0]):
        return f"killed by {_signal_name(os.WTERMSIG(seen.end[0]))}"
    return "it was ended"


def _of_end(seen: Seen, settings: Settings) -> Verdict:
    assert seen.end is not None
    status, used, limit = seen.end
    limits = settings.limits
    if limit in BY_SERVER:
        return "killed", BY_SERVER[limit].format(limits), None
    signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = 0 if signalled else os.WEXITSTATUS(status)
    isolated = settings.isolation is Isolation.BWRAP
    if isolated and 128 < code <= 128 + signal.NSIG:
        signalled = code - 128  # bubblewrap tells it so
    if signalled:
        reason = f"killed by {_signal_name(signalled)}"
        cpu = limits.cpu_s
        if cpu and (signalled == signal.SIGXCPU or (signalled == signal.SIGKILL and used >= cpu)):
            reason = f"CPU time limit of {cpu:g} s"
        elif signalled == signal.SIGXFSZ and limits.file_size_mb:
            reason = f"file size limit of {limits.file_size_mb} MB"
        elif isolated and cpu and signalled == signal.SIGKILL and seen.duration >= cpu:
            reason += f", as at the CPU time limit of {cpu:g} s"
        elif isolated:
            reason += f" (or exit code {code}: bubblewrap does not tell them apart)"
        return "killed", reason, 128 + signalled
    if code:
        return "error", f"exit code {code}{_hint(seen.stderr, settings)}", code
    return "ok", "", 0


def _hint(stderr: str, settings: Settings) -> str:
    last = stderr.rstrip().rpartition("\n")[2]
    for text, name in SAID:
        value = getattr(settings.limits, name)
        if text in last and value:
            return f" ({text}; {name} = {value})"
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
