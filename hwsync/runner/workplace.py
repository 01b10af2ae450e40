"""The folder in which programs run: made, looked at, emptied, and left as it was.

The law: whatever a program can do to its folder, hwsync is not led out of it. The folder is opened
once by its own name, never through a link, and belongs to the programs' account; what is removed is
removed below that descriptor. Where root empties a folder for another account, that account may
write none of the folders above, so that it cannot put another in its place. In a folder that is
kept only the program's own file is removed, which has a mark beside it (``execute.load``).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.protocol.limits import is_name
from hwsync.runner.launcher import MARK, MEGABYTE, account_of
from hwsync.runner.settings import Settings

EMPTYING_LIMIT_S: Final = 60.0  # for what a program left in its folder
AT_ONCE: Final = 1000  # names in one command: a command line has an end
REMEDY: Final = "name another with programs.directory, or leave the key out"
COMPLAINT: Final = re.compile(r"rm: [^']*'(?:\./)?(.*)': (.*)")


class Workplace:
    """One folder. ``refusal``: why nothing can run in it, as far as is known; else empty."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.directory
        self._device: int | None = None  # as it was when it was first opened
        self.refusal = ""

    def prepare(self) -> None:
        """Before a run. Raises ``CannotRun``."""
        self._heed(self._prepare)

    def clean_up(self) -> None:
        """After a run: what it left. Raises ``CannotRun``."""
        self._heed(self._as_new if self._settings.empty_directory else self._remove_program)

    def look_again(self) -> None:
        """Whether what was in the way is gone: then nothing is refused any more.

        Quick, and changes nothing in the folder.
        """
        if self.refusal:
            with contextlib.suppress(CannotRun), self._opened() as folder:
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
        if self._settings.empty_directory:
            self._as_new()
        elif self._path.is_dir():
            self._remove_program()
        self._look_at_disk()

    def _look_at_disk(self) -> None:
        free = self._settings.limits.free_disk_mb
        if free and self._path.is_dir():
            left = shutil.disk_usage(self._path).free
            if left < free * MEGABYTE:
                raise CannotRun(
                    f"only {left // MEGABYTE} MB are free in {self._path}, {free} must be",
                    "make space, or lower free_disk_mb",
                )

    def _as_new(self) -> None:
        account = account_of(self._settings.run_as)
        if account is not None:
            refuse_writable_parents(self._path, account)
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotRun(f"{self._path} cannot be made: {error.strerror}", REMEDY) from error
        with self._opened() as folder:
            self._empty(folder)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the folder itself. Raises ``CannotRun`` where it is not what it was.

        One that is emptied is made the account's, and open to it.
        """
        account = account_of(self._settings.run_as)
        if account is not None and self._settings.empty_directory:
            refuse_writable_parents(self._path, account)
        try:
            # Without a right to read it, which a program may have taken away.
            place = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            why = "it is a link" if self._path.is_symlink() else error.strerror
            raise CannotRun(f"{self._path} cannot be used: {why}", REMEDY) from error
        try:
            self._check(os.fstat(place), account)
            itself = f"/proc/self/fd/{place}"  # of this folder, whatever has its name by now
            try:
                if self._settings.empty_directory:
                    if account is not None:
                        os.chown(itself, account.pw_uid, account.pw_gid)
                    os.chmod(itself, 0o700)
                folder = os.open(itself, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise CannotRun(f"{self._path} cannot be used: {error.strerror}", REMEDY) from error
        finally:
            os.close(place)
        try:
            yield folder
        finally:
            os.close(folder)

    def _check(self, found: os.stat_result, account: pwd.struct_passwd | None) -> None:
        owners = {os.geteuid()} if account is None else {os.geteuid(), account.pw_uid}
        if self._settings.empty_directory and found.st_uid not in owners:
            raise CannotRun(
                f"{self._path} belongs to {_owner(found.st_uid)}, so it is not emptied", REMEDY
            )
        if self._device not in (None, found.st_dev):
            raise CannotRun(f"{self._path} is on another device than it was", REMEDY)
        self._device = found.st_dev

    def _empty(self, folder: int) -> None:
        """Remove what is in it, deep or locked. Raises ``CannotRun`` with what cannot be."""
        said = ""
        for unlock in (False, True):
            names = [f"./{name}" for name in os.listdir(folder) if not _is_gone(folder, name)]
            if not names:
                return
            if unlock:
                self._command(folder, ["chmod", "-R", "u+rwX", "."], as_account=True)
            for at in range(0, len(names), AT_ONCE):
                some = names[at : at + AT_ONCE]
                said = self._command(folder, ["rm", "-rf", "--one-file-system", "--", *some])
        left = os.listdir(folder)
        if left:
            match = COMPLAINT.search(said)
            path, why = (match[1], match[2]) if match else (left[0], "it stays")
            raise CannotRun(
                f"{self._path} cannot be emptied: {path}: {why}",
                "remove it by hand; then programs run again",
            )

    def _command(self, folder: int, command: list[str], *, as_account: bool = False) -> str:
        """What it says on standard error; it runs in the folder."""
        account = account_of(self._settings.run_as) if as_account else None
        try:
            done = subprocess.run(
                command,
                cwd=f"/proc/self/fd/{folder}",
                pass_fds=(folder,),
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=EMPTYING_LIMIT_S,
                check=False,
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=account and [],
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"rm: '{command[-1]}': {error}"
        return done.stderr.decode("utf-8", "replace")

    def _remove_program(self) -> None:
        """In a folder that is kept: the files of programs, which have a mark."""
        with self._opened() as folder:
            for mark in os.listdir(folder):
                name = mark.removeprefix(MARK)
                if mark == name or not is_name(name):
                    continue
                for path in (name, mark):  # in this order: a crash between leaves the mark
                    with contextlib.suppress(OSError):
                        if stat.S_ISREG(os.lstat(path, dir_fd=folder).st_mode):
                            os.unlink(path, dir_fd=folder)


def _is_gone(folder: int, name: str) -> bool:
    """Whether this was a file, and could be removed: most runs leave no more than their own."""
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    return True


def refuse_writable_parents(folder: Path, account: pwd.struct_passwd) -> None:
    """Raises ``CannotRun`` where ``account`` can put something else in the folder's place."""
    groups = set(os.getgrouplist(account.pw_name, account.pw_gid))
    for path in dict.fromkeys((folder, folder.resolve())):
        theirs = True  # the folder itself is made the account's
        for above in path.parents:
            if not os.path.lexists(above):
                continue
            found = os.lstat(above)
            owned = found.st_uid == account.pw_uid
            open_to_it = found.st_mode & 0o002 or (found.st_mode & 0o020 and found.st_gid in groups)
            if found.st_mode & stat.S_ISVTX:  # there only an owner renames or removes
                open_to_it = open_to_it and theirs
            if owned or (open_to_it and not stat.S_ISLNK(found.st_mode)):
                raise CannotRun(
                    f"{account.pw_name} may write {above}: a program could put another folder "
                    f"in the place of {folder}, which is emptied as root",
                    f"{REMEDY}, or set programs.empty_directory = false",
                )
            theirs = False


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"account {uid}"
