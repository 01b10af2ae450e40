"""The database seen from outside by ``hwsync doctor``: quickly, and while it may be in use.

The law: nothing is written, and what is wrong is said by ``DatabaseError`` or named.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from hwsync.protocol.errors import DatabaseError
from hwsync.store import statements
from hwsync.store.migrations import APPLICATION_ID, SCHEMA
from hwsync.store.read_only import open_to_read


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found: schema, size in bytes (with the write-ahead log), and what is damaged."""

    schema: int
    size: int
    faults: tuple[str, ...]

    @property
    def age(self) -> int:
        """Below 0: an older hwsync wrote it; above: a newer one."""
        return self.schema - SCHEMA


def inspect(path: Path) -> Inspection | None:
    """Look at the database at a path, also of another schema; None: there is none.

    Raises ``DatabaseError`` where it cannot be read or is another program's; ``PermissionError``
    where this account may not read it.
    """
    path = path.resolve()
    log = path.with_name(path.name + "-wal")
    try:
        size = path.stat().st_size
        with contextlib.suppress(FileNotFoundError):
            size += log.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, "not readable for this account", str(path))
    try:
        database, owner, schema = open_to_read(path)
        with contextlib.closing(database):
            lines = database.execute(statements.SOME_FAULTS).fetchall()
    except sqlite3.Error as error:
        raise DatabaseError(
            f"{path} cannot be read: {error}",
            "is it this account's? a damaged one: hwsync check-db, hwsync restore",
        ) from None
    if owner != APPLICATION_ID:
        raise DatabaseError(f"{path} is no database of hwsync", "name the right one with --db")
    return Inspection(schema, size, tuple(line for (line,) in lines if line != "ok"))
