"""The coordinator's database: what it reads at a start and while it decides, and what it saves.

The law: what a round of messages changed is saved in one transaction or not at all
(docs/decisions.md, 18); what is known here of the file (``saving.Ends``) moves only when it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from hwsync.protocol import chain as hashes
from hwsync.protocol import limits
from hwsync.protocol.batch import Batch, stage
from hwsync.protocol.core import Handled
from hwsync.protocol.errors import DatabaseError
from hwsync.protocol.idle import weight
from hwsync.protocol.record import Command, Record, Regrade, replace
from hwsync.store import chain, statements
from hwsync.store.api import Changes, LabLife
from hwsync.store.contents import Contents
from hwsync.store.database import Database, translated, usable
from hwsync.store.rows import (
    Row,
    batch_from,
    command_from,
    find_command,
    find_regrades,
    record_from,
    select,
    time_values,
)
from hwsync.store.saving import Ends, writes

DOUBT_SPARE_S: Final = 120.0  # beyond the day: so that its end, too, is written down


class _NotKept(Exception):
    """It was a rehearsal."""


class Store:
    """The coordinator's database, opened for writing; used by one thread (``api.Storage``).

    ``path``: the file, which is made where there is none, and brought up to date where it is of an
    older schema (``migrations``). Raises ``DatabaseError`` where it cannot be used: another
    coordinator has it, it is a newer or another program's, or not to be opened. Every other method
    but ``close`` raises ``StoreError`` when SQLite or the disk fails.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        try:
            with usable(self.path):
                self._ends = self._look()
        except DatabaseError:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """The file itself, where the path that was given is a link."""
        return self.database.path

    def close(self) -> None:
        """Close the database and let go of the lock."""
        self.database.close()

    def _look(self) -> Ends:
        connection = self.database.connection
        return Ends(chain.tops(connection), dict(connection.execute(statements.REFUSED_COUNTS)))

    @translated()
    def load(self, ticks: float) -> dict[str, Record]:
        """All records, by user, as the file has them now: also after a save that failed.

        ``ticks``: seconds on the clock of connection (``Moment.ticks``); what was left of a
        deadline counts on from there (docs/protocol.md, section 2, "Deadlines"). Raises
        ``StoreError``.
        """
        self._ends = self._look()
        connection = self.database.connection
        records: dict[str, Record] = {}
        contents = Contents(connection, share=True)
        for row in select(connection, statements.RECORDS):
            of = (row["user"], row["id"])
            current = find_command(connection, *of, contents) if row["id"] else None
            record = record_from(row, current, ticks)
            ids = (*record.queue, *(id for id, _ in record.batched))
            waiting = (find_command(connection, record.user, id, contents) for id in ids)
            bytes = sum(weight(one.request) for one in waiting if one)
            records[record.user] = replace(record, queue_bytes=bytes)
        return records

    @translated()
    def command(self, user: str, id: str) -> Command | None:
        """The user's command with that id, None where there is none. Raises ``StoreError``."""
        return find_command(self.database.connection, user, id)

    @translated()
    def batches(self, records: Mapping[str, Record], ticks: float) -> list[Batch]:
        """The batches that are open, owed an answer, or their group's newest; the oldest first.

        ``records``: all, as they are stored; ``ticks``: as in ``load``. Raises ``StoreError``.
        """
        rows = select(self.database.connection, statements.BATCHES)
        return [self._batch(row, records, ticks) for row in rows]

    @translated()
    def batch(self, key: str, records: Mapping[str, Record]) -> Batch | None:
        """The batch with that key, None where there is none; of one that has ended.

        Raises ``StoreError``.
        """
        row = next(select(self.database.connection, statements.BATCH, key), None)
        return None if row is None else self._batch(row, records, 0.0)

    def _batch(self, row: Row, records: Mapping[str, Record], ticks: float) -> Batch:
        members = list(select(self.database.connection, statements.MEMBERS, row["key"]))
        stages = {
            user: stage(records.get(user) or Record(user), row["id"], part["outcome"])
            for user, part in self._parts(row["key"]).items()
        }
        return batch_from(row, members, stages, ticks)

    @translated()
    def parts(self, key: str) -> dict[str, dict[str, Any]]:
        """What became of the members of a batch, by member: of those that have a command of it.

        ``outcome``, ``ran``, ``exit_code``, ``started``, ``start_error``, ``clock_bound``. Raises
        ``StoreError``.
        """
        return self._parts(key)

    def _parts(self, key: str) -> dict[str, dict[str, Any]]:
        rows = select(self.database.connection, statements.PARTS, key)
        return {row.pop("user"): row for row in rows}

    @translated()
    def heard(self) -> dict[str, float]:
        """When each board was heard, in Unix seconds. Raises ``StoreError``."""
        return dict(self.database.connection.execute(statements.HEARD))

    @translated()
    def owed(self) -> list[Command]:
        """The commands that have ended and whose replies may not have arrived.

        docs/decisions.md, 51. Raises ``StoreError``.
        """
        connection = self.database.connection
        contents = Contents(connection)
        return [command_from(row, contents) for row in select(connection, statements.OWED)]

    @translated()
    def contents(self, hashes: Iterable[str]) -> dict[str, bytes]:
        """The bytes of files, by their hash, as far as they are kept. Raises ``StoreError``."""
        contents = Contents(self.database.connection)
        found = {sha256: contents.bytes(sha256) for sha256 in set(hashes)}
        return {sha256: data for sha256, data in found.items() if data is not None}

    @translated()
    def regrades(self, command: Command) -> list[Regrade]:
        """The regrades of a command, the oldest first. Raises ``StoreError``."""
        return find_regrades(self.database.connection, command)

    @translated()
    def epoch(self, wall: float) -> tuple[int, float | None]:
        """The epoch, and for how many seconds of connection it was written down; None: it is 0.

        ``wall``: Unix seconds; a version before did not count the connection, and knew the time of
        day (docs/protocol.md, section 2, "Epochs"). Raises ``StoreError``.
        """
        meta = dict(self.database.connection.execute(statements.META))
        restored, doubted = meta.get("restored_at"), meta.get("doubted")
        if doubted is None and restored is not None:
            doubted = max(wall - float(restored), 0.0)
        return int(meta.get("epoch", 0)), None if doubted is None else float(doubted)

    @property
    def head(self) -> tuple[int, str]:
        """The number of the last row of the log as it was saved, and its hash in hexadecimal."""
        row, hash = self._ends.tops[-1] if self._ends.tops else (0, hashes.START)
        return row, hash.hex()

    @translated()
    def last_change(self) -> float | None:
        """Unix seconds of the last row of the log; None: there is none. Raises ``StoreError``."""
        row = self.database.connection.execute(statements.LAST_CHANGE).fetchone()
        return None if row is None else float(row[0])

    @translated()
    def packets(self) -> dict[int, Handled]:
        """What each packet identifier carried last, of messages without an id.

        docs/decisions.md, 21. Raises ``StoreError``.
        """
        rows = select(self.database.connection, statements.PACKETS)
        return {row["mid"]: Handled(row["topic"], row["digest"], row["error"]) for row in rows}

    @translated()
    def life(self) -> LabLife | None:
        """The newest life of lab time; None: there was none. Raises ``StoreError``."""
        row = self.database.connection.execute(statements.NEWEST_LIFE).fetchone()
        return None if row is None else LabLife(*row)

    @translated()
    def save_life(self, life: LabLife) -> None:
        """Save a new life of lab time, flushed when this returns. Raises ``StoreError``."""
        with self.database.transaction() as connection:
            connection.execute(statements.SAVE_LIFE, astuple(life))

    @translated()
    def save(self, changes: Changes, ticks: float) -> None:
        """Save all of a round in one transaction, flushed to the disk when this returns.

        ``ticks``: seconds on the clock of connection, at the moment of the round: of deadlines what
        is left is stored. Raises ``StoreError``; then nothing of it is saved, but for a failure of
        the disk in the commit itself: what counts is what ``load`` finds
        (docs/architecture.md, "A crash at each point").
        """
        written, ends = writes(changes, ticks, self._ends)
        with self.database.transaction() as connection:
            for statement, rows in written:
                connection.executemany(statement, rows)
        self._ends = ends
        self.database.shorten()

    @translated()
    def save_all(self, rounds: Iterable[Changes], *, keep: bool = True) -> None:
        """Save many rounds in one transaction; they are asked for one after the other.

        ``keep`` False: nothing is saved, whatever could be. What ``rounds`` raises comes out of
        here, and nothing is saved then. Raises ``StoreError``.
        """
        ends = self._ends
        with suppress(_NotKept):
            with self.database.transaction() as connection:
                for changes in rounds:
                    written, ends = writes(changes, 0.0, ends)
                    for statement, rows in written:
                        connection.executemany(statement, rows)
                if not keep:
                    raise _NotKept
            self._ends = ends
        self.database.shorten()

    @translated()
    def write_down(
        self,
        records: Iterable[Record],
        ticks: float,
        restored_at: float | None = None,
        heard: Mapping[str, float] | None = None,
        waits: Mapping[str, float] | None = None,
    ) -> None:
        """Save what is left of the deadlines of these, where they are what is stored.

        And, in its first day, how old the epoch is that began at ``restored_at``, in ticks; when
        these boards were ``heard``, in Unix seconds; and for how many seconds batches (by key)
        still wait for members that are not ready.
        ``ticks``: seconds on the clock of connection, now. No record moves by it
        (docs/decisions.md, 136). Raises ``StoreError`` and saves nothing.
        """
        running = [record for record in records if record.due_ticks is not None]
        doubts = restored_at is not None and ticks - restored_at < limits.DOUBT_S + DOUBT_SPARE_S
        if running or doubts or heard or waits:
            rows = [
                (*time_values(record, ticks), record.user, record.epoch, record.seq)
                for record in running
            ]
            with self.database.transaction() as connection:
                if doubts and restored_at is not None:
                    connection.execute(statements.SAVE_META, ("doubted", str(ticks - restored_at)))
                connection.executemany(statements.WRITE_DOWN, rows)
                connection.executemany(statements.SAVE_HEARD, list((heard or {}).items()))
                left = [(seconds, key) for key, seconds in (waits or {}).items()]
                connection.executemany(statements.WRITE_DOWN_WAIT, left)
