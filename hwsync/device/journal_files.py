"""The files around a journal's database: its lock, its mark, and what was set aside.

The mark says how many changes the journal has seen. It is written after each commit and never
flushed: a power cut may leave it behind, never ahead. A database that knows of fewer changes than
its mark was rolled back (SQLite passes over all that follows a damaged frame of its log, and says
nothing).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import zlib
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import JournalError, JournalUnavailable

log = logging.getLogger("hwsync.device")

KEEP_ASIDE: Final = 3  # sets of files of each kind; older ones are removed
DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})  # may heal
LOG: Final = ("-wal", "-shm")  # SQLite's own files, named like the database


class JournalFiles:
    """Those of one folder, which are this process's until ``close``.

    Raises ``JournalUnavailable`` where the disk refuses, ``JournalError`` where another process
    has the folder or it cannot be used at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "journal.db"
        self._mark = folder / "journal.mark"
        self._mark_fails = False
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            kind = JournalUnavailable if error.errno in DISK else JournalError
            raise kind(f"{folder} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise JournalError(
                f"another hwsync-device uses {folder}", "stop it, or take another --state-dir"
            ) from None

    def close(self) -> None:
        """Let another process have them."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def mark(self) -> tuple[str, int] | None:
        """The journal's name and its changes, or None where no whole mark is there."""
        try:
            name, changes, checksum = self._mark.read_text(encoding="ascii").split()
            whole = int(checksum) == _checksum(name, int(changes))
        except (OSError, ValueError):
            return None
        return (name, int(changes)) if whole else None

    def set_mark(self, name: str, changes: int) -> None:
        """One write in its place, without a flush; a failure is logged and does no harm."""
        line = f"{name} {changes} {_checksum(name, changes)}"
        try:
            mark = os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(mark, f"{line:<127}\n".encode("ascii"), 0)
            finally:
                os.close(mark)
        except OSError as error:
            if not self._mark_fails:
                log.warning("%s cannot be written: %s", self._mark, error.strerror)
            self._mark_fails = True
        else:
            self._mark_fails = False

    def set_aside(self, kind: str) -> Path:
        """Move the database, its log and the mark away together; where the database is then.

        The mark goes last: where a crash comes between, the next opening finds the rest of it.
        Raises ``JournalUnavailable``.
        """
        aside = self.folder / f"journal-{kind}-{secrets.token_hex(4)}.db"
        moves = [(Path(f"{self.database}{end}"), Path(f"{aside}{end}")) for end in (*LOG, "")]
        moves.append((self._mark, aside.with_suffix(".mark")))
        try:
            for old, new in moves:
                if old.exists():
                    old.rename(new)
            self._forget_old(kind)
            folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise JournalUnavailable(
                f"the journal {self.database} cannot be set aside: {error.strerror}"
            ) from None
        return aside

    def _forget_old(self, kind: str) -> None:
        """By the time of the change of name (ctime): the content may be as old as it likes."""
        times: dict[str, float] = {}
        files = list(self.folder.glob(f"journal-{kind}-*"))
        for file in files:
            stem = file.name.partition(".")[0]
            times[stem] = max(times.get(stem, 0.0), file.stat().st_ctime)
        keep = sorted(times, key=times.__getitem__)[-KEEP_ASIDE:]
        for file in files:
            if file.name.partition(".")[0] not in keep:
                file.unlink()


def _checksum(name: str, changes: int) -> int:
    return zlib.crc32(f"{name} {changes}".encode())
