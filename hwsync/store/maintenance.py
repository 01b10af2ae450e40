"""The database as a whole: backed up while it is used, checked, put back.

The law: a backup is whole or not there; what a check finds it names; nothing here changes a
database that a coordinator has open.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwsync.protocol.admission import digest_of
from hwsync.protocol.epochs import following
from hwsync.protocol.errors import DatabaseError, NotFound, StoreError, UsageError
from hwsync.protocol.events import ResetAsked
from hwsync.protocol.jsons import loads
from hwsync.protocol.machine import decide
from hwsync.protocol.record import WHO_ASKED, Moment, Record, Request, State, Verb
from hwsync.protocol.rules import Rules
from hwsync.store import chain, private
from hwsync.store.migrations import APPLICATION_ID, SCHEMA
from hwsync.store.reader import look_for, open_to_read
from hwsync.store.store import Batch, Store, lock

log = logging.getLogger("hwsync.coordinator")

PAGES: Final = 1_000  # copied at once: the coordinator waits no longer than for so many
KEPT: Final = 10  # backups of the schedule; the oldest is removed
FIRST_S: Final = 60.0  # after a start, where a backup is due: none interrupts a coordinator's start
EVERY_S: Final = (1.0, 2_592_000.0)
DEFAULT_EVERY_S: Final = 86_400.0
NAME: Final = "hwsync-{:06}-%Y%m%dT%H%M%SZ.db"
PATTERN: Final = re.compile(r"hwsync-(?:(\d+)-)?\d{4,}T\d{6}Z\.db", re.ASCII)

Progress = Callable[[int, int], None]  # what remains, of how much


def opened(path: Path) -> sqlite3.Connection:
    """A database of hwsync, for reading. Raises ``DatabaseError`` where it is none."""
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


def back_up(path: Path, target: Path, progress: Progress = lambda *_: None) -> None:
    """Copy the database to ``target``, which must not exist, while it may be in use.

    Raises ``DatabaseError``; then there is no target.
    """
    if target.exists():
        raise DatabaseError(f"{target} exists already", "name a new file: no backup is overwritten")
    part = target.with_name(f"{target.name}.part")
    try:
        with contextlib.closing(opened(path)) as source:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            private.make(part)
            with contextlib.closing(sqlite3.connect(part)) as copy:
                source.backup(copy, pages=PAGES, progress=lambda _, left, all: progress(left, all))
                (said,) = copy.execute("PRAGMA quick_check(1)").fetchone()
                # A copy by itself: its reader needs no log beside it.
                copy.execute("PRAGMA journal_mode = delete")
        if said != "ok":
            raise DatabaseError(f"the copy of {path} is damaged: {said}", "see hwsync check-db")
        _flush(part)
        part.rename(target)
        _flush(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise DatabaseError(f"cannot back up {path} to {target}: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget(path: Path, user: str, clear: Callable[[], None]) -> None:
    """Publish nothing of a user any more, until something new is asked; the history stays.

    ``clear`` takes away what the broker keeps; what it raises comes out of here, and nothing has
    changed then. Raises ``DatabaseError``, ``NotFound``, and ``Refused`` where the record is not at
    rest.
    """
    opened(path).close()  # a Store would make one
    with contextlib.closing(Store(path)) as store:
        record = store.load(0.0).get(user)
        if record is None:
            raise NotFound(f"{user} has never been seen", "hwsync status lists the boards")
        decision = decide(record, ResetAsked(forget=True), Moment(time.time(), 0.0), None, Rules())
        if decision.refused is not None:
            raise decision.refused
        clear()
        if decision.entry is not None:
            record = decision.record
            store.save(Batch({user: record}, log=[(record, decision.entry, None)]), 0.0)


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
                store.save(Batch(epoch=(epoch, now)), 0.0)
                open = sum(_open(record) for record in store.load(0.0).values())
            private.as_before(part, path)
            aside = _put_aside(path, now)
            part.replace(path)
            _flush(path.parent)
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
            row = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
            return int(row[0]) if row else 0
    except (DatabaseError, sqlite3.Error, ValueError):
        return 0


def _put_aside(path: Path, now: float) -> Path | None:
    if not path.exists():
        return None
    aside = path.with_name(time.strftime(f"{path.name}.before-%Y%m%dT%H%M%SZ", time.gmtime(now)))
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as present:
        present.execute("PRAGMA wal_checkpoint(truncate)")  # all of it in one file
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


def scheduled(folder: Path) -> list[tuple[int, Path]]:
    """The backups of a schedule with their numbers, the oldest first. Raises ``OSError``.

    Those of versions that did not count are older than all, and among themselves as their names
    say. No clock that jumps makes an old one of a new one.
    """
    if not folder.is_dir():
        return []
    named = [(PATTERN.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    found = [(int(match[1] or 0), path) for match, path in named if match]
    return sorted(found, key=lambda one: one[0])


class Schedule:
    """A backup every so many seconds, beside the coordinator; the last ``KEPT`` stay."""

    def __init__(self, path: Path, folder: Path, every: float) -> None:
        self._path, self._folder, self._every = path, folder, every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hwsync-backup", daemon=True)

    def start(self) -> None:
        """The first one follows an interval after the last one that is there.

        Or soon, where there is none: a coordinator may not live for a whole interval. Raises
        ``UsageError`` where the folder cannot be made, or nothing written there.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise UsageError(
                f"cannot write backups to {self._folder}: {error.strerror}",
                "name a folder that this account may write with --backup-dir; under systemd it "
                "needs ReadWritePaths=, too",
            ) from None
        self._thread.start()

    def stop(self) -> None:
        """No further one; one under way is left alone (it is whole or not there)."""
        self._end.set()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            private.close_to_others(path for _, path in scheduled(self._folder))
        wait = self._until_first()
        while not self._end.wait(wait):
            wait = self._every
            try:
                before = scheduled(self._folder)
                number = before[-1][0] + 1 if before else 1
                target = self._folder / time.strftime(NAME.format(number), time.gmtime())
                back_up(self._path, target)
                for _, old in before[: max(len(before) + 1 - KEPT, 0)]:
                    old.unlink()
            except (DatabaseError, OSError) as error:
                log.error("the backup failed: %s", error)
            except Exception:
                log.exception("hwsync failed on a backup; this is a bug")
            else:
                log.info("backed up to %s", target)

    def _until_first(self) -> float:
        """Seconds, as far as the clock is right; a wrong one makes one too many, none too late."""
        soon = min(FIRST_S, self._every)
        try:
            before = scheduled(self._folder)
            age = time.time() - before[-1][1].stat().st_mtime if before else math.inf
        except OSError:
            return soon
        return max(self._every - age, soon) if age >= 0.0 else soon


def check(path: Path) -> Iterator[str]:
    """What is wrong with a database, one line for people each; none: nothing was found.

    Raises ``DatabaseError`` where it cannot even be opened.
    """
    with contextlib.closing(opened(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        looks = {"file": _pages}
        if version > 1:  # the first one had no hashes
            looks |= {"transitions": chain.broken, "hw_status": _records, "commands": _commands}
        if version == SCHEMA:
            looks["asked"] = _askers
        for name, look in looks.items():
            try:
                yield from look(connection)
            except (sqlite3.Error, ValueError, TypeError) as error:
                yield f"{name}: cannot be read: {error}"


def _rows(connection: sqlite3.Connection, sql: str, *values: object) -> Iterator[sqlite3.Row]:
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    yield from cursor.execute(sql, values)


def _pages(connection: sqlite3.Connection) -> Iterator[str]:
    for (said,) in connection.execute("PRAGMA integrity_check"):
        if said != "ok":
            yield f"file: {said}"


def _records(connection: sqlite3.Connection) -> Iterator[str]:
    """Each record is as far as its last row of the log."""
    last = {
        row["user"]: row
        for row in _rows(
            connection,
            "SELECT user, seq, state FROM transitions WHERE row IN "
            "(SELECT max(row) FROM transitions GROUP BY user)",
        )
    }
    for row in _rows(connection, "SELECT user, seq, state FROM hw_status"):
        logged = last.pop(row["user"], None)
        said = (row["seq"], row["state"])
        if logged is None or (logged["seq"], logged["state"]) != said:
            found = "nothing" if logged is None else f"seq {logged['seq']}, state {logged['state']}"
            yield f"hw_status: {row['user']} is at seq {said[0]}, state {said[1]}; its log: {found}"
    for user in last:
        yield f"hw_status: {user} is in the log and has no record"


def _commands(connection: sqlite3.Connection) -> Iterator[str]:
    """Programs and results are those whose hashes are stored."""
    for row in _rows(connection, "SELECT * FROM commands"):
        name = f"commands: {row['id']} of {row['user']}"
        if row["pruned"]:
            continue
        if not row["orphan"] and _digest(row) != row["digest"]:
            yield f"{name}: its program, stdin, args or name were changed"
        if row["truncated"]:
            continue
        for text, stored in (("response", "sha256_stdout"), ("stderr", "sha256_stderr")):
            # Bytes that were no UTF-8 were replaced: then the hash is not that of the text.
            whole = row[text].encode()
            if row[stored] and "\ufffd" not in row[text] and _sha256(whole) != row[stored]:
                yield f"{name}: its {text} was changed"


def _askers(connection: sqlite3.Connection) -> Iterator[str]:
    """Who asked is who the log names, and a program's own hash is that of the program."""
    # CROSS JOIN: from the log to the commands, which have an index for it.
    noted = """
        SELECT c.*, t.note FROM transitions t CROSS JOIN commands c
        ON c.user = t.user AND c.id = t.id WHERE t.command = ?"""
    for row in _rows(connection, noted, Verb.REQUEST):
        name = f"commands: {row['id']} of {row['user']}"
        _, asked, said = row["note"].partition(WHO_ASKED)
        stored = row["asked_by"] is not None and f"({row['asked_known_by']}): {row['asked_by']}"
        if (bool(asked) and said) != stored:
            yield f"{name}: who asked was changed"
        if not row["pruned"] and _sha256(row["program"].encode()) != row["program_sha256"]:
            yield f"{name}: the hash of its program was changed"


def _digest(row: Any) -> str:
    args = tuple(loads(row["args"]))
    name = dict(row).get("name")  # before schema 4 there was none
    return digest_of(Request(row["program"], stdin=row["stdin"], args=args, name=name))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
