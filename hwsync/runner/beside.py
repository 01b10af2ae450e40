"""A folder for programs that may not write where they run: their file stands there then.

The law: it is made below a folder that only we may change, so that no program can put another in
its place; it is emptied after each run, and what dead daemons left is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.runner.folder import EMPTYING_LIMIT_S, Account, Folder

PREFIX: Final = "hwsync-program-"
NAME: Final = re.compile(rf"{PREFIX}(\d+)-.*")  # of the daemon that made it


class Beside:
    """Its construction raises ``CannotRun``."""

    def __init__(self, account: Account) -> None:
        try:
            with contextlib.suppress(OSError):
                _remove_those_of_the_dead(Path(tempfile.gettempdir()))
            self._own = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            self._own.chmod(0o711)
        except OSError as error:
            raise CannotRun(
                f"no folder can be made for programs in {tempfile.gettempdir()}: {error.strerror}",
                "set TMPDIR to one that can be written",
            ) from error
        self.path = self._own / "program"
        self._folder = Folder(self.path, account)
        self._folder.make_empty()

    def make_empty(self) -> None:
        """After a run. Raises ``CannotRun``."""
        self._folder.make_empty()

    def remove(self) -> None:
        """With all that is in it."""
        with contextlib.suppress(CannotRun):
            self._folder.make_empty()
        _remove(self._own)


def _remove_those_of_the_dead(folder: Path) -> None:
    for name in os.listdir(folder):
        match = NAME.fullmatch(name)
        path = folder / name
        if match and not Path(f"/proc/{match[1]}").exists() and path.lstat().st_uid == os.geteuid():
            _remove(path)


def _remove(own: Path) -> None:
    """Not by shutil, which fails on deep trees. What stays goes when we are dead."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["rm", "-rf", "--one-file-system", "--", str(own)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=EMPTYING_LIMIT_S,
            check=False,
        )
