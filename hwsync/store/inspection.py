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
from typing import Final

from hwsync.protocol.errors import DatabaseError
from hwsync.store.migrations import APPLICATION_ID, SCHEMA
from hwsync.store.reader import open_to_read

FAULTS: Final = 3  # lines of quick_check that are looked at; one is enough to worry


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
    """Look at a database; None: there is none.

    Raises ``DatabaseError``; ``PermissionError`` where this account may not read it.
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
            lines = database.execute(f"PRAGMA quick_check({FAULTS})").fetchall()
    except sqlite3.Error as error:
        raise DatabaseError(
            f"{path} cannot be read: {error}",
            "is it this account's? a damaged one: hwsync check-db, hwsync restore",
        ) from None
    if owner != APPLICATION_ID:
        raise DatabaseError(f"{path} is no database of hwsync", "name the right one with --db")
    return Inspection(schema, size, tuple(line for (line,) in lines if line != "ok"))
