"""Files that are replaced whole, and secrets that nobody else can read, not for a moment.

What the broker reads belongs to its group, where root makes a lab for another account.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import UsageError

SECRET: Final = 0o600
FOR_BROKER: Final = 0o640
FOR_ALL: Final = 0o644
GROUPS: Final = ("hwsync-broker", "mosquitto")  # of the account that serves; the first that exists


def exists(path: Path) -> bool:
    """Whether it is there. Raises ``UsageError`` where that is not to be found out."""
    with saying(path):
        return path.exists()


def read(file: Path) -> str:
    """Its text. Raises ``UsageError``, also for what is not UTF-8."""
    with saying(file):
        return file.read_text(encoding="utf-8")


def write(file: Path, text: str, mode: int) -> None:
    """Replace the file, flushed to disk; with ``FOR_BROKER`` it belongs to the broker's group.

    Raises ``UsageError``: then the file is what it was.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}")
    with saying(file):
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET)
        try:
            with open(descriptor, "w", encoding="utf-8") as opened:
                opened.write(text)
                opened.flush()
                if mode == FOR_BROKER:
                    mode = _given_to_broker(opened.fileno(), mode)
                os.fchmod(opened.fileno(), mode)
                os.fsync(opened.fileno())
            new.replace(file)
            _flush(file.parent)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def remove(file: Path) -> None:
    """Remove it, if it is there. Raises ``UsageError``."""
    with saying(file):
        file.unlink(missing_ok=True)


def make_folder(folder: Path, mode: int, *, for_broker: bool = False) -> None:
    """Make it with that mode, or give it that mode; for a moment too it is open to nobody else.

    ``for_broker``: of the broker's group. Raises ``UsageError``.
    """
    with saying(folder):
        folder.mkdir(mode, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, _given_to_broker(descriptor, mode) if for_broker else mode)
        finally:
            os.close(descriptor)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time: waits for whoever has it. Raises ``UsageError``."""
    with saying(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def saying(path: Path) -> Iterator[None]:
    """What the disk says, ``OSError``, or what is not UTF-8 comes out as ``UsageError``."""
    try:
        yield
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8") from None
    except OSError as error:
        hint = "as root: sudo" if isinstance(error, PermissionError) else ""
        raise UsageError(f"{error.filename or path}: {error.strerror}", hint) from None


def _flush(folder: Path) -> None:
    """What was renamed in it, to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def server() -> str:
    """The account that serves a lab of root's; empty: whoever starts the broker does."""
    found = _group()
    return found.gr_name if found else ""


def closed_to_server(folder: Path) -> Path | None:
    """A folder on the way to this one through which that account cannot pass; None: there is none.

    Raises ``UsageError``.
    """
    group = _group()
    if group is None:
        return None
    with saying(folder):
        for above in (folder, *folder.parents):
            found = above.stat()
            passes = 0o011 if found.st_gid == group.gr_gid else 0o001
            if not found.st_mode & passes:
                return above
    return None


def hand_over(path: Path, mode: int) -> bool:
    """Give a file or a folder to that account's group; False: it has it. Raises ``UsageError``."""
    group = _group()
    with saying(path):
        if group is None or path.is_symlink() or path.stat().st_gid == group.gr_gid:
            return False
        os.chown(path, -1, group.gr_gid, follow_symlinks=False)
        path.chmod(mode)
    return True


def _group() -> grp.struct_group | None:
    """Of the account that serves; None: root made no lab for it.

    Anybody else serves his lab himself: his own group is everybody's on many machines.
    """
    for group in GROUPS if os.geteuid() == 0 else ():
        with contextlib.suppress(KeyError):
            return grp.getgrnam(group)
    return None


def _given_to_broker(descriptor: int, mode: int) -> int:
    """Of the broker's group from now on, where there is one; the mode for that."""
    group = _group()
    if group is None:
        return mode & ~0o077
    os.fchown(descriptor, -1, group.gr_gid)
    return mode
