"""A folder for working folders: made anew, and what dead processes have left of theirs removed.

The law: whoever has one holds a lock on it; one of ours that nobody holds is nobody's any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "hwsync-judging-"


class OwnPlace:
    """``path`` is there until ``remove``, or until this process is gone and another one begins."""

    def __init__(self) -> None:
        above = Path(tempfile.gettempdir())
        for left in above.glob(f"{PREFIX}*"):
            lock = _locked(left)
            if lock is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
            lock = _locked(self.path)
            if lock is not None and self.path.is_dir():
                break  # else somebody took it for one that was left
        self._lock = lock

    def remove(self) -> None:
        """With everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _locked(path: Path) -> int | None:
    """A descriptor of the folder, which no other process holds; None: it is not to be had."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
    except OSError:
        pass
    os.close(lock)
    return None
