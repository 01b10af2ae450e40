"""The original system's two databases: what they say of each user's commands.

The law: they are only read. ``hw_status`` has one row a user; the archive has one table a user,
into which the record was copied whole after each request, also after one that was ignored. So a
command is put together out of snapshots. What they do not say is not made up: a program whose end
they do not have may have run (docs/history.md, "The original's databases").
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hwsync.protocol import limits
from hwsync.protocol.errors import DatabaseError
from hwsync.store.migrations import APPLICATION_ID
from hwsync.store.statements import OWNER

COLUMNS: Final = ("user", "state", "hw_command", "hw_response", "server_analysis", "time")
STATUS: Final = "hw_status"
STATES: Final = range(5)  # 4, "analysis returned", is of its first versions
PATIENCE_S: Final = 5.0  # with another program that writes there
TWO: Final = "name the original's hw_status.db, then its archive"
WHAT_IT_IS: Final = "the original's databases are SQLite's; is it damaged, or another file?"
CURES: Final = {  # by SQLite's primary error
    sqlite3.SQLITE_BUSY: "another program writes there: stop the original's server first",
    sqlite3.SQLITE_READONLY: "the original's server was killed while it wrote there: start it once "
    "more and stop it, or name copies, made with the file …-journal beside each",
}
REST, REQUESTED, COLLECTED, RETURNED, ANALYSED = STATES


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row of theirs, as texts; ``state`` None: it is none of ``STATES``."""

    user: str
    state: int | None
    program: str
    response: str
    analysis: str
    time: str  # as it is there, of the request


@dataclass(slots=True)
class Cycle:
    """One command of theirs, as far as the snapshots have it."""

    program: str
    time: str
    known: bool = True  # its request, or a later step of it, is there; False: only what was at rest
    collected: bool = False
    response: str | None = None  # None: none came
    analysis: str | None = None  # None: there is none
    same_analysis: bool = False  # the text is that of the command before
    end: str = ""  # "analysis", "reset"; "open": it had not ended; "missing": rows are


@dataclass(slots=True)
class User:
    """One user's snapshots, the oldest first, as cycles."""

    name: str
    ignored: int = 0  # snapshots of requests that changed nothing
    odd: int = 0  # whose state is none
    _last: Snapshot | None = None
    _cycle: Cycle | None = field(default=None)

    def has_last(self, row: Snapshot) -> bool:
        """Whether this is its last one: the record, as the archive has it already."""
        return self._last == row

    def hear(self, row: Snapshot) -> Iterator[Cycle]:
        """The next one; what has ended by it."""
        last, self._last = self._last, row
        if row.state is None:
            self._last = last
            self.odd += 1
            return
        if last == row:
            self.ignored += 1
            return
        if row.state == REST:
            yield from self._rest(row, last)
            return
        before = last.state if last else REST
        another = row.state == REQUESTED or not self._is_of(row)
        if self._cycle is None or another:
            yield from self.end("missing")
            self._cycle = Cycle(row.program, row.time)
        self._cycle.collected |= row.state >= COLLECTED
        if row.state >= RETURNED and (self._cycle.response is None or before != ANALYSED):
            self._cycle.response = row.response
        if row.state == ANALYSED:
            self._judge(row, last)

    def _rest(self, row: Snapshot, last: Snapshot | None) -> Iterator[Cycle]:
        cycle = self._cycle
        if cycle is not None and self._is_of(row):
            if cycle.response is not None and cycle.analysis is None:
                self._judge(row, last)
            yield from self.end("reset" if cycle.analysis is None else "analysis")
            return
        yield from self.end("missing")
        if row.program and (last is None or (row.program, row.time) != (last.program, last.time)):
            self._cycle = Cycle(row.program, row.time, known=False, response=row.response)
            yield from self.end("missing")

    def _judge(self, row: Snapshot, last: Snapshot | None) -> None:
        assert self._cycle is not None
        self._cycle.analysis = row.analysis or None
        self._cycle.same_analysis = last is not None and row.analysis == last.analysis

    def _is_of(self, row: Snapshot) -> bool:
        """Whether it is of the present cycle: only a request changes program and time."""
        cycle = self._cycle
        return cycle is not None and (cycle.program, cycle.time) == (row.program, row.time)

    def end(self, how: str = "open") -> Iterator[Cycle]:
        """Nothing more comes of the present cycle."""
        if self._cycle is not None:
            self._cycle.end = how
            yield self._cycle
            self._cycle = None


@dataclass(frozen=True, slots=True)
class Original:
    """Both files, open. ``others``: tables of the archive that are not of its form."""

    status: sqlite3.Connection
    archive: sqlite3.Connection
    tables: tuple[str, ...]
    others: tuple[str, ...]

    def cycles(self, users: dict[str, User]) -> Iterator[tuple[User, Cycle]]:
        """Each command of each user, the oldest of each first; ``users`` has all of them then."""
        for table in self.tables:
            for row in _rows(self.archive, table):
                user = users.setdefault(row.user, User(row.user))
                for cycle in user.hear(row):
                    yield user, cycle
        for row in _rows(self.status, STATUS):
            user = users.setdefault(row.user, User(row.user))
            if not user.has_last(row):
                for cycle in user.hear(row):
                    yield user, cycle
        for user in users.values():
            for cycle in user.end():
                yield user, cycle


@contextmanager
def original(status: Path, archive: Path) -> Generator[Original]:
    """Both databases, opened to be read. Raises ``DatabaseError``: one is none of its kind."""
    if status.exists() and archive.exists() and status.samefile(archive):
        raise DatabaseError(f"{status} is named twice", TWO)
    with closing(_opened(status)) as one, closing(_opened(archive)) as other:
        with _reading(status):
            if STATUS not in _tables(one) or not _is_theirs(one, STATUS):
                raise DatabaseError(
                    f"{status} has no table hw_status with the columns {', '.join(COLUMNS)}",
                    "the original's hw_status.db comes first, then its archive",
                )
            _not_ours(one, status)
        with _reading(archive):
            _not_ours(other, archive)
            names = [name for name in _tables(other) if not name.startswith("sqlite_")]
            theirs = tuple(name for name in names if _is_theirs(other, name))
            if names and not theirs:
                raise DatabaseError(
                    f"{archive} has no table with the columns {', '.join(COLUMNS)}",
                    "the archive is the original's hw_status_archive.db: one table a user",
                )
        others = tuple(name for name in names if name not in theirs)
        with _reading(archive):
            yield Original(one, other, theirs, others)


def _not_ours(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute(OWNER).fetchone() == (APPLICATION_ID,):
        raise DatabaseError(f"{path} is a database of hwsync's own", TWO)


def seconds_of(text: str) -> float | None:
    """Unix seconds of a time of theirs: a number, or a date and time of day in UTC; else None."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = datetime.datetime.fromisoformat(text.strip())
            seconds = (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    low, high = limits.EXPIRES_AT_S
    return seconds if low <= seconds <= high else None


def _opened(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise DatabaseError(f"there is no file {path}", "name the original's two databases")
    with _reading(path):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", PATIENCE_S, uri=True)
        connection.text_factory = lambda data: data.decode(errors="replace")
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection


@contextmanager
def _reading(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        hint = CURES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, WHAT_IT_IS)
        raise DatabaseError(f"{path} cannot be read: {error}", hint) from None


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
    return [name for (name,) in found]


def _quoted(name: str) -> str:
    """A name that may have anything in it, also quotes, as SQLite reads it."""
    return '"' + name.replace('"', '""') + '"'


def _is_theirs(connection: sqlite3.Connection, table: str) -> bool:
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return {name for (name,) in columns} >= set(COLUMNS)


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[Snapshot]:
    """In the order in which they were written, which no clock can change."""
    statement = f"""
        SELECT user, state, hw_command, hw_response, server_analysis, time
        FROM {_quoted(table)} ORDER BY rowid"""
    for row in connection.execute(statement):
        user, state, *texts = row
        yield Snapshot(
            _text(user) if user is not None else table, _state(state), *map(_text, texts)
        )


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def _state(value: object) -> int | None:
    try:
        number = float(_text(value))
    except ValueError:
        return None
    return int(number) if number in STATES else None
