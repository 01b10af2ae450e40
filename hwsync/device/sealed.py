"""SQLite with seals: what is read is what was written, or ``JournalDamaged``.

The law: each row of ``entries`` has a checksum; the row ``seal`` of ``meta`` covers the rest of it,
in it the sum of those checksums and the number of changes. An opening compares everything, also
that number with the mark's (``journal_files``). A change is one transaction, flushed when it
returns. What the rows mean is ``hwsync.device.journal``'s.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from hwsync.device.journal_files import JournalFiles
from hwsync.protocol.errors import JournalDamaged, JournalError, JournalUnavailable
from hwsync.protocol.jsons import dumps

log = logging.getLogger("hwsync.device")

LOG_BYTES: Final = 4 * 1024 * 1024  # of SQLite's log, after each checkpoint
VERSION: Final = 2  # of the tables; a later one keeps ``meta`` with its row ``version``

_META: Final = "CREATE TABLE meta (name text primary key, value text not null)"
_ENTRIES: Final = """CREATE TABLE entries (
    id text primary key, state text not null, envelope text not null,
    epoch integer not null, seq integer not null,
    closing_epoch integer, closing_seq integer,
    run_group text, account text, settled integer not null, changed real not null,
    checksum integer not null
)"""
COLUMNS: Final = (
    *("id", "state", "envelope", "epoch", "seq", "closing_epoch", "closing_seq"),
    *("run_group", "account", "settled", "changed"),
)
_ALL: Final = ", ".join((*COLUMNS, "checksum"))
_PUT: Final = (
    f"insert into entries ({_ALL}) values ({', '.join('?' * (len(COLUMNS) + 1))}) "
    f"on conflict (id) do update set {', '.join(f'{name} = excluded.{name}' for name in COLUMNS)},"
    " checksum = excluded.checksum"
)

# SQLite's own codes, without what makes them finer. None: Python could not read a text, which may
# be SQLite's message. Where the file may be written, "readonly" says that its head is damaged.
_DAMAGE: Final = frozenset(
    {None, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}
)
_DAMAGE_AT_OPENING: Final = _DAMAGE | {
    *(sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT),
    *(sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_FORMAT),
}

Row = dict[str, Any]


class Sealed:
    """The database of one folder.

    ``refusal``: why nothing can be written now, in a sentence; empty while all is well.
    ``needs_reopening``: it is damaged, and only another opening helps.
    """

    name: str  # of the journal, as in the mark

    def __init__(self, files: JournalFiles) -> None:
        self.refusal = ""
        self.needs_reopening = False
        self._files = files
        self._ids: set[str] = set()  # an index that was damaged since would not find them all
        self._age = 0.0  # seconds, written with each change

    def _close_database(self) -> None:
        """Close SQLite's file. The lock stays held: no other process may take the folder yet."""
        try:
            if hasattr(self, "_db"):
                self._db.close()
        except sqlite3.Error as error:
            log.warning("the journal %s was not closed well: %s", self._files.database, error)

    # -- opening -------------------------------------------------------------------------------

    def _open(self) -> None:
        """Raises ``JournalDamaged``, ``JournalUnavailable``; ``JournalError``: a newer version."""
        path = self._files.database
        self.needs_reopening, self.refusal = False, ""
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # The account of programs may pass through the folder; the log is made like this.
            with contextlib.suppress(OSError):
                os.chmod(path, 0o600)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.execute(f"pragma journal_size_limit={LOG_BYTES}")
            version = self._db.execute("pragma user_version").fetchone()[0]
            tables = self._tables()
            if not tables and version == 0:
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
        except (sqlite3.Error, UnicodeError) as error:
            raise self._failed("opened", error, _DAMAGE_AT_OPENING) from None

    def _tables(self) -> dict[str, str]:
        sql = "select name, sql from sqlite_master where type = 'table'"
        return dict(self._db.execute(sql).fetchall())

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
        self._db.execute("alter table entries rename to old")
        self._db.execute(_ENTRIES)
        total = 0
        old = self._db.execute(f"select {', '.join(COLUMNS)} from old order by rowid").fetchall()
        for row in old:
            values = [*row[:-1], 0.0]
            total += _digest(values)
            self._db.execute(_PUT, (*values, _digest(values)))
        self._db.execute("drop table old")
        self._db.execute(f"pragma user_version={VERSION}")
        new = {"version": str(VERSION), "changes": "0", "total": str(total)}
        self._write_meta(self._meta_unsealed() | new)
        self._db.execute("commit")

    def _integrity(self) -> None:
        """Also the index: an id that is not found there would be run again."""
        found = self._db.execute("pragma integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise self._damaged(" ".join(str(found).split()))

    def _check(self) -> None:
        self._integrity()
        meta = self._meta()
        rows = [self._sound(values) for values in self._db.execute(f"select {_ALL} from entries")]
        self._ids = {row["id"] for row in rows}
        if str(sum(row["checksum"] for row in rows)) != meta["total"]:
            raise self._damaged("entries are missing")
        mark, changes = self._files.mark(), int(meta["changes"])
        if mark and mark[1] > changes and mark[0] == meta.get("journal", mark[0]):
            raise self._damaged(f"it went back from change {mark[1]} to {changes}")

    # -- one transaction -----------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Changes of ``_head`` and calls of ``_put`` and ``_delete``, flushed at its end."""
        if self.needs_reopening:
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

    def _put(self, row: Row) -> None:
        values = [row[name] for name in COLUMNS]
        checksum = _digest(values)
        self._total += checksum - row.get("checksum", 0)
        self._db.execute(_PUT, (*values, checksum))

    def _delete(self, id: str, checksum: int) -> None:
        self._total -= checksum
        self._db.execute("delete from entries where id = ?", (id,))

    def _write_meta(self, meta: dict[str, str]) -> None:
        meta = {name: value for name, value in meta.items() if name != "seal"}
        meta["seal"] = _seal(meta)
        for item in meta.items():
            self._db.execute("insert or replace into meta values (?, ?)", item)

    # -- reading -------------------------------------------------------------------------------

    def _meta_unsealed(self) -> dict[str, str]:
        return dict(self._db.execute("select name, value from meta").fetchall())

    def _meta(self) -> dict[str, str]:
        meta = self._meta_unsealed()
        if meta.get("seal") != _seal(meta):
            raise self._damaged("its head is not what was written")
        return meta

    def _row(self, id: str) -> Row | None:
        found = self._rows("id = ?", id)
        if not found and id in self._ids:
            raise self._damaged(f"the entry of {id} is missing")
        return found[0] if found else None

    def _rows(self, where: str, *values: object) -> list[Row]:
        found = self._read(f"select {_ALL} from entries where {where}", *values)
        return [self._sound(row) for row in found]

    def _read(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        if self.needs_reopening:
            raise JournalDamaged(self.refusal)
        try:
            return self._db.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise self._failed("read", error) from None

    def _sound(self, values: tuple[Any, ...]) -> Row:
        if _digest(values[:-1]) != values[-1]:
            raise self._damaged("an entry is not what was written")
        return dict(zip((*COLUMNS, "checksum"), values, strict=True))

    # -- what goes wrong -----------------------------------------------------------------------

    def _damaged(self, how: str) -> JournalDamaged:
        self.needs_reopening = True
        self.refusal = f"the journal {self._files.database} is damaged: {how}"
        return JournalDamaged(self.refusal)

    def _failed(
        self, what: str, error: Exception, damage: frozenset[int | None] = _DAMAGE
    ) -> JournalError:
        """What SQLite's error means, or Python's."""
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        path = self._files.database
        may_not = path.exists() and not os.access(path, os.W_OK)
        if primary in damage and not (primary == sqlite3.SQLITE_READONLY and may_not):
            return self._damaged(str(error))
        self.refusal = f"the journal cannot be {what}: {error}"
        return JournalUnavailable(self.refusal)


def _digest(values: Iterable[object]) -> int:
    """63 bits of SHA-256, which SQLite keeps whole; -1 of what was surely never written."""
    try:
        data = dumps(list(values)).encode()
    except (TypeError, ValueError):
        return -1
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1


def _seal(meta: dict[str, str]) -> str:
    others = [item for item in meta.items() if item[0] != "seal"]
    try:
        return str(_digest(sorted(others)))
    except TypeError:
        return ""
