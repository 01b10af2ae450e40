"""A cgroup for a fork server and its programs, where the machine lets us make one.

The law: a server enters its cgroup once, at its start, and whatever it forks is born there. It
leaves only where a sweep does not come to its end at once, has everything ended at one stroke, and
comes back (``server.py``). Without one (no version 2, not writable) everything works by sweeps
alone.

Why: to move a process takes 7 to 18 ms, which no run is to pay.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import time
from pathlib import Path
from typing import Final

LEAVE_LIMIT_S: Final = 1.0  # for processes that were killed to be gone; takes milliseconds
NAME: Final = re.compile(r"hwsync-programs-(\d+)-\d+")  # of the daemon that made it, and a number

log = logging.getLogger("hwsync.runner")

_numbers = itertools.count()


class Cgroup:
    """One directory of the kernel's cgroup tree (cgroups(7), version 2), below the daemon's own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls) -> Cgroup | None:
        """A new and empty one; None where that cannot be. What dead daemons left is ended."""
        own = own_cgroup()
        if own is None:
            return None
        with contextlib.suppress(OSError):
            _end_those_of_the_dead(own)
        made = cls(own / f"hwsync-programs-{os.getpid()}-{next(_numbers)}")
        try:
            made.path.mkdir()
        except OSError:
            return None
        if (made.path / "cgroup.kill").exists():  # Linux 5.14
            return made
        made.remove()
        return None

    def remove(self) -> None:
        """End everything in it, and the cgroup itself."""
        with contextlib.suppress(OSError):
            (self.path / "cgroup.kill").write_text("1", encoding="ascii")
        deadline = time.monotonic() + LEAVE_LIMIT_S
        while True:
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    log.warning("%s stays: %s", self.path, error.strerror)
                    return
                time.sleep(0.001)
            else:
                return


def own_cgroup() -> Path | None:
    """This process's directory in the tree of version 2; None where there is none, or not here."""
    try:
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            # Fields: id, parent, device, root within the tree, mount point, …, "-", type (proc(5)).
            fields = line.split()
            if fields[fields.index("-") + 1] == "cgroup2":
                root, point = fields[3], Path(fields[4])
                break
        else:
            return None
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    inside = path.removeprefix(root.rstrip("/")).lstrip("/")
    return point / inside if path.startswith(root) and (point / inside).is_dir() else None


def _end_those_of_the_dead(own: Path) -> None:
    for name in os.listdir(own):
        match = NAME.fullmatch(name)
        if match and not Path(f"/proc/{match[1]}").exists():
            log.warning("what an earlier daemon left in %s is ended", own / name)
            Cgroup(own / name).remove()
