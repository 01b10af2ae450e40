"""A backup put in the database's place.

The law: the database that was there is kept; the restored one is there whole, in a new epoch, or
not at all. Nothing is done to a database that a coordinator has open.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from hwsync.protocol.epochs import following
from hwsync.protocol.errors import DatabaseError, StoreError
from hwsync.protocol.record import Record, State
from hwsync.store import private, statements
from hwsync.store.api import Changes
from hwsync.store.backups import back_up, flush
from hwsync.store.checking import check
from hwsync.store.database import lock
from hwsync.store.read_only import opened
from hwsync.store.store import Store


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    epoch: int
    aside: Path | None  # where the database is that was there before
    open: int  # commands that end as lost when the coordinator starts


def restore(
    backup: Path, path: Path, *, damaged: bool = False, now: float | None = None
) -> Restored:
    """Put a backup in the database's place and raise the epoch; the present one is kept aside.

    What is open in it is lost when the coordinator starts (docs/protocol.md, section 2, "Epochs").
    Owner and mode are those of the present one; without one, what root restores is its folder's.
    ``now``: Unix seconds; None: the system's clock.

    Raises ``DatabaseError``: a coordinator has the database, the backup is none, or it is damaged
    (unless ``damaged`` allows that).
    """
    path = path.resolve()
    with contextlib.closing(lock(path)):
        found = next(check(backup), None)
        if found is not None and not damaged:
            raise DatabaseError(
                f"{backup} is not as hwsync wrote it: {found}",
                "hwsync check-db says all; --damaged restores it all the same",
            )
        now = time.time() if now is None else now
        part = path.with_name(f"{path.name}.restored")
        discard(part)
        try:
            back_up(backup, part)
            with contextlib.closing(Store(part)) as store:  # brings an older schema up to date
                epoch = following(max(_epoch(path), store.epoch(now)[0]), now)
                store.save(Changes(epoch=(epoch, now)), 0.0)
                open = sum(_open(record) for record in store.load(0.0).values())
            private.as_before(part, path)
            aside = _put_aside(path, now)
            part.replace(path)
            flush(path.parent)
        except (sqlite3.Error, OSError, StoreError) as error:
            raise DatabaseError(f"cannot restore {backup} to {path}: {error}") from None
        finally:
            discard(part)
    return Restored(epoch, aside, open)


def _open(record: Record) -> int:
    return len(record.queue) + (record.state in (State.REQUESTED, State.COLLECTED))


def _epoch(path: Path) -> int:
    """The epoch of the present database; 0 where there is none, or it cannot be read."""
    try:
        with contextlib.closing(opened(path)) as connection:
            row = connection.execute(statements.EPOCH).fetchone()
            return int(row[0]) if row else 0
    except (DatabaseError, sqlite3.Error, ValueError):
        return 0


def _put_aside(path: Path, now: float) -> Path | None:
    if not path.exists():
        return None
    aside = path.with_name(time.strftime(f"{path.name}.before-%Y%m%dT%H%M%SZ", time.gmtime(now)))
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as present:
        present.execute(statements.EMPTY_THE_LOG)  # all of it in one file
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.replace(aside.with_name(aside.name + suffix))
    return aside


def discard(path: Path) -> None:
    """Remove a database with what SQLite and hwsync keep beside it. Raises ``OSError``."""
    for suffix in ("", "-wal", "-shm", ".lock"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
