"""What a run leaves in /dev/shm, which outlives every process.

The law: what was there before a run is never touched. What is new afterwards, and the programs'
account's, is removed where nobody else uses that account; elsewhere it may be another program's of
the same person, and is named in the log. With bubblewrap a run has a /dev/shm of its own.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from hwsync.runner.folder import Folder, account_of
from hwsync.runner.settings import Isolation, Settings

PLACE: Final = Path("/dev/shm")
DYNAMIC: Final = range(61184, 65520)  # accounts that systemd makes (DynamicUser, systemd.exec(5))
SHOWN: Final = 5  # names in one line of the log

log = logging.getLogger("hwsync.runner")

Found = dict[tuple[str, int], int]  # (name, inode) -> bytes


class SharedMemory:
    """``prepare`` before a run, ``clean_up`` after it. Both raise ``OSError``, ``CannotRun``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._before: Found = {}
        self._place: Folder | None = None  # once its account is known

    def prepare(self) -> None:
        """Before a run: note what is there."""
        self._before = self._look()

    def clean_up(self) -> None:
        """After a run: remove, or name in the log, what is there and was not."""
        new = {key: size for key, size in self._look().items() if key not in self._before}
        if not new:
            return
        names = ", ".join(sorted(name for name, _ in new)[:SHOWN])
        what = f"{sum(new.values()):,} bytes of shared memory in {len(new)} files ({names})"
        if not self._is_ours():
            log.info("while a program ran, %s came into %s and stay", what, PLACE)
            return
        place = self._folder()
        with place.opened() as folder:
            place.remove(folder, [name for name, _ in new])
        log.info("removed what a program left: %s", what)

    def _is_ours(self) -> bool:
        """Whether only this board's programs use the account; they have ended by now."""
        uid = self._folder().uid
        return uid in DYNAMIC if self._settings.run_as is None else not _has_processes(uid)

    def _folder(self) -> Folder:
        if self._place is None:
            self._place = Folder(PLACE, account_of(self._settings.run_as), emptied=False)
        return self._place

    def _look(self) -> Found:
        if self._settings.isolation is Isolation.BWRAP or not PLACE.is_dir():
            return {}
        uid, found = self._folder().uid, {}
        for entry in os.scandir(PLACE):
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if seen.st_uid == uid:
                found[entry.name, seen.st_ino] = seen.st_blocks * 512
        return found


def _has_processes(uid: int) -> bool:
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                return True
        except OSError:
            continue
    return False
