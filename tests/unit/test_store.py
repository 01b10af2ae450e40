"""The database by itself: what survives, what is refused, who may open it."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import peewee
import pytest

from hwsync.protocol.errors import DatabaseError, StoreError
from hwsync.protocol.limits import DEFAULT_NAME
from hwsync.protocol.record import State
from hwsync.store import statements
from hwsync.store.api import Changes
from hwsync.store.checking import check
from hwsync.store.migrations import SCHEMA
from hwsync.store.models import HwStatus
from hwsync.store.reader import Reader
from hwsync.store.store import Store
from tests.support.coordinator import Lab, brief, request, result


def test_a_cycle_survives_a_restart_in_every_state(path: Path) -> None:
    messages = [
        ("request", request(args=["x"], meta={"k": "é"}, name="a.py", expires_at=2e9)),
        ("collected", b'{"id":"c1","journal":"j1","boot":2}'),
        ("cancel", b'{"id":"c1"}'),
        ("response", b'{"id":"c1","journal":"j1","boot":2,"outcome":"error","exit_code":3,'
                     b'"duration":0.5,"stderr":"oh","order":[["stderr",2]],'
                     b'"sha256":{"stdout":"' + b"a" * 64 + b'"}}'),
        ("analysis", "très bien".encode()),
    ]  # fmt: skip
    for kind, payload in messages:
        with Lab(path) as lab:
            assert lab.hear(kind, payload)
            before = lab.record
        with Lab(path) as again:
            # The clock of deadlines begins anew; what is left of one stays.
            assert replace(again.record, deadline_ticks=None) == replace(
                before, deadline_ticks=None
            )
            assert (again.record.deadline_ticks is None) == (before.deadline_ticks is None)
    assert before.state is State.REST


def test_the_original_columns_are_there(path: Path) -> None:
    with Lab(path) as lab:
        lab.hear("command", b"print(6*7)")
        time = lab.record.time
    columns = "user, state, command, hw_command, hw_response, server_analysis, time"
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute(f"SELECT {columns} FROM hw_status").fetchone()
    assert row == ("pi1", 1, "hw_command_request", "print(6*7)", "", "", time)
    assert HwStatus._meta.table_name == "hw_status"


def test_a_second_coordinator_is_refused(path: Path) -> None:
    store = Store(path)
    with pytest.raises(DatabaseError, match=r"another coordinator \(process [0-9]+\) already uses"):
        Store(path)
    store.close()
    Store(path).close()


def test_foreign_newer_and_damaged_databases_are_refused(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DatabaseError, match=r"newer hwsync \(schema 99"):
        Store(path)
    with pytest.raises(DatabaseError):
        Reader(path)
    other = path.with_name("other.db")
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(DatabaseError, match="another program's"):
        Store(other)
    damaged = path.with_name("damaged.db")
    damaged.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(DatabaseError, match="cannot use the database"):
        Store(damaged)
    with pytest.raises(DatabaseError, match="there is no database"):
        Reader(path.with_name("none.db"))


def test_a_link_to_the_database_is_the_database(path: Path) -> None:
    link = path.parent / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with Lab(path) as lab:
        lab.hear("request", request())
        with Reader(link) as reader:
            assert reader.show("pi1", "c1")["state"] == 1
        with pytest.raises(DatabaseError, match="another coordinator"):
            Store(link)


FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("schema-*.sql"))


def columns(path: Path) -> dict[str, set[tuple[object, ...]]]:
    """(name, type, not null, in the key) of each column, by table."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )]  # fmt: skip
        return {
            table: {
                (name, kind, not_null, key)
                for _, name, kind, not_null, _, key in connection.execute(
                    f"PRAGMA table_info({table})"
                )
            }
            for table in tables
        }


def test_each_earlier_schema_has_a_fixture() -> None:
    assert [path.stem for path in FIXTURES] == [f"schema-{n}" for n in range(1, SCHEMA)]


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_an_older_database_is_brought_up_to_date_after_a_backup(path: Path, fixture: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(fixture.read_text())
    fresh = path.with_name("fresh.db")
    Store(fresh).close()
    with Lab(path) as lab:
        record = lab.record
        assert (record.state, record.id, record.count) == (State.COLLECTED, "c2", 2)
        assert record.current is not None
        assert record.current.journal == "j1"
        assert brief(lab.hear("response", result("c2")))[0] == "status 3"
    assert columns(path) == columns(fresh)
    with Reader(path) as reader:
        for id in ("c1", "c2"):  # who asked was not written down then: nobody is named
            shown = reader.show("pi1", id)
            assert (shown["asked_by"], shown["asked_known_by"]) == (None, None)
            assert (shown["name"], shown["order"]) == (DEFAULT_NAME, None)
            assert shown["program_sha256"] == hashlib.sha256(b"print(6*7)").hexdigest()
    assert list(check(path)) == []
    version = fixture.stem.removeprefix("schema-")
    backup = path.with_name(f"{path.name}.schema-{version}")
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (int(version),)
        assert connection.execute("SELECT count(*) FROM commands").fetchone() == (2,)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE commands SET meta = 'no JSON' WHERE id = 'c1'",
        "UPDATE commands SET meta = x'ff00' WHERE id = 'c1'",
        """UPDATE commands SET meta = '{"a": NaN}' WHERE id = 'c1'""",
        r"""UPDATE commands SET meta = '{"a": "\ud800"}' WHERE id = 'c1'""",
        "UPDATE commands SET long = 'no JSON' WHERE id = 'c1'",
        """UPDATE commands SET long = '{"meta": "ab"}' WHERE id = 'c1';
        INSERT INTO contents VALUES ('ab', x'fffe')""",
        "DROP INDEX transition_user",
    ],
)
def test_one_damaged_row_of_before_keeps_no_coordinator_from_its_start(
    path: Path, damage: str
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIXTURES[6].read_text())
        connection.executescript(damage)
        meta = '{"assignment":"lab3"}'
        connection.execute("UPDATE commands SET meta = ? WHERE id = 'c2'", (meta,))
        connection.commit()
    with Lab(path) as lab:
        assert lab.record.id == "c2"
        assert lab.rows("tags", "place") == [(2,)]


def test_a_full_disk_is_not_left_full_by_half_a_copy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIXTURES[6].read_text())

    def connect(target: Path) -> sqlite3.Connection:
        """For a copy that may have no more than 10 pages."""
        copy = small(target)
        copy.execute("PRAGMA max_page_count = 10")
        return copy

    small = sqlite3.connect
    monkeypatch.setattr("hwsync.store.migrations.connect", connect)
    with pytest.raises(DatabaseError, match="disk is full") as found:
        Store(path)
    assert "make room" in found.value.hint
    assert {one.name for one in path.parent.iterdir()} <= {path.name, f"{path.name}.lock"}
    monkeypatch.undo()
    Store(path).close()


def test_a_migration_that_fails_leaves_the_old_database(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIXTURES[0].read_text())
    before = columns(path)

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE hw_status ADD COLUMN half TEXT")
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("hwsync.store.migrations.MIGRATIONS", (broken,))
    with pytest.raises(DatabaseError, match="disk I/O error"):
        Store(path)
    assert columns(path) == before
    monkeypatch.undo()
    Store(path).close()


class Recorder:
    """A connection that notes what is executed."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self.executed: list[str] = []
        self._real = real

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self.executed.append(sql)
        return self._real.execute(sql, *values)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        self.executed.append(sql)
        return self._real.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_round_is_one_transaction_and_executes_each_statement_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(lab.store.database.connection)
    monkeypatch.setattr(lab.store.database, "connection", recorder)
    users = [f"pi{number}" for number in range(20)]
    lab.step(*(lab.delivery("request", request(), user=user) for user in users),
             *(lab.delivery("cancel", b"", user=user) for user in users),
             *(lab.delivery("collected", b"?", user=user) for user in users))  # fmt: skip
    assert len(lab.rows("commands")) == len(users)
    assert [sql for sql in recorder.executed if sql != statements.COMMAND] == [
        *(statements.BEGIN, statements.SAVE_COMMAND, statements.SAVE_RECORD, statements.APPEND),
        *(statements.REFUSE, statements.COUNT_REFUSED, statements.SAVE_PACKET, statements.COMMIT),
    ]


@pytest.mark.parametrize(
    "sql",
    [pytest.param(sql, id=name) for name, sql in vars(statements).items()
     if name.isupper() and isinstance(sql, str)],
)  # fmt: skip
def test_each_statement_is_one_of_this_schema(lab: Lab, sql: str) -> None:
    lab.store.database.connection.execute(f"EXPLAIN {sql}", [None] * sql.count("?"))


@pytest.mark.parametrize(
    "failure",
    [sqlite3.OperationalError("disk is full"), peewee.OperationalError("disk is full"),
     OSError(28, "disk is full")],
    ids=["SQLite", "peewee", "the system"],
)  # fmt: skip
def test_whatever_fails_below_is_one_error_of_the_store(
    path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    with Lab(path) as lab:

        def fail() -> None:
            raise failure

        monkeypatch.setattr(lab.store.database, "transaction", fail)
        with pytest.raises(StoreError, match="disk is full"):
            lab.store.save(Changes(epoch=(1, 0.0)), 0.0)
