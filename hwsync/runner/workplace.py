"""The folder in which programs run, before a run and after it.

The law: one run at a time has it. One that is emptied is as new for each run. In one that is kept
only the program's own file is removed, which is known by its second name (``execute.load``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.protocol.limits import is_name
from hwsync.runner.folder import Folder, account_of
from hwsync.runner.settings import MEGABYTE, Settings

MARK: Final = ".hwsync-"  # begins the second name of a program's file


class Workplace:
    """One folder. ``refusal``: why nothing can run in it, as far as is known; else empty."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.directory
        self._place: Folder | None = None  # once its account is known
        self._lock: int | None = None  # a descriptor of the folder, while a run has it
        self.refusal = ""

    def prepare(self) -> None:
        """Before a run. Raises ``CannotRun``."""
        self._heed(self._prepare)

    def clean_up(self) -> None:
        """After a run: what it left. Raises ``CannotRun``."""
        try:
            self._heed(self._tidy)
        finally:
            self.release()

    def look_again(self) -> None:
        """Whether what was in the way is gone: then nothing is refused any more. Quick."""
        if self.refusal:
            with contextlib.suppress(CannotRun), self._folder().opened() as folder:
                if not (self._settings.empty_directory and os.listdir(folder)):
                    self._look_at_disk()
                    self.refusal = ""

    def _heed(self, work: Callable[[], None]) -> None:
        try:
            work()
        except CannotRun as error:
            self.refusal = error.message
            raise
        self.refusal = ""

    def _prepare(self) -> None:
        self.release()
        try:
            self._tidy(self._take)
            self._look_at_disk()
        except BaseException:
            self.release()
            raise

    def _tidy(self, first: Callable[[int], None] = lambda folder: None) -> None:
        """Remove what a run left, after ``first`` was done with the folder's descriptor."""
        place = self._folder()
        if place.emptied:
            place.make()
        elif not self._path.is_dir():
            return  # ``Launcher`` says so
        with place.opened() as folder:
            first(folder)
            if place.emptied:
                place.empty(folder)
            else:
                _remove_programs(place, folder)

    def _folder(self) -> Folder:
        if self._place is None:
            account = account_of(self._settings.run_as)
            self._place = Folder(self._path, account, emptied=self._settings.empty_directory)
        return self._place

    def _take(self, folder: int) -> None:
        """Two boards in one folder would remove each other's files."""
        self._lock = os.dup(folder)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(
                f"another board runs a program in {self._path}",
                "give each board a folder of its own (programs.directory)",
            ) from None
        except OSError:
            pass  # a file system without locks

    def release(self) -> None:
        """Let another board have it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _look_at_disk(self) -> None:
        free = self._settings.limits.free_disk_mb
        if free and self._path.is_dir():
            left = shutil.disk_usage(self._path).free
            if left < free * MEGABYTE:
                raise CannotRun(
                    f"only {left // MEGABYTE} MB are free in {self._path}, {free} must be",
                    "make space, or lower free_disk_mb",
                )


def _remove_programs(place: Folder, folder: int) -> None:
    """Files of programs in a folder that is kept: those that have a second name, and are no others.

    Nobody else's file goes, whatever names an account gives it, and no file that a person has put
    in the place of the program's.
    """
    for mark in os.listdir(folder):
        name = mark.removeprefix(MARK)
        if mark == name or not is_name(name):
            continue
        known = _stat(folder, mark)
        if known is None or known.st_uid != place.uid:
            continue
        found = _stat(folder, name)
        if found is not None and stat.S_ISREG(found.st_mode) and os.path.samestat(found, known):
            place.remove(folder, [name])
        place.remove(folder, [mark])


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except OSError:
        return None
