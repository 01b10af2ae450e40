"""The file opened by those who only read: beside the coordinator, or without one.

The law: nothing is written, also no file beside it, where that can be helped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from hwsync.protocol.errors import DatabaseError
from hwsync.store import statements
from hwsync.store.migrations import APPLICATION_ID, SCHEMA


def open_to_read(path: Path, *, for_long: bool = False) -> tuple[sqlite3.Connection, int, int]:
    """(connection, application id, schema) of the file at an absolute path.

    Without a -wal file nobody writes: a reader that may not make one reads the file as it is,
    unless it reads ``for_long`` and a writer may come meanwhile. Raises ``sqlite3.Error``.
    """
    used = for_long or path.with_name(path.name + "-wal").exists()
    mode = "mode=ro" if used else "immutable=1"
    connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True)
    try:
        (owner,) = connection.execute(statements.OWNER).fetchone()
        (schema,) = connection.execute(statements.VERSION).fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection, owner, schema


class OpenFile:
    """A database of this schema, opened to be read by one thread; a context manager.

    Raises ``DatabaseError`` where it cannot be read, or is of another schema.
    """

    def __init__(self, path: Path, *, for_long: bool = False) -> None:
        """``path``: an absolute one; ``for_long``: as in ``open_to_read``."""
        self._path = path
        with self._reading():
            self._connection, owner, version = open_to_read(path, for_long=for_long)
        if owner != APPLICATION_ID or version != SCHEMA:
            self.close()
            raise DatabaseError(
                f"{path} is no database of this hwsync (schema {version}, expected {SCHEMA})",
                "start the coordinator once to bring an older one up to date",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def _reading(self) -> Generator[None]:
        """What SQLite raises comes out as ``DatabaseError``."""
        try:
            yield
        except sqlite3.Error as error:
            raise DatabaseError(
                f"cannot read the database {self._path}: {error}",
                "is it damaged, or not readable for this account?",
            ) from None


def look_for(path: Path, hint: str) -> None:
    """Raises ``DatabaseError``: there is none (what to do then: ``hint``), or it is hidden."""
    try:
        there = path.is_file()
    except PermissionError:
        raise DatabaseError(
            f"{path} is not readable for this account",
            "as root: sudo hwsync …; or join the group of its folder",
        ) from None
    if not there:
        raise DatabaseError(f"there is no database {path}", hint)


def opened(path: Path) -> sqlite3.Connection:
    """A database of this hwsync or an earlier one, to be read as a whole; the caller closes it.

    Raises ``DatabaseError`` where there is none, or it is none of hwsync's.
    """
    path = path.resolve()
    look_for(path, "name it with --db")
    try:
        connection, owner, version = open_to_read(path, for_long=True)
    except sqlite3.Error as error:
        raise DatabaseError(f"cannot read the database {path}: {error}", "is it damaged?") from None
    if owner != APPLICATION_ID or not 1 <= version <= SCHEMA:
        connection.close()
        raise DatabaseError(f"{path} is no database of this hwsync (schema {version})")
    return connection
