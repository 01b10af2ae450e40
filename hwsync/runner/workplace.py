"""The folder in which programs run, before a run and after it.

The law: one run at a time has it. One that is emptied is as new for each run. In one that is kept
only the program's own file is removed, which is known by its second name, and what was staged
(``execute.load``).
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
from hwsync.protocol.files import Files, NotKeptFiles
from hwsync.protocol.limits import COLLECT_S, is_name
from hwsync.runner.brought import UNASKED_S, Budget, Snapshot, Wanted, bring_back
from hwsync.runner.folder import Folder, account_of
from hwsync.runner.job import Job
from hwsync.runner.settings import MEGABYTE, Settings

MARK: Final = ".hwsync-"  # begins the second name of a program's file
STAGED: Final = f"{MARK}~files"  # where files stand until they take their places; no second name


class Workplace:
    """One folder. ``refusal``: why nothing can run in it, as far as is known; else empty."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.directory
        self._place: Folder | None = None  # once its account is known
        self._lock: int | None = None  # a descriptor of the folder, while a run has it
        self._before: Snapshot | None = None  # of one that is kept
        self.refusal = ""

    def prepare(self, job: Job | None = None) -> None:
        """Before a run, of that job. Raises ``CannotRun``."""
        if job is not None and not self._settings.empty_directory:
            _refuse_marks(job)
        self._heed(self._prepare)
        if job is not None and self._lock is not None and not self._settings.empty_directory:
            self._before = Snapshot(self._lock, job.collect)

    def bring_back(self, job: Job, source: bytes, seconds: float) -> tuple[Files, NotKeptFiles]:
        """What the run leaves, looked for in ``seconds`` at most (``brought``).

        In the folder in which it began, whatever has its name by now. ``source``: of the program,
        as it was written there.
        """
        if self._lock is None:
            return (), ()
        given = {file.path: file.data for file in job.files if file.data is not None}
        passed = frozenset[str]()
        if self._settings.empty_directory:
            given[job.name] = source
            with contextlib.suppress(OSError):
                os.chmod(self._lock, 0o700)  # the program may have taken that away
        else:
            passed = _marks(self._lock)
        wanted = Wanted(job.collect, given, passed, self._folder().uid, self._before)
        most = COLLECT_S if job.collect else UNASKED_S
        return bring_back(self._lock, wanted, Budget(min(most, seconds)))

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
        self._before = None
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
        if mark == name or not (is_name(name) or mark == STAGED):
            continue
        known = _stat(folder, mark)
        if known is None or known.st_uid != place.uid:
            continue
        found = _stat(folder, name)
        if found is not None and stat.S_ISREG(found.st_mode) and os.path.samestat(found, known):
            place.remove(folder, [name])
        place.remove(folder, [mark])


def _marks(folder: int) -> frozenset[str]:
    """The names at the top of a folder that are ours: of programs' files, and their second ones."""
    ours = set[str]()
    for mark in os.listdir(folder):
        name = mark.removeprefix(MARK)
        if mark != name:
            known, found = _stat(folder, mark), _stat(folder, name)
            ours.add(mark)
            if known is not None and found is not None and os.path.samestat(known, found):
                ours.add(name)
    return frozenset(ours)


def _refuse_marks(job: Job) -> None:
    for file in job.files:
        if file.path.startswith(MARK):
            raise CannotRun(
                f"{file.path} cannot be written: names with {MARK} are hwsync's own here",
                "give it another name",
            )


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except OSError:
        return None
