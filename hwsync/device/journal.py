"""What a device must not forget: ids, how far each came, and results until they are settled.

The law: a method that changes something returns only after it is flushed to disk, and one process
holds the journal. Its name is bound to the machine: a cloned card makes a new one
(docs/protocol.md, section 5).

History never goes back unnoticed. Each entry has a checksum, their sum, the number of changes and
the rest of ``meta`` have a seal, and a mark beside the database (``journal_files``) has the number
once more. All is compared at the opening. A database that is not what was written is set aside, and
a new journal with another name begins: a grant is bound to the name, so nothing runs twice.

Its size: programs and input are dropped when a result is settled, long texts of all but the last
``KEEP_TEXTS`` settled results soon after, and the rest of a settled entry (under 5 KB) when the
device has run for ``KEEP_S`` more. What is dropped makes room in the file, which is as large as it
ever had to be; its log is cut to ``LOG_BYTES``.

``now`` is in seconds, of a clock that counts evenly while the process lives (monotonic). The
journal adds up those of all its lives, so that no jump of a wall clock makes anything old.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hwsync.device.journal_files import JournalFiles
from hwsync.protocol.errors import JournalDamaged, JournalError, JournalUnavailable
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import Account, Outcome, Ran
from hwsync.protocol.wire import Envelope
from hwsync.runner import Group

log = logging.getLogger("hwsync.device")

KEEP_S: Final = 24 * 3_600.0  # of running time: a settled id is known for at least so long
KEEP_TEXTS: Final = 100  # settled results that keep long texts: for a database that was put back
LONG: Final = 2_000  # characters of a result in the journal
LOG_BYTES: Final = 4 * 1024 * 1024  # of SQLite's log, after each checkpoint
VERSION: Final = 2  # of the tables; a later one keeps ``meta`` with its row ``version``
MACHINE: Final = (Path("/etc/machine-id"), Path("/proc/device-tree/serial-number"))

_META: Final = "CREATE TABLE meta (name text primary key, value text not null)"
_COLUMNS: Final = (
    *("id", "state", "envelope", "epoch", "seq", "closing_epoch", "closing_seq"),
    *("run_group", "account", "settled", "changed"),
)
_ALL: Final = ", ".join((*_COLUMNS, "checksum"))
_ENTRIES: Final = """CREATE TABLE entries (
    id text primary key, state text not null, envelope text not null,
    epoch integer not null, seq integer not null,
    closing_epoch integer, closing_seq integer,
    run_group text, account text, settled integer not null, changed real not null,
    checksum integer not null
)"""
_PUT: Final = (
    f"insert into entries ({_ALL}) values ({', '.join('?' * (len(_COLUMNS) + 1))}) "
    f"on conflict (id) do update set {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS)},"
    " checksum = excluded.checksum"
)

# SQLite's own codes, without what makes them finer. None: Python could not read a text.
_DAMAGE: Final = frozenset({None, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DAMAGE_AT_OPENING: Final = _DAMAGE | {
    *(sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH),
    *(sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_READONLY),
}

Row = dict[str, Any]


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
    """The journal in ``folder``. Every method raises ``JournalError``: in use, full, damaged.

    ``refusal``: why nothing can be written now, in a sentence; empty while all is well. ``over``:
    it is damaged, and only another opening helps.
    """

    def __init__(
        self,
        folder: Path,
        *,
        machine: str | None = None,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.refusal = ""
        self.over = False
        self._nonce = nonce
        self._origin: float | None = None  # ``now`` when it was first heard in this life
        self._files = JournalFiles(folder)
        machine = machine_id() if machine is None else machine
        try:
            try:
                self._open()
            except JournalDamaged as damage:
                aside = self._set_aside("damaged")
                log.error("%s; it was moved to %s and a new one begins: what was open is lost",
                          damage, aside)  # fmt: skip
                self._open()
            bound = self._meta().get("machine")
            if bound is not None and bound != machine:
                aside = self._set_aside("of-another-machine")
                log.warning("the journal is another machine's: moved to %s, a new one made", aside)
                self._open()
            self._begin(machine)
        except BaseException:
            self.close()
            raise

    # -- opening -------------------------------------------------------------------------------

    def _open(self) -> None:
        path = self._files.database
        self.over, self.refusal = False, ""
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.execute(f"pragma journal_size_limit={LOG_BYTES}")
            version = self._db.execute("pragma user_version").fetchone()[0]
            tables = dict(self._tables())
            if not tables and version == 0:
                if self._files.mark() is not None:
                    raise self._damaged("it is empty, and was not")
                self._create()
            elif version > VERSION and self._meta_unsealed().get("version") == str(version):
                raise JournalError(
                    f"the journal {path} cannot be used: a newer hwsync wrote it",
                    "install that one, or take another --state-dir",
                )
            elif version == 1 and "version" not in self._meta_unsealed():
                self._migrate()
            elif version != VERSION or tables != {"meta": _META, "entries": _ENTRIES}:
                raise self._damaged("its tables are not those of a journal")
            self._check()
        except sqlite3.Error as error:
            raise self._failed("opened", error, _DAMAGE_AT_OPENING) from None

    def _tables(self) -> list[tuple[str, str]]:
        return self._db.execute(
            "select name, sql from sqlite_master where type = 'table'"
        ).fetchall()

    def _create(self) -> None:
        self._db.execute("begin immediate")
        self._db.execute(_META)
        self._db.execute(_ENTRIES)
        self._db.execute(f"pragma user_version={VERSION}")
        self._write_meta({"version": str(VERSION), "changes": "0", "total": "0"})
        self._db.execute("commit")

    def _migrate(self) -> None:
        """Version 1 had no checksums, and its times were of a wall clock: all is new again."""
        self._integrity()
        self._db.execute("begin immediate")
        meta = self._meta_unsealed()
        self._db.execute("alter table entries rename to old")
        self._db.execute(_ENTRIES)
        total = 0
        for row in self._db.execute(f"select {', '.join(_COLUMNS)} from old order by rowid"):
            values = [*row[:-1], 0.0]
            total += _digest(values)
            self._db.execute(_PUT, (*values, _digest(values)))
        self._db.execute("drop table old")
        self._db.execute(f"pragma user_version={VERSION}")
        new = {"version": str(VERSION), "changes": "0", "total": str(total)}
        self._write_meta(meta | new)
        self._db.execute("commit")

    def _integrity(self) -> None:
        """Also the index: an id that is not found there would be run again."""
        found = self._db.execute("pragma integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise self._damaged(" ".join(str(found).split()))

    def _check(self) -> None:
        self._integrity()
        meta = self._meta()
        total, self._ids = 0, set[str]()
        for values in self._db.execute(f"select {_ALL} from entries"):
            row = self._sound(values)
            self._entry(row)
            total += row["checksum"]
            self._ids.add(row["id"])
        if str(total) != meta["total"]:
            raise self._damaged("entries are missing")
        mark = self._files.mark()
        changes = int(meta["changes"])
        if mark and mark[1] > changes and mark[0] == meta.get("journal", mark[0]):
            raise self._damaged(f"it has gone back from change {mark[1]} to {changes}")

    def _begin(self, machine: str) -> None:
        meta = self._meta()
        self.name = meta.get("journal") or f"j-{self._nonce()}"
        self.boot = int(meta.get("boot", 0)) + 1
        self.epoch = int(meta.get("epoch", 0))
        self._base = self._age = float(meta.get("age", 0.0))
        with self._changing():
            self._head |= {"journal": self.name, "machine": machine, "boot": str(self.boot)}

    def _set_aside(self, kind: str) -> Path:
        self._close_database()
        return self._files.set_aside(kind)

    def close(self) -> None:
        """Release the journal."""
        self._close_database()
        self._files.close()

    def _close_database(self) -> None:
        try:
            if hasattr(self, "_db"):
                self._db.close()
        except sqlite3.Error as error:
            log.warning("the journal %s was not closed well: %s", self._files.database, error)

    # -- what is in it -------------------------------------------------------------------------

    def get(self, id: str) -> Entry | None:
        """The entry of that id."""
        try:
            row = self._row(id)
        except sqlite3.Error as error:
            raise self._failed("read", error) from None
        return None if row is None else self._entry(row)

    def open_entries(self) -> list[Entry]:
        """Received or started ones: at most one, but a crash may have left any."""
        return self._entries("state in ('received', 'started') order by rowid")

    def unsettled(self) -> list[Entry]:
        """Those whose result is not known to be stored."""
        return self._entries("account is not null and settled = 0 order by rowid")

    # -- what changes it -----------------------------------------------------------------------

    def received(self, envelope: Envelope, now: float) -> None:
        """Write a new command, or open a closed one again."""
        new = dict.fromkeys(_COLUMNS) | {
            "id": envelope.id, "state": "received", "envelope": dumps(asdict(envelope)),
            "epoch": envelope.epoch, "seq": envelope.seq, "settled": 0, "changed": self._at(now),
        }  # fmt: skip
        with self._changing():
            row = self._row(envelope.id)
            if row is None or row["state"] in ("received", "closed"):
                self._put((row or {}) | new)
        self._ids.add(envelope.id)

    def next_boot(self) -> None:
        """Count on: what was said under the present number is of the past from now on."""
        with self._changing():
            self._head["boot"] = str(self.boot + 1)
        self.boot += 1

    def started(self, id: str, group: Group, now: float) -> None:
        """From here on it is never run again."""
        self._change(id, now, state="started", run_group=dumps(asdict(group)))

    def finished(self, id: str, account: Account, now: float) -> None:
        """The whole result of a run."""
        self._change(id, now, state="finished", account=dumps(asdict(account)), settled=0)

    def closed(self, id: str, account: Account, order: tuple[int, int], now: float) -> None:
        """Not run; ``order`` is that of the status that says so."""
        closing = {"closing_epoch": order[0], "closing_seq": order[1]}
        self._change(id, now, state="closed", account=dumps(asdict(account)), settled=0, **closing)

    def settle(self, id: str, now: float) -> None:
        """The coordinator has its result; nobody needs its program any more."""
        with self._changing():
            row = self._row(id)
            if row is not None:
                if row["account"] is not None:
                    bare = loads(row["envelope"]) | {"program": "", "stdin": "", "args": []}
                    row["envelope"] = dumps(bare)
                self._put(row | {"settled": 1, "changed": self._at(now)})

    def begin_epoch(self, epoch: int) -> None:
        """An older database was put back: nothing is settled any more that is still held."""
        with self._changing():
            self._head["epoch"] = str(epoch)
            for row in self._rows("account is not null and settled = 1"):
                self._put(row | {"settled": 0})
        self.epoch = epoch

    def prune(self, now: float) -> None:
        """Forget settled ones after ``KEEP_S``, and long texts of all but the last ``KEEP_TEXTS``.

        How each ended, and its hashes, stay.
        """
        long = (
            f"settled = 1 and length(account) > {LONG} "
            f"order by changed desc, rowid desc limit -1 offset {KEEP_TEXTS}"
        )
        try:
            old = "select id, checksum from entries where settled = 1 and changed < ?"
            forget = self._db.execute(old, (self._at(now) - KEEP_S,)).fetchall()
            shorten = self._rows(long)
        except sqlite3.Error as error:
            raise self._failed("pruned", error) from None
        if not forget and not shorten:
            return
        gone = {id for id, _ in forget}
        with self._changing():
            for id, checksum in forget:
                self._db.execute("delete from entries where id = ?", (id,))
                self._total -= checksum
            for row in shorten:
                if row["id"] not in gone:
                    bare = {"response": "", "stderr": "", "truncated": True}
                    self._put(row | {"account": dumps(loads(row["account"]) | bare)})
        self._ids -= gone

    def probe(self) -> None:
        """Try to write: where that succeeds, ``refusal`` is empty again."""
        with self._changing():
            pass

    # -- one transaction -----------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        if self.over:
            raise JournalDamaged(self.refusal)
        try:
            self._db.execute("begin immediate")
            try:
                self._head = self._meta()
                self._total = int(self._head["total"])
                changes = int(self._head["changes"]) + 1
                yield
                self._head |= {"total": str(self._total), "changes": str(changes)}
                self._write_meta(self._head | {"age": repr(self._age)})
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise self._failed("written", error) from None
        self.refusal = ""
        self._files.set_mark(self.name, changes)

    def _change(self, id: str, now: float, **values: object) -> None:
        with self._changing():
            row = self._row(id)
            if row is not None:
                self._put(row | values | {"changed": self._at(now)})

    def _put(self, row: Row) -> None:
        values = [row[name] for name in _COLUMNS]
        checksum = _digest(values)
        self._total += checksum - row.get("checksum", 0)
        self._db.execute(_PUT, (*values, checksum))

    def _write_meta(self, meta: dict[str, str]) -> None:
        meta = {name: value for name, value in meta.items() if name != "seal"}
        meta["seal"] = str(_digest(sorted(meta.items())))
        for item in meta.items():
            self._db.execute("insert or replace into meta values (?, ?)", item)

    def _at(self, now: float) -> float:
        """Seconds that this journal was in use, in all its lives."""
        if self._origin is None:
            self._origin = now
        self._age = self._base + (now - self._origin)
        return self._age

    # -- reading -------------------------------------------------------------------------------

    def _meta_unsealed(self) -> dict[str, str]:
        return dict(self._db.execute("select name, value from meta").fetchall())

    def _meta(self) -> dict[str, str]:
        meta = self._meta_unsealed()
        try:
            seal = str(_digest(sorted(item for item in meta.items() if item[0] != "seal")))
        except (TypeError, ValueError):
            seal = ""
        if meta.get("seal") != seal:
            raise self._damaged("its head is not what was written")
        return meta

    def _row(self, id: str) -> Row | None:
        found = self._rows("id = ?", id)
        if not found and id in self._ids:
            raise self._damaged(f"the entry of {id} is missing")
        return found[0] if found else None

    def _rows(self, where: str, *values: object) -> list[Row]:
        if self.over:
            raise JournalDamaged(self.refusal)
        found = self._db.execute(f"select {_ALL} from entries where {where}", values)
        return [self._sound(row) for row in found.fetchall()]

    def _entries(self, where: str) -> list[Entry]:
        try:
            return [self._entry(row) for row in self._rows(where)]
        except sqlite3.Error as error:
            raise self._failed("read", error) from None

    def _sound(self, values: tuple[Any, ...]) -> Row:
        try:
            checksum = _digest(values[:-1])
        except (TypeError, ValueError):
            checksum = -1
        if checksum != values[-1]:
            raise self._damaged("an entry is not what was written")
        return dict(zip((*_COLUMNS, "checksum"), values, strict=True))

    def _entry(self, row: Row) -> Entry:
        try:
            return _entry(row)
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged(f"an entry cannot be read: {error}") from None

    # -- what goes wrong -----------------------------------------------------------------------

    def _damaged(self, how: str) -> JournalDamaged:
        self.over = True
        self.refusal = f"the journal {self._files.database} is damaged: {how}"
        return JournalDamaged(self.refusal)

    def _failed(
        self, what: str, error: sqlite3.Error, damage: frozenset[int | None] = _DAMAGE
    ) -> JournalError:
        """What SQLite's error means."""
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary in damage and not (
            primary == sqlite3.SQLITE_READONLY and not os.access(self._files.database, os.W_OK)
        ):
            return self._damaged(str(error))
        self.refusal = f"the journal cannot be {what}: {error}"
        return JournalUnavailable(self.refusal)


def _digest(values: Iterable[object]) -> int:
    """63 bits of SHA-256, which SQLite keeps whole. Raises ``TypeError``, ``ValueError``."""
    data = dumps(list(values)).encode()
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1


def _entry(row: Row) -> Entry:
    envelope = loads(row["envelope"])
    envelope["args"] = tuple(envelope["args"])
    account = None
    if row["account"] is not None:
        fields = loads(row["account"])
        fields.update(outcome=Outcome(fields["outcome"]), ran=Ran(fields["ran"]))
        account = Account(**fields)
    return Entry(
        row["id"],
        Stage(row["state"]),
        Envelope(**envelope),
        None if row["closing_epoch"] is None else (row["closing_epoch"], row["closing_seq"]),
        None if row["run_group"] is None else Group(**loads(row["run_group"])),
        account,
        bool(row["settled"]),
    )
