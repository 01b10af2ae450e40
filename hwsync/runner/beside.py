"""A folder for programs that may not write where they run: their file stands there then.

The law: it is made below a folder that only we may change, so that no program can put another in
its place; it is emptied after each run, and what dead daemons left is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.runner.folder import Account, Folder

PREFIX: Final = "hwsync-program-"
NAME: Final = re.compile(rf"{PREFIX}(\d+)-.*")  # of the daemon that made it


class Beside:
    """The folder of one runner, made by its construction, which raises ``CannotRun``."""

    def __init__(self, account: Account) -> None:
        self._places = Folder(Path(tempfile.gettempdir()), None, emptied=False)
        try:
            self._remove_those_of_the_dead()
            self._own = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            self._own.chmod(0o711)
        except OSError as error:
            raise CannotRun(
                f"no folder can be made for programs in {self._places.path}: {error.strerror}",
                "set TMPDIR to one that can be written",
            ) from error
        self.path = self._own / "program"
        self._folder = Folder(self.path, account)
        try:
            self._folder.make_empty()
        except CannotRun:
            self.remove()
            raise

    def make_empty(self) -> None:
        """After a run: remove what it left. Raises ``CannotRun``."""
        self._folder.make_empty()

    def remove(self) -> None:
        """With all that is in it. What stays goes when we are dead."""
        with contextlib.suppress(CannotRun), self._places.opened() as folder:
            self._places.remove(folder, [self._own.name])

    def _remove_those_of_the_dead(self) -> None:
        with contextlib.suppress(CannotRun), self._places.opened() as folder:
            self._places.remove(
                folder, [name for name in os.listdir(folder) if _is_left(folder, name)]
            )


def _is_left(folder: int, name: str) -> bool:
    """Whether it is that of a daemon of ours which has ended."""
    match = NAME.fullmatch(name)
    if match is None or os.path.exists(f"/proc/{match[1]}"):
        return False
    try:
        return os.lstat(name, dir_fd=folder).st_uid == os.geteuid()
    except OSError:
        return False
