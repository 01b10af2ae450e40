"""One folder of the programs' account, opened so that no program leads hwsync elsewhere.

The law: a folder is opened once by its own name, never through a link where it is emptied, and
belongs to the programs' account; what is removed is removed below that descriptor. Where root
empties a folder for another account, that account may write none of the folders above, so that it
cannot put another in its place.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import CannotRun

EMPTYING_LIMIT_S: Final = 60.0  # for what a program left
AT_ONCE: Final = 1000  # names in one command: a command line has an end
REMEDY: Final = "name another with programs.directory, or leave the key out"
COMPLAINT: Final = re.compile(r"rm: [^']*'(?:\./)?(.*)': (.*)")

Account = pwd.struct_passwd | None
"""That of the programs; None: our own."""


def account_of(name: str | None) -> pwd.struct_passwd | None:
    """The account of the programs. Raises ``CannotRun``."""
    if name is None:
        return None
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise CannotRun(
            f"there is no account {name} (run_as)", f"make it: useradd -r {name}"
        ) from None
    if os.geteuid() != 0:
        if account.pw_uid == os.geteuid():
            return None
        raise CannotRun(f"only root can run programs as {name} (run_as)", "start it as root")
    return account


class Folder:
    """``emptied``: it is the programs' alone, and as new for each run; else it is only opened."""

    def __init__(self, path: Path, account: Account, *, emptied: bool = True) -> None:
        self.path, self.account, self.emptied = path, account, emptied
        self.uid = os.geteuid() if account is None else account.pw_uid
        self._device: int | None = None  # as it was when it was first opened

    def make_empty(self) -> None:
        """Make it where it is not there, and ``empty`` it."""
        self.make()
        with self.opened() as folder:
            self.empty(folder)

    def make(self) -> None:
        """Make it where it is not there. Raises ``CannotRun``."""
        self._refuse_replaceable()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotRun(f"{self.path} cannot be made: {error.strerror}", REMEDY) from error

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the folder itself. Raises ``CannotRun`` where it is not what it was.

        One that is emptied is made the account's, and open to it.
        """
        self._refuse_replaceable()
        no_link = os.O_NOFOLLOW if self.emptied else 0
        try:
            # Without a right to read it, which a program may have taken away.
            place = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | no_link)
        except OSError as error:
            why = "it is a link" if no_link and self.path.is_symlink() else error.strerror
            raise CannotRun(f"{self.path} cannot be used: {why}", REMEDY) from error
        try:
            self._check(os.fstat(place))
            itself = f"/proc/self/fd/{place}"  # this folder, whatever has its name by now
            try:
                if self.emptied:
                    if self.account is not None:
                        os.chown(itself, self.account.pw_uid, self.account.pw_gid)
                    os.chmod(itself, 0o700)
                folder = os.open(itself, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise CannotRun(f"{self.path} cannot be used: {error.strerror}", REMEDY) from error
        finally:
            os.close(place)
        try:
            yield folder
        finally:
            os.close(folder)

    def remove(self, folder: int, names: Sequence[str]) -> str:
        """Remove these below the descriptor, deep or locked; what the last command complained."""
        said = ""
        left = [f"./{name}" for name in names if not _is_gone(folder, name)]
        for unlock in (False, True):
            if left and unlock:
                # As the account: it has a right to its own files only.
                self._command(folder, ["chmod", "-R", "u+rwX", *left], as_account=True)
            for at in range(0, len(left), AT_ONCE):
                some = left[at : at + AT_ONCE]
                said = self._command(folder, ["rm", "-rf", "--one-file-system", "--", *some])
            here = {f"./{name}" for name in os.listdir(folder)} if left else ()
            left = [name for name in left if name in here]
        return said

    def empty(self, folder: int) -> None:
        """Remove what is in it. Raises ``CannotRun`` with the first that stays."""
        said = self.remove(folder, os.listdir(folder))
        left = os.listdir(folder)
        if left:
            match = COMPLAINT.search(said)
            path, why = (match[1], match[2]) if match else (left[0], "it stays")
            raise CannotRun(
                f"{self.path} cannot be emptied: {path}: {why}",
                "remove it by hand; then programs run again",
            )

    def _refuse_replaceable(self) -> None:
        if self.account is not None and self.emptied:
            refuse_writable_parents(self.path, self.account)

    def _check(self, found: os.stat_result) -> None:
        if self.emptied and found.st_uid not in (os.geteuid(), self.uid):
            raise CannotRun(
                f"{self.path} belongs to {_owner(found.st_uid)}, so it is not emptied", REMEDY
            )
        if self._device not in (None, found.st_dev):
            raise CannotRun(f"{self.path} is on another device than it was", REMEDY)
        self._device = found.st_dev

    def _command(self, folder: int, command: list[str], *, as_account: bool = False) -> str:
        """What it says on standard error; it runs in the folder."""
        account = self.account if as_account else None
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
