"""Who may read the database and its copies: programs and results are nobody else's to see.

The law: other accounts never, whatever the umask. The group only in a folder that is open to its
group and to nobody else, as that of the service is (docs/operations.md, "systemd"). What is there
already is closed, never opened.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

log = logging.getLogger("hwsync.coordinator")

OWN: Final = 0o600
GROUP: Final = 0o640
OTHERS: Final = 0o007
BY_GROUP: Final = 0o050  # of a folder: its group may list and enter it


def mode_in(folder: Path) -> int:
    """The mode of a file in that folder. Raises ``OSError``."""
    mode = folder.stat().st_mode
    return GROUP if mode & BY_GROUP == BY_GROUP and not mode & OTHERS else OWN


def make(file: Path) -> None:
    """An empty one where there is none: SQLite goes on with it, and its log gets the same mode.

    Raises ``OSError``.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWN)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, mode_in(file.parent))
    finally:
        os.close(descriptor)


def close_to_others(files: Iterable[Path]) -> None:
    """Those that an earlier version, or somebody's umask, left open; it is said in the log.

    Only regular files: a folder without its x is of no use any more, and a link's target is not
    ours. For the database itself before SQLite opens it: to close a file ends SQLite's locks on it.
    """
    closed = []
    for file in sorted(files):
        try:
            if _close_to_others(file):
                closed.append(file.name)
        except OSError as error:
            log.warning("%s may be open to other accounts: %s; its owner closes it with chmod o=",
                        file, error.strerror)  # fmt: skip
    if closed:
        log.warning("were open to other accounts, and are no more: %s", ", ".join(closed))


def _close_to_others(file: Path) -> bool:
    """Whether anything had to be changed. Raises ``OSError``."""
    mask = mode_in(file.parent)
    found = file.lstat().st_mode
    if not stat.S_ISREG(found) or not stat.S_IMODE(found) & ~mask:
        return False
    # By descriptor: what has that name may be a link by now, or a pipe.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(found):
            return False
        os.fchmod(descriptor, stat.S_IMODE(found) & mask)
    finally:
        os.close(descriptor)
    return True


def as_before(new: Path, path: Path) -> None:
    """Owner and mode of a file are those of the database ``path``, for which or beside which it is.

    Without a database root's file belongs to whom the folder belongs: what root restores, a
    service must be able to write. Raises ``OSError``.
    """
    there = path.exists()
    before = (path if there else path.parent).stat()
    if os.geteuid() == 0:
        os.chown(new, before.st_uid, before.st_gid)
    if there:
        new.chmod(stat.S_IMODE(before.st_mode) & ~OTHERS)
