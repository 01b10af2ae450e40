"""The database: SQLite in WAL mode, synchronous FULL, one writer, any number of readers.

The law: what a batch of messages changed is saved in one transaction or not at all. The statements
are compiled once from the models: building them anew costs more than SQLite's own work
(docs/decisions.md). A lock file beside the database keeps a second coordinator out.
"""

from __future__ import annotations

import fcntl
import functools
import glob
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from peewee import Model, PeeweeException, SqliteDatabase

from hwsync.protocol import limits
from hwsync.protocol.changed import replace
from hwsync.protocol.effects import Entry
from hwsync.protocol.errors import DatabaseError, Refused, StoreError
from hwsync.protocol.events import Message
from hwsync.protocol.idle import keeps_payload, weight
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Command, Record, State
from hwsync.protocol.redelivery import Handled
from hwsync.store import chain, private
from hwsync.store.migrations import migrate
from hwsync.store.models import (
    TABLES,
    CommandRow,
    HwStatus,
    Meta,
    Packet,
    RefusedCount,
    RefusedMessage,
    Transition,
)
from hwsync.store.rows import (
    command_from,
    command_values,
    find_command,
    in_order,
    insertion,
    record_from,
    record_values,
    select,
    table,
    time_values,
)

BUSY: Final = 5_000
PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": "full",  # a power cut loses nothing that was acknowledged
    "busy_timeout": BUSY,  # milliseconds; a reader's checkpoint may hold the file for a moment
}

NAMES_OF_EPOCH: Final = ("epoch", "restored_at", "doubted")
DOUBT_SPARE_S: Final = 120.0  # beyond the day: so that its end, too, is written down
ROWS_EACH: Final = 8  # of the log, that a command has at most before it is old, as a rule
MAX_WAL: Final = 5_242_880  # bytes; SQLite itself copies it into the database at 4 MB

_FAILURES: Final = (sqlite3.Error, PeeweeException, OSError)


@contextmanager
def _translated() -> Iterator[None]:
    """What SQLite, peewee and the system raise, as ``StoreError``: nobody else knows of them."""
    try:
        yield
    except _FAILURES as error:
        raise StoreError(str(error) or type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A refused message; ``allowance``: who pays for it, nobody's and unknown users' share one."""

    user: str  # empty where it is no valid name
    allowance: str
    time: float  # Unix seconds
    refusal: Refused
    message: Message
    state: State | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The last row of the log, and of the refused messages; 0: there is none."""

    log: int
    refused: int


@dataclass(slots=True)
class Batch:
    """Everything that one transaction saves."""

    records: dict[str, Record] = field(default_factory=dict)
    commands: dict[tuple[str, str], Command] = field(default_factory=dict)
    log: list[tuple[Record, Entry, Message | None]] = field(default_factory=list)
    refused: list[RefusedRow] = field(default_factory=list)
    packets: dict[int, Handled | None] = field(default_factory=dict)
    forget_packets: bool = False
    epoch: tuple[int, float] | None = None  # a new one, and the wall clock

    def __bool__(self) -> bool:
        return bool(
            self.records
            or self.commands
            or self.refused
            or self.packets
            or self.forget_packets
            or self.epoch
        )


@functools.cache
def _insert(model: type[Model]) -> str:
    """The statement that appends a row."""
    return str(insertion(model).sql()[0])


@functools.cache
def _save(model: type[Model]) -> str:
    """The statement that makes or changes the row of a key.

    Changed, not replaced: replacing one takes it out of every index first, and costs twice as much.
    """
    keys = model._meta.get_primary_keys()  # type: ignore[no-untyped-call]
    names = {field.name for field in keys}  # fields themselves cannot be compared
    changed = [field for field in model._meta.sorted_fields if field.name not in names]
    return str(insertion(model).on_conflict(conflict_target=keys, preserve=changed).sql()[0])


class Store:
    """The coordinator's database, opened for writing. Used by one thread.

    Raises ``DatabaseError`` when it cannot be used: another coordinator has it, it is a newer or
    another program's, or not to be opened.
    """

    def __init__(self, path: Path) -> None:
        path = path.resolve()  # the lock and SQLite's own files stand beside the real one
        self.path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._lock = lock(path)
        self._database = SqliteDatabase(str(path), pragmas=PRAGMAS)
        try:
            private.make(path)
            private.close_to_others(path.parent.glob(f"{glob.escape(path.name)}*"))
            with self._database.bind_ctx(TABLES):
                migrate(self._database, path)
                self._save_record = _save(HwStatus)
                self._save_command = _save(CommandRow)
                self._append = _insert(Transition)
                self._refuse = _insert(RefusedMessage)
                self._save_packet = _save(Packet)
                self._count_refused = _save(RefusedCount)
                self._save_meta = _save(Meta)
            self._connection: sqlite3.Connection = self._database.connection()  # type: ignore[no-untyped-call]
            self._look()
        except DatabaseError:
            self.close()
            raise
        except _FAILURES as error:
            self.close()
            raise DatabaseError(
                f"cannot use the database {path}: {error}",
                "name another file with --db, or restore a backup",
            ) from None

    def close(self) -> None:
        """Close the database and let go of the lock."""
        self._database.close()
        self._lock.close()

    def _look(self) -> None:
        """What is kept here of the file: the end of the log, and how many were refused."""
        self._head = chain.head(self._connection)
        self._refused_counts: dict[str, int] = dict(
            self._connection.execute(f'SELECT user, total FROM "{table(RefusedCount)}"')
        )

    @_translated()
    def load(self, ticks: float) -> dict[str, Record]:
        """All records, by user; their deadlines count on from ``ticks``."""
        self._look()
        records: dict[str, Record] = {}
        for row in select(self._connection, f'SELECT * FROM "{table(HwStatus)}"'):
            current = self.command(row["user"], row["id"]) if row["id"] else None
            record = record_from(row, current, ticks)
            waiting = (self.command(record.user, id) for id in record.queue)
            bytes = sum(weight(one.request) for one in waiting if one)
            records[row["user"]] = replace(record, queue_bytes=bytes)
        return records

    @_translated()
    def command(self, user: str, id: str) -> Command | None:
        """One command, None where there is none."""
        return find_command(self._connection, user, id)

    @_translated()
    def owed(self) -> list[Command]:
        """The commands that have ended and whose replies may not have arrived."""
        sql = f"""SELECT * FROM "{table(CommandRow)}" WHERE replies != '[]' AND ran IS NOT NULL"""
        return [command_from(row) for row in select(self._connection, sql)]

    @_translated()
    def epoch(self, wall: float) -> tuple[int, float | None]:
        """The epoch, and for how many seconds of connection it was written down; None: it is 0.

        ``wall``, Unix seconds: a version before did not count them, and knew the time of day.
        """
        meta = dict(self._connection.execute(f'SELECT name, value FROM "{table(Meta)}"'))
        restored, doubted = meta.get("restored_at"), meta.get("doubted")
        if doubted is None and restored is not None:
            doubted = max(wall - float(restored), 0.0)
        return int(meta.get("epoch", 0)), None if doubted is None else float(doubted)

    @_translated()
    def last_change(self) -> float | None:
        """Unix seconds of the last row of the log; None: there is none."""
        sql = f'SELECT time FROM "{table(Transition)}" ORDER BY row DESC LIMIT 1'
        row = self._connection.execute(sql).fetchone()
        return None if row is None else float(row[0])

    @_translated()
    def packets(self) -> dict[int, Handled]:
        """What each packet identifier carried last."""
        rows = select(self._connection, f'SELECT * FROM "{table(Packet)}"')
        return {row["mid"]: Handled(row["topic"], row["digest"], row["error"]) for row in rows}

    @_translated()
    def used(self) -> int:
        """Bytes of the file that hold something."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    @_translated()
    def ends(self) -> Rows:
        """How far the log and the refused messages are."""
        ends = [self._connection.execute(statement) for statement in _ENDS]
        return Rows(*(end.fetchone()[0] or 0 for end in ends))

    @_translated()
    def running_days(self) -> tuple[float, tuple[Rows, ...]]:
        """Seconds of the present day of running; how far all was at the end of each day before."""
        meta = dict(self._connection.execute(f'SELECT name, value FROM "{table(Meta)}"'))
        ends = json.loads(meta.get("days_ends", "[]"))
        return float(meta.get("day_seconds", 0.0)), tuple(Rows(*pair) for pair in ends)

    @_translated()
    def write_running_days(self, seconds: float, ends: Iterable[Rows] | None) -> None:
        """Save them; ``ends`` None: as they are. Raises ``StoreError``."""
        with self._transaction() as execute:
            execute(self._save_meta, ("day_seconds", str(seconds)))
            if ends is not None:
                pairs = dumps([(one.log, one.refused) for one in ends])
                execute(self._save_meta, ("days_ends", pairs))

    @_translated()
    def prune(self, row: int | None, most: int) -> int:
        """Drop the texts of commands that were in the log at that row, the oldest first.

        None: of any. At most so many commands, with their rows of the log; nothing that is open,
        shown by a record, or owed a reply. How many; raises ``StoreError`` and drops nothing.
        """
        with self._transaction() as execute:
            last = self.ends().log if row is None else row
            rows = execute(_PRUNABLE, (last, ROWS_EACH * most)).fetchall()
            found = list(dict.fromkeys(rows))[:most]
            for user, id in found:
                execute(_PRUNE_COMMAND, (user, id))
                execute(_PRUNE_LOG, (user, id))
        return len(found)

    @_translated()
    def prune_refused(self, row: int) -> None:
        """Drop refused messages up to a row; the counters stay, and the last one.

        Without that one SQLite would count its rows from the beginning.
        """
        self._connection.execute(_PRUNE_REFUSED, (row,))

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """What is executed within is stored together or, where it raises, not at all."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            yield execute
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    @_translated()
    def write_down(
        self, records: Iterable[Record], ticks: float, restored_at: float | None = None
    ) -> None:
        """Save what is left of the deadlines of these, where they are what is stored.

        And, in its first day, how old the epoch is that began at ``restored_at``, in ticks. Raises
        ``StoreError`` and saves nothing.
        """
        running = [record for record in records if record.due_at is not None]
        doubts = restored_at is not None and ticks - restored_at < limits.DOUBT_S + DOUBT_SPARE_S
        if running or doubts:
            with self._transaction() as execute:
                if doubts and restored_at is not None:
                    execute(self._save_meta, ("doubted", str(ticks - restored_at)))
                for record in running:
                    key = (record.user, record.epoch, record.seq)
                    execute(_WRITE_DOWN, (*time_values(record, ticks), *key))

    @_translated()
    def save(self, batch: Batch, ticks: float) -> None:
        """Save all of a batch in one transaction. Raises ``StoreError`` and saves nothing."""
        counts, head = dict(self._refused_counts), self._head
        with self._transaction() as execute:
            for command in batch.commands.values():
                execute(self._save_command, command_values(command))
            for record in batch.records.values():
                execute(self._save_record, record_values(record, ticks))
            for record, entry, message in batch.log:
                payload = message.payload if message else b""
                kept = keeps_payload(entry, record.current, payload)
                row = _logged(record, entry, message)
                row["payload_sha256"] = hashlib.sha256(payload).digest()
                head = row["hash"] = chain.link(head, [row[name] for name in chain.COLUMNS])
                row |= {"payload": payload if kept else b"", "pruned": not kept}
                execute(self._append, _LOG_ROW(row))
            for one in batch.refused:
                counts[one.allowance] = counts.get(one.allowance, 0) + 1
                if counts[one.allowance] <= limits.REFUSED_ROWS:
                    execute(self._refuse, _REFUSED_ROW(_refused(one)))
            for user in {one.allowance for one in batch.refused}:
                execute(self._count_refused, (user, counts[user]))
            if batch.epoch is not None:
                for name, value in zip(NAMES_OF_EPOCH, (*batch.epoch, 0.0), strict=True):
                    execute(self._save_meta, (name, str(value)))
            if batch.forget_packets:
                execute(f'DELETE FROM "{table(Packet)}"')
            for mid, handled in batch.packets.items():
                if handled is None:
                    execute(f'DELETE FROM "{table(Packet)}" WHERE mid = ?', (mid,))
                else:
                    execute(self._save_packet, (mid, handled.topic, handled.digest, handled.error))
        self._refused_counts, self._head = counts, head
        self._shorten()

    def _shorten(self) -> None:
        """One large batch leaves no large log behind; somebody who reads is not waited for."""
        with suppress(*_FAILURES):
            if self._wal.stat().st_size <= MAX_WAL:
                return
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(truncate)").fetchall()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {BUSY}")


_LOG_ROW: Final = in_order(Transition)
_REFUSED_ROW: Final = in_order(RefusedMessage)
_WRITE_DOWN: Final = f"""
    UPDATE "{table(HwStatus)}" SET remaining = ?, taken = ?
    WHERE user = ? AND epoch = ? AND seq = ?"""
_PRUNABLE: Final = f"""
    SELECT c.user, c.id FROM "{table(Transition)}" t CROSS JOIN "{table(CommandRow)}" c
    ON c.user = t.user AND c.id = t.id
    WHERE t.row <= ? AND t.pruned = 0
    AND c.pruned = 0 AND c.ran IS NOT NULL AND c.replies = '[]'
    AND NOT EXISTS (SELECT 1 FROM "{table(HwStatus)}" s WHERE s.user = c.user AND s.id = c.id)
    ORDER BY t.row LIMIT ?"""
_PRUNE_COMMAND: Final = f"""
    UPDATE "{table(CommandRow)}" SET program = '', stdin = '', args = '[]', response = '',
    stderr = '', output_order = NULL, truncated = 1, pruned = 1 WHERE user = ? AND id = ?"""
_ENDS: Final = (
    f'SELECT max(row) FROM "{table(Transition)}"',
    f'SELECT max(row) FROM "{table(RefusedMessage)}"',
)
_PRUNE_REFUSED: Final = f"""
    DELETE FROM "{table(RefusedMessage)}" WHERE row <= ?
    AND row < (SELECT max(row) FROM "{table(RefusedMessage)}")"""
_PRUNE_LOG: Final = f"""
    UPDATE "{table(Transition)}" SET payload = x'', pruned = 1 WHERE user = ? AND id = ?"""


def _logged(record: Record, entry: Entry, message: Message | None) -> dict[str, Any]:
    """What the log says of a change; besides, it has the message's text and the hashes."""
    return {
        "user": record.user,
        "epoch": record.epoch,
        "seq": record.seq,
        "time": record.time,
        "command": entry.verb,
        "before": int(entry.before),
        "state": int(entry.after),
        "id": entry.id,
        "late": int(entry.late),
        "note": entry.note,
        "topic": message.topic if message else "",
    }


def _refused(row: RefusedRow) -> dict[str, object]:
    refusal, message = row.refusal, row.message
    return {
        "user": row.user,
        "time": row.time,
        "error": refusal.code,
        "message": refusal.message,
        "hint": refusal.hint,
        "topic": message.topic[: limits.KEPT_TOPIC],
        "id": refusal.id,
        "journal": refusal.journal,
        "state": None if row.state is None else int(row.state),
        "payload": message.payload[: limits.REFUSED_PAYLOAD],
    }


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
