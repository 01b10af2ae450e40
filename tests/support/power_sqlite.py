"""Python's sqlite3 on a recorded disk, so that the real store and the real journal run there.

Python's own SQLite cannot be given a VFS from Python. While a disk is ``mounted``,
``sqlite3.connect`` therefore opens apsw's SQLite, another copy of the library and a newer one; what
reads the images afterwards is the real one again. The statements are the callers', their pragmas
too, but for ``synchronous`` where a test wants to see what it is good for.

Only what the store, peewee and the journal use is here, in autocommit mode (isolation_level None).
No other connection may open the files meanwhile: two copies of the library in one process do not
see each other's locks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import apsw

from tests.support.power import Disk

CHECKPOINT_PAGES: Final = 24
"""Instead of 1,000, so that a short recording has checkpoints and begins its log again."""

Content = dict[str, list[tuple[Any, ...]]]

EMPTY: Final[Content] = {"schema": [], "user_version": [(0,)], "application_id": [(0,)]}


@dataclass(frozen=True, slots=True)
class Commit:
    """What the database held once a statement outside a transaction, or a COMMIT, returned."""

    at: int  # operations of the disk until then
    content: Content


def content(execute: Callable[[str], Any]) -> Content:
    """Everything that can be read in a database, by its tables."""
    found: Content = {"schema": list(execute("SELECT type, name, sql FROM sqlite_master"))}
    for name in ("user_version", "application_id"):
        found[name] = list(execute(f"PRAGMA {name}"))
    for kind, name, sql in found["schema"]:
        if kind == "table" and not name.startswith("sqlite_"):
            order = "" if sql.endswith("WITHOUT ROWID") else " ORDER BY rowid"  # else its key's
            found[name] = list(execute(f'SELECT * FROM "{name}"{order}'))
    return found


def content_of(path: Path) -> Content:
    """The same of a file, which is made where it is missing; read by Python's own SQLite."""
    with closing(sqlite3.connect(path)) as connection:
        return content(connection.execute)


def torn(path: Path, commits: Sequence[Commit], cut: int) -> Iterator[str]:
    """Where anything but whole commits is there: all that returned, and perhaps the next one."""
    returned = sum(commit.at <= cut for commit in commits)
    allowed = [commit.content for commit in commits[max(returned - 1, 0) : returned + 1]]
    allowed += [EMPTY] if returned == 0 else []
    try:
        if content_of(path) not in allowed:
            yield f"{returned} commits had returned: the file holds neither that nor one more"
    except sqlite3.Error as error:
        yield f"cannot be read: {error}"


@contextmanager
def mounted(disk: Disk, *, synchronous: str | None = None) -> Iterator[list[Commit]]:
    """``sqlite3.connect`` opens files on that disk; what was committed, in order.

    ``synchronous`` takes the place of whatever the callers set.
    """
    commits: list[Commit] = []

    def connect(path: str | Path, **_: object) -> _Connection:
        return _Connection(disk, str(path), commits, synchronous)

    with disk, patch.object(sqlite3, "connect", connect):
        yield commits


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.ConstraintError) as error:
        raise sqlite3.DatabaseError(str(error)) from error
    except apsw.Error as error:
        raise sqlite3.OperationalError(str(error)) from error


class _Connection:
    def __init__(
        self, disk: Disk, path: str, commits: list[Commit], synchronous: str | None
    ) -> None:
        with _translated():
            self.real = apsw.Connection(path, vfs=disk.NAME)
            self.real.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self._disk, self._commits, self._synchronous = disk, commits, synchronous
        self._noted = disk.count

    @property
    def in_transaction(self) -> bool:
        return self.real.in_transaction

    def cursor(self, *_: object) -> _Cursor:
        return _Cursor(self)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> _Cursor:
        return self.cursor().execute(sql, values)

    executescript = execute

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        for values in rows:
            self.execute(sql, values)

    def create_function(self, name: str, count: int, function: Any, **_: object) -> None:
        self.real.create_scalar_function(name, function, count)

    def close(self) -> None:
        with _translated():
            self.real.close()

    def instead_of(self, sql: str) -> str:
        if self._synchronous and sql.lower().startswith("pragma synchronous"):
            return f"PRAGMA synchronous = {self._synchronous}"
        return sql

    def note(self) -> None:
        """Keep what is committed, where something was written since it was kept last."""
        if self._disk.count > self._noted and not self.in_transaction:
            self._noted = self._disk.count
            self._commits.append(Commit(self._noted, content(self.real.execute)))


class _Cursor:
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._real = connection.real.cursor()
        self.description: tuple[Any, ...] | None = None

    def _begins(self, cursor: apsw.Cursor, *_: object) -> bool:
        """Before each statement: of one without rows, nobody can tell the columns later."""
        self._connection.note()
        self.description = cursor.get_description()
        return True

    def execute(self, sql: str, values: Sequence[Any] = ()) -> _Cursor:
        self._real.exec_trace = self._begins
        try:
            with _translated():
                self._real.execute(self._connection.instead_of(sql), tuple(values))
        finally:
            # Else a cursor that is let go would be in a cycle, and its statement stay open.
            self._real.exec_trace = None
        self._connection.note()
        return self

    def fetchone(self) -> Any:
        with _translated():
            return self._real.fetchone()

    def fetchall(self) -> list[Any]:
        with _translated():
            return self._real.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    @property
    def lastrowid(self) -> int:
        return self._connection.real.last_insert_rowid()

    @property
    def rowcount(self) -> int:
        return self._connection.real.changes()

    def close(self) -> None:
        self._real.close()
