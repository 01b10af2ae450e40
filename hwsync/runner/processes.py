"""Which processes a session still has, from /proc, and the end of all of them.

A session is known by its number and its leader's start time: numbers are used again, the pair is
not before the next boot. Everything that stayed in the session is ended, whatever process groups
it made. Not in reach: a process that called ``setsid`` itself (it left the session), and one of
another user; the fork server holds those (``server.py``). What could not be ended is logged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import CannotRun

# A process that survives SIGKILL for longer hangs in the kernel. It counts from the last look that
# found somebody new: beside a fork bomb in sessions of its own, of which each has as much of the
# processor as we, one look was seen to take 55 s, and to give up leaves the bomb for ever.
KILL_LIMIT_S: Final = 5.0
SWEEP_LIMIT_S: Final = 300.0  # for all looks together
FIRST_PAUSE_S: Final = 0.001  # between two looks; doubles
LONGEST_PAUSE_S: Final = 0.05
PROC: Final = Path("/proc")
SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h

log = logging.getLogger("hwsync.runner")


@dataclass(frozen=True, slots=True)
class Group:
    """The session in which a program runs: what a later life needs to end its leftovers."""

    session: int  # session id == first process group == pid of the program
    start_time: int  # of the program, in clock ticks since boot (/proc/PID/stat, field 22)
    boot_id: str  # the kernel's, new at each boot


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc/PID/stat says of one process."""

    pid: int
    parent: int
    state: str
    group: int
    session: int
    threads: int
    start_time: int  # clock ticks since boot

    @property
    def alive(self) -> bool:
        """False for a zombie. A dead main thread with others still running is no zombie."""
        return self.state not in "ZX" or self.threads > 1


def require_linux() -> None:
    """Raises ``CannotRun`` where there is no /proc to read sessions from."""
    if not sys.platform.startswith("linux") or not (PROC / "self" / "stat").exists():
        raise CannotRun(
            "programs run on Linux with /proc mounted only: without it a program's processes "
            "cannot be ended with it",
            "run hwsync-device on a Linux board",
        )


def boot_id() -> str:
    """The kernel's id of this boot. Raises ``CannotRun`` where there is none."""
    require_linux()
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError as error:
        raise CannotRun(f"the kernel's boot id cannot be read: {error}") from error


def read_process(pid: int) -> Process | None:
    """One process, or None where it is gone (or hidden from this user)."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:
            line = file.read()
    except OSError:
        return None
    # The command's name is in parentheses and may itself hold blanks and parentheses.
    fields = line[line.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        state=fields[0].decode("ascii"),
        group=int(fields[2]),
        session=int(fields[3]),
        threads=int(fields[17]),
        start_time=int(fields[19]),
    )


def _everybody() -> list[Process]:
    found = [read_process(int(name)) for name in os.listdir(PROC) if name.isdecimal()]
    return [process for process in found if process is not None]


def members(session: int, start_time: int) -> list[Process]:
    """Who lives in that session and began no earlier than its leader; none if it is another's."""
    found = []
    for process in _everybody():
        if process.pid == session and process.start_time != start_time:
            return []  # the number was used again: a stranger leads a session of that number
        if process.session == session and process.start_time >= start_time and process.alive:
            found.append(process)
    return found


def end_session(session: int, start_time: int, limit: float = KILL_LIMIT_S) -> int:
    """SIGKILL to everything in the session until nothing of it lives; returns how many there were.

    A process group is killed as a whole, so that none of it slips away by forking; a program that
    makes new groups meanwhile is met by the next look. Waits at most ``limit`` seconds from the
    last look that found somebody new, then logs what would not end.
    """
    began = time.monotonic()
    deadline = began + limit
    pause = FIRST_PAUSE_S
    ended: set[tuple[int, int]] = set()
    empty_looks = 0
    while True:
        alive = members(session, start_time)
        if not alive:
            empty_looks += 1
            # One look at /proc is no snapshot: where there was somebody, a second one must agree.
            if not ended or empty_looks == 2:
                return len(ended)
            continue
        empty_looks = 0
        found = {(process.pid, process.start_time) for process in alive}
        if found - ended:
            deadline = min(time.monotonic() + limit, began + SWEEP_LIMIT_S)
        if time.monotonic() >= deadline:
            pids = ", ".join(str(process.pid) for process in alive)
            log.error("session %d: still alive after SIGKILL and %g s: %s", session, limit, pids)
            return len(ended)
        for group in {process.group for process in alive}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        ended |= found
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)


def keep_orphans() -> None:
    """Become the parent of whatever below this process loses its own (a subreaper)."""
    import _ctypes  # ctypes itself would be half a megabyte, for one call

    itself = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]
    prctl = _ctypes.dlsym(itself, "prctl")
    if _ctypes.call_function(prctl, (SET_CHILD_SUBREAPER, 1, 0, 0, 0)):
        log.warning("processes that escape from a program cannot be kept")


def end_orphans(ours: set[int]) -> None:
    """End everything below this process but ``ours`` and what is below those, and collect it.

    What is stopped cannot fork: first nobody moves, then all are ended (as in ``server.py``). What
    is left when the limits are over is logged.
    """
    began = time.monotonic()
    deadline = began + KILL_LIMIT_S
    pause = FIRST_PAUSE_S
    stopped: set[int] = set()
    while True:
        found = _below(ours)
        while new := found - stopped:
            _send(signal.SIGSTOP, new)
            stopped |= new
            found = _below(ours)
            deadline = min(time.monotonic() + KILL_LIMIT_S, began + SWEEP_LIMIT_S)
        _send(signal.SIGKILL, found)
        for pid in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not found:
            return
        if time.monotonic() >= deadline:
            log.error("%d processes that a program left live on after SIGKILL", len(found))
            return
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)


def _below(but: set[int]) -> set[int]:
    """Every process under this one, zombies too, but those named and what is under them."""
    children: dict[int, list[int]] = {}
    for process in _everybody():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        new = set(children.get(waiting.pop(), [])) - but - found
        found |= new
        waiting += new
    return found


def _send(number: int, pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):  # it is gone, or another account's
            os.kill(pid, number)


def end_group(group: Group) -> int:
    """End what an earlier life of the daemon left running (docs/protocol.md, section 5, point 6).

    Does nothing when the machine was booted since, or when the session's number belongs to somebody
    else by now. Returns how many processes were ended; blocks until they are gone. What survives
    SIGKILL for ``KILL_LIMIT_S`` is logged, and left. Raises ``CannotRun`` on anything but Linux.
    """
    if boot_id() != group.boot_id:
        return 0
    return end_session(group.session, group.start_time)
