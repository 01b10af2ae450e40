"""What a device must not forget: ids, how far each came, and results until they are settled.

The law: a method that changes something returns only after it is flushed to disk, and one process
holds the journal. Its name is bound to the machine: a cloned card makes a new one
(docs/protocol.md, section 5).
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hwsync.protocol.errors import JournalError
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import Account, Outcome, Ran
from hwsync.protocol.wire import Envelope
from hwsync.runner import Group

log = logging.getLogger("hwsync.device")

KEEP_S: Final = 24 * 3_600.0  # a settled id is known for at least so long
KEEP_TEXTS: Final = 100  # settled results that keep long texts: for a database that was put back
LONG: Final = 2_000  # characters of a result in the journal
VERSION: Final = 1  # of the tables
MACHINE: Final = (Path("/etc/machine-id"), Path("/proc/device-tree/serial-number"))

_TABLES: Final = """
create table if not exists meta (name text primary key, value text not null);
create table if not exists entries (
    id text primary key, state text not null, envelope text not null,
    epoch integer not null, seq integer not null,
    closing_epoch integer, closing_seq integer,
    run_group text, account text, settled integer not null default 0, changed real not null
);
"""


class Stage(StrEnum):
    """How far a command came on this device."""

    RECEIVED = "received"  # not started, waits for its grant
    STARTED = "started"  # final: never run again
    FINISHED = "finished"  # ran, has a result
    CLOSED = "closed"  # provably not run; a newer envelope opens it again


@dataclass(frozen=True, slots=True)
class Entry:
    """One command."""

    id: str
    stage: Stage
    envelope: Envelope
    closing: tuple[int, int] | None  # (epoch, seq) of the status that closed it
    group: Group | None
    account: Account | None
    settled: bool

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, seq) of the newest envelope."""
        return (self.envelope.epoch, self.envelope.seq)


def machine_id() -> str:
    """What tells this machine from another; empty where nothing does."""
    found = []
    for path in MACHINE:
        try:
            found.append(path.read_text(encoding="utf-8", errors="replace").strip("\0\n "))
        except OSError:
            found.append("")
    return "/".join(found)


class Journal:
    """The journal in ``folder``. Every method raises ``JournalError``: in use, full, damaged."""

    def __init__(
        self,
        folder: Path,
        *,
        machine: str | None = None,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._nonce = nonce
        machine = machine_id() if machine is None else machine
        path = folder / "journal.db"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"{folder} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise JournalError(
                f"another hwsync-device uses {folder}", "stop it, or take another --state-dir"
            ) from None
        try:
            self._db = self._open(path)
            bound = self._meta("machine")
            if bound is not None and bound != machine:
                self._db.close()
                aside = path.with_name(f"journal-of-another-machine-{secrets.token_hex(4)}.db")
                path.rename(aside)
                log.warning("the journal is another machine's: moved to %s, a new one made", aside)
                self._db = self._open(path)
            self._begin(machine)
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            raise JournalError(f"the journal {path} cannot be used: {error}") from None

    def _open(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        version = db.execute("pragma user_version").fetchone()[0]
        if version > VERSION:
            db.close()
            raise sqlite3.DatabaseError("a newer hwsync wrote it")
        db.executescript(_TABLES)
        db.execute(f"pragma user_version={VERSION}")
        self._db = db
        return db

    def _begin(self, machine: str) -> None:
        self._db.execute("begin immediate")
        self.name = self._meta("journal") or f"j-{self._nonce()}"
        self.boot = int(self._meta("boot") or 0) + 1
        self.epoch = int(self._meta("epoch") or 0)
        for name, value in (("journal", self.name), ("machine", machine), ("boot", self.boot)):
            self._db.execute("insert or replace into meta values (?, ?)", (name, str(value)))
        self._db.execute("commit")

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("select value from meta where name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        """Release the journal."""
        self._db.close()
        os.close(self._lock)

    def get(self, id: str) -> Entry | None:
        """The entry of that id."""
        found = self._entries("id = ?", id)
        return found[0] if found else None

    def open_entries(self) -> list[Entry]:
        """Received or started ones: at most one, but a crash may have left any."""
        return self._entries("state in ('received', 'started')")

    def unsettled(self) -> list[Entry]:
        """Those whose result is not known to be stored."""
        return self._entries("account is not null and settled = 0")

    def received(self, envelope: Envelope, now: float) -> None:
        """Write a new command, or open a closed one again."""
        text = dumps(asdict(envelope))
        self._write(
            "insert into entries (id, state, envelope, epoch, seq, changed) "
            "values (?, 'received', ?, ?, ?, ?) on conflict (id) do update set "
            "state = 'received', envelope = excluded.envelope, epoch = excluded.epoch, "
            "seq = excluded.seq, closing_epoch = null, closing_seq = null, account = null, "
            "settled = 0, changed = excluded.changed where state in ('received', 'closed')",
            (envelope.id, text, envelope.epoch, envelope.seq, now),
        )

    def next_boot(self) -> None:
        """Count on: what was said under the present number is of the past from now on."""
        self._write("update meta set value = ? where name = 'boot'", (str(self.boot + 1),))
        self.boot += 1

    def started(self, id: str, group: Group, now: float) -> None:
        """From here on it is never run again."""
        self._write(
            "update entries set state = 'started', run_group = ?, changed = ? where id = ?",
            (dumps(asdict(group)), now, id),
        )

    def finished(self, id: str, account: Account, now: float) -> None:
        """The whole result of a run."""
        self._write(
            "update entries set state = 'finished', account = ?, settled = 0, changed = ? "
            "where id = ?",
            (dumps(asdict(account)), now, id),
        )

    def closed(self, id: str, account: Account, order: tuple[int, int], now: float) -> None:
        """Not run; ``order`` is that of the status that says so."""
        self._write(
            "update entries set state = 'closed', account = ?, settled = 0, closing_epoch = ?, "
            "closing_seq = ?, changed = ? where id = ?",
            (dumps(asdict(account)), *order, now, id),
        )

    def settle(self, id: str, now: float) -> None:
        """The coordinator has its result."""
        self._write("update entries set settled = 1, changed = ? where id = ?", (now, id))

    def begin_epoch(self, epoch: int) -> None:
        """An older database was put back: nothing is settled any more that is still held."""
        try:
            self._db.execute("begin immediate")
            try:
                self._db.execute("insert or replace into meta values ('epoch', ?)", (str(epoch),))
                self._db.execute("update entries set settled = 0 where account is not null")
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise JournalError(f"the journal cannot be written: {error}") from None
        self.epoch = epoch

    def prune(self, now: float) -> None:
        """Forget settled ones after ``KEEP_S``, and long texts of all but the last ``KEEP_TEXTS``.

        How each ended, and its hashes, stay; ``now`` is wall time in Unix seconds.
        """
        self._write("delete from entries where settled = 1 and changed < ?", (now - KEEP_S,))
        old = (
            f"select id, account from entries where settled = 1 and length(account) > {LONG} "
            f"order by changed desc, rowid desc limit -1 offset {KEEP_TEXTS}"
        )
        try:
            for id, text in self._db.execute(old).fetchall():
                account = loads(text) | {"response": "", "stderr": "", "truncated": True}
                self._write("update entries set account = ? where id = ?", (dumps(account), id))
        except (sqlite3.Error, ValueError, KeyError) as error:
            raise JournalError(f"the journal cannot be pruned: {error}") from None

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise JournalError(f"the journal cannot be written: {error}") from None

    def _entries(self, where: str, *values: object) -> list[Entry]:
        try:
            rows = self._db.execute(
                "select id, state, envelope, closing_epoch, closing_seq, run_group, account, "
                f"settled from entries where {where} order by rowid",
                values,
            ).fetchall()
            return [_entry(row) for row in rows]
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise JournalError(f"the journal cannot be read: {error}") from None


def _entry(row: tuple[Any, ...]) -> Entry:
    envelope = loads(row[2])
    envelope["args"] = tuple(envelope["args"])
    account = None
    if row[6] is not None:
        fields = loads(row[6])
        fields.update(outcome=Outcome(fields["outcome"]), ran=Ran(fields["ran"]))
        account = Account(**fields)
    return Entry(
        row[0],
        Stage(row[1]),
        Envelope(**envelope),
        None if row[3] is None else (row[3], row[4]),
        None if row[5] is None else Group(**loads(row[5])),
        account,
        bool(row[7]),
    )
