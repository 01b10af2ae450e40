"""The open file: SQLite in WAL mode, synchronous FULL, one writer, any number of readers.

The law: what is executed in one transaction is stored whole or not at all. A lock file beside the
database keeps a second coordinator out, and names the first one's process. Whatever SQLite, peewee
or the disk raise comes out as ``StoreError`` (``translated``), or as ``DatabaseError`` where the
file cannot be used at all (``usable``).
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

from peewee import PeeweeException, SqliteDatabase

from hwsync.protocol.errors import DatabaseError, StoreError
from hwsync.store import private, statements
from hwsync.store.migrations import migrate

PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": "full",  # a power cut loses nothing that was acknowledged (decisions.md, 17)
    "busy_timeout": statements.BUSY,
}
FULL: Final = "disk is full"  # says SQLite
ANOTHER: Final = "name another file with --db, or restore a backup"
MAKE_ROOM: Final = (
    "make room on its disk; nothing was changed. Of an older database a copy is made first"
)
MAX_WAL: Final = 5_242_880  # bytes; SQLite itself copies it into the database at 4 MB

_FAILURES: Final = (sqlite3.Error, PeeweeException, OSError)


@contextmanager
def translated() -> Iterator[None]:
    """What SQLite, peewee and the system raise within, as ``StoreError``."""
    try:
        yield
    except _FAILURES as error:
        raise StoreError(str(error) or type(error).__name__) from error


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """The same while the database is opened, as a ``DatabaseError`` that says what to do."""
    try:
        yield
    except _FAILURES as error:
        full = FULL in str(error) or getattr(error, "errno", None) == errno.ENOSPC
        raise DatabaseError(
            f"cannot use the database {path}: {error}", MAKE_ROOM if full else ANOTHER
        ) from None


class Database:
    """The file at a path, made or migrated where that is needed, locked until ``close``.

    Raises ``DatabaseError`` where it cannot be used: another coordinator has it, it is a newer or
    another program's, or not to be opened.
    """

    def __init__(self, path: Path) -> None:
        path = path.resolve()  # the lock and SQLite's own files stand beside the real one
        self.path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._lock = lock(path)
        self._peewee = SqliteDatabase(str(path), pragmas=PRAGMAS)
        try:
            with usable(path):
                private.make(path)
                private.close_to_others(path.parent.glob(f"{glob.escape(path.name)}*"))
                migrate(self._peewee, path)
                self.connection: sqlite3.Connection = self._peewee.connection()  # type: ignore[no-untyped-call]
        except DatabaseError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self._peewee.close()
        self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is executed within is stored together or, where it raises, not at all."""
        execute = self.connection.execute
        execute(statements.BEGIN)
        try:
            yield self.connection
            execute(statements.COMMIT)
        except BaseException:
            if self.connection.in_transaction:
                execute(statements.ROLLBACK)
            raise

    def shorten(self) -> None:
        """One large round leaves no large log behind; somebody who reads is not waited for."""
        with suppress(*_FAILURES):
            if self._wal.stat().st_size <= MAX_WAL:
                return
            self.connection.execute(statements.DO_NOT_WAIT)
            try:
                self.connection.execute(statements.EMPTY_THE_LOG).fetchall()
            finally:
                self.connection.execute(statements.WAIT)


def lock(path: Path) -> TextIO:
    """The lock file beside the database, held until it is closed. Raises ``DatabaseError``."""
    target = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        private.make(target)
        file = target.open("a+")
    except OSError as error:
        raise DatabaseError(
            f"cannot write beside the database {path}: {error.strerror}",
            "name a file in a folder that this user may write with --db",
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise DatabaseError(
            f"another coordinator (process {holder}) already uses the database {path}",
            "stop it first, or name another file with --db",
        ) from None
    if os.geteuid() == 0:
        with suppress(OSError):  # a container's root may not; then it is root's own business
            private.as_before(target, path)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
