"""The original's two databases, with its schema, in the coordinator's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync.cli.app import cli
from hwsync.cli.common import Settings
from hwsync.protocol.errors import DatabaseError
from hwsync.protocol.limits import is_user
from hwsync.protocol.record import State
from hwsync.store import original
from hwsync.store.checking import check
from hwsync.store.importing import Taken, board_of, take_over
from hwsync.store.original import seconds_of
from hwsync.store.reader import Reader
from hwsync.store.receipts import Receipts
from hwsync.store.store import Store
from tests.support.coordinator import Lab, request

FORM = "(user text, state int, hw_command text, hw_response text, server_analysis text, time text)"
SCHEMA_7 = Path(__file__).parent.parent / "fixtures/schema-7.sql"
WALL = 1_800_000_000.0
ODD = ["M\u00fcller's Pi", 'a "b"', "x; DROP TABLE hw_status; --", "", " ", "pi/1", "\u6811\u8393"]
Row = tuple[Any, ...]


class Theirs:
    """As the original writes: the record, and a copy of it after each request."""

    def __init__(self, folder: Path) -> None:
        self.status, self.archive = folder / "hw_status.db", folder / "hw_status_archive.db"
        self._rows: dict[str, list[Any]] = {}
        with closing(sqlite3.connect(self.status)) as one:
            one.execute(f"CREATE TABLE hw_status {FORM}")
            one.commit()
        sqlite3.connect(self.archive).close()

    def add(self, user: str, *steps: tuple[int, str]) -> None:
        """(state, text) after each request; None of both files is told of its meaning."""
        row = self._rows.setdefault(user, [user, 0, "", "", "", ""])
        for state, text in steps:
            if state == 1 and row[1] == 0:
                row[2], row[5] = text, str(1_500_000_000.25 + len(self._all(user)))
            if state == 3 and row[1] == 2:
                row[3] = text
            if state == 0 and row[1] == 3 and text:
                row[4] = text
            row[1] = state
            self.archived(user, tuple(row))
        with closing(sqlite3.connect(self.status)) as one:
            one.execute("DELETE FROM hw_status WHERE user = ?", (user,))
            one.execute("INSERT INTO hw_status VALUES (?,?,?,?,?,?)", row)
            one.commit()

    def archived(self, user: str, *rows: Row) -> None:
        table = '"' + user.replace('"', '""') + '"'
        with closing(sqlite3.connect(self.archive)) as other:
            other.execute(f"CREATE TABLE IF NOT EXISTS {table} {FORM}")
            other.executemany(f"INSERT INTO {table} VALUES (?,?,?,?,?,?)", rows)
            other.commit()

    def _all(self, user: str) -> list[Row]:
        table = '"' + user.replace('"', '""') + '"'
        with closing(sqlite3.connect(self.archive)) as other:
            try:
                return other.execute(f"SELECT * FROM {table}").fetchall()
            except sqlite3.OperationalError:
                return []


@pytest.fixture
def theirs(tmp_path: Path) -> Theirs:
    return Theirs(tmp_path)


CYCLE = [(1, "print(42)"), (2, ""), (3, "42\n"), (0, "right")]


def imported(path: Path, theirs: Theirs, **options: Any) -> dict[str, Taken]:
    taken, _ = take_over(path, theirs.status, theirs.archive, WALL, **options)
    return {one.user: one for one in taken}


def commands(path: Path, *columns: str) -> list[Row]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(f"SELECT {', '.join(columns)} FROM commands ORDER BY rowid")
        return list(found)


def is_whole(path: Path) -> bool:
    return list(check(path)) == []


def test_a_cycle_is_a_command_with_its_four_rows(path: Path, theirs: Theirs) -> None:
    theirs.add("pi1", *CYCLE)
    taken = imported(path, theirs)["pi1"]
    assert (taken.board, taken.commands, taken.ignored) == ("pi1", 1, 0)
    assert commands(path, "program", "outcome", "ran", "response", "analysis", "issued") == [
        ("print(42)", "ok", "yes", "42\n", "right", 1_500_000_000.25)
    ]
    ((id,),) = commands(path, "id")
    with Reader(path) as reader:
        rows = reader.show("pi1", id)["history"]
        assert [(row["before"], row["state"]) for row in rows] == [(0, 1), (1, 2), (2, 3), (3, 0)]
        assert all(row["note"].startswith("imported") and row["time"] == WALL for row in rows)
    assert is_whole(path)
    store = Store(path)
    record = store.load(0.0)["pi1"]
    store.close()
    assert (record.state, record.seq, record.count, record.id) == (State.REST, 4, 1, id)


@pytest.mark.parametrize(
    ("steps", "outcome", "ran", "said"),
    [
        ([(1, "p")], "expired", "maybe", "open"),
        ([(1, "p"), (2, "")], "lost", "maybe", "open"),
        ([(1, "p"), (2, ""), (3, "42")], "ok", "yes", "open"),
        ([(1, "p"), (0, "")], "cancelled", "maybe", "reset"),
        ([(1, "p"), (2, ""), (0, "")], "lost", "maybe", "reset"),
        ([(1, "p"), (2, ""), (3, "TIMEOUT"), (0, "x")], "timeout", "maybe", ""),
    ],
)
def test_what_the_original_does_not_say_may_have_run(
    path: Path, theirs: Theirs, steps: list[tuple[int, str]], outcome: str, ran: str, said: str
) -> None:
    theirs.add("pi1", *steps)
    taken = imported(path, theirs)["pi1"]
    assert commands(path, "outcome", "ran") == [(outcome, ran)]
    assert taken.open == (said == "open")
    assert is_whole(path)


def test_requests_that_were_ignored_are_none(path: Path, theirs: Theirs) -> None:
    theirs.add("pi1", (1, "p"), (1, "other"), (2, ""), (2, ""), (3, "x"), (3, ""), (0, "y"))
    taken = imported(path, theirs)["pi1"]
    assert (taken.commands, taken.ignored) == (1, 3)
    assert commands(path, "program", "response") == [("p", "x")]


def test_the_same_verdict_again_is_kept_and_said_to_be_unclear(path: Path, theirs: Theirs) -> None:
    theirs.add("pi1", *CYCLE, *CYCLE)
    taken = imported(path, theirs)["pi1"]
    assert (taken.commands, taken.unclear) == (2, 1)
    assert commands(path, "analysis") == [("right",), ("right",)]


def test_odd_names_get_safe_ones_and_are_found_by_what_they_were(
    path: Path, theirs: Theirs
) -> None:
    for name in [*ODD, "pi1"]:
        theirs.add(name, *CYCLE)
    taken = imported(path, theirs)
    assert taken.keys() == {*ODD, "pi1"}
    boards = [one.board for one in taken.values()]
    assert all(map(is_user, boards))
    assert len(set(boards)) == len(boards)
    assert all(one.commands == 1 for one in taken.values())
    assert is_whole(path)
    assert board_of("x" * 65) != board_of("x" * 66)


def test_what_was_imported_has_no_receipt(path: Path, theirs: Theirs) -> None:
    theirs.add("pi1", *CYCLE)
    imported(path, theirs)
    ((id,),) = commands(path, "id")
    with Receipts(path) as receipts, pytest.raises(DatabaseError, match="it was imported"):
        receipts.make("pi1", id, receipts.last())


def test_twice_brings_no_doubles_and_only_what_is_new(path: Path, theirs: Theirs) -> None:
    theirs.add("pi1", *CYCLE, (1, "q"))
    imported(path, theirs)
    assert imported(path, theirs)["pi1"].commands == 0
    theirs.add("pi1", (2, ""), (3, "9"), (0, "z"), *CYCLE)
    taken = imported(path, theirs)["pi1"]
    assert (taken.commands, taken.known, taken.changed) == (1, 2, 1)
    assert len(commands(path, "id")) == 3
    assert is_whole(path)


def test_beside_what_was_run_here(path: Path, theirs: Theirs) -> None:
    with Lab(path) as lab:
        lab.hear("request", request("c1"))
    theirs.add("pi1", *CYCLE)
    with pytest.raises(DatabaseError, match="pi1 has a command that is open"):
        imported(path, theirs)
    with Lab(path) as lab:
        with pytest.raises(DatabaseError, match="another coordinator"):
            imported(path, theirs)
        lab.hear("cancel", b'{"id":"c1"}')
    imported(path, theirs)
    assert is_whole(path)
    with Lab(path) as lab:
        assert lab.record.id == "c1"  # the record shows what was asked for here
        assert lab.hear("request", request("c2"))
    assert [number for (number,) in commands(path, "number")] == [1, 2, 3]
    assert is_whole(path)


def test_a_rehearsal_keeps_nothing(path: Path, theirs: Theirs) -> None:
    theirs.add("pi1", *CYCLE)
    assert imported(path, theirs, dry_run=True)["pi1"].commands == 1
    assert not path.exists()
    Store(path).close()
    assert imported(path, theirs, dry_run=True)["pi1"].commands == 1
    assert commands(path, "id") == []
    assert imported(path, theirs)["pi1"].commands == 1


def test_a_rehearsal_brings_no_older_database_up_to_date(path: Path, theirs: Theirs) -> None:
    theirs.add("pi1", *CYCLE)
    with closing(sqlite3.connect(path)) as older:
        older.executescript(SCHEMA_7.read_text())
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="schema 7, expected 8"):
        imported(path, theirs, dry_run=True)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.glob(f"{path.name}?*")] == []


def test_a_database_of_hwsyncs_own_is_not_the_originals(path: Path, theirs: Theirs) -> None:
    theirs.add("pi1", *CYCLE)
    imported(path, theirs)
    with pytest.raises(DatabaseError, match="is a database of hwsync's own"):
        take_over(path, path, theirs.archive, WALL)
    with pytest.raises(DatabaseError, match="is a database of hwsync's own"):
        take_over(path, theirs.status, path, WALL)
    with pytest.raises(DatabaseError, match="named twice"):  # else all of it would count as known
        take_over(path, theirs.status, theirs.status, WALL)
    assert len(commands(path, "id")) == 1


def test_values_that_nobody_expects(path: Path, theirs: Theirs) -> None:
    theirs.archived(
        "pi1",
        (None, 1, "p", None, None, 1_500_000_000), ("pi1", 2, "p", None, None, 1_500_000_000),
        ("pi1", "three", "p", "", "", ""), ("pi1", None, None, None, None, None),
        ("pi1", 3, "p", b"\xff\x00", None, 1_500_000_000), ("pi1", 0, "p", b"\xff\x00", 1.5,
                                                            1_500_000_000),
        ("pi1", 1, "q", "", "", "2019-05-04 12:00:00.5"), ("pi1", 1, "r", "", "", "yesterday"),
        ("pi1", 4, "r", "x" * 300_000, "a", "yesterday"), ("pi1", 0, "r", "x", "a", "yesterday"),
    )  # fmt: skip
    taken = imported(path, theirs)["pi1"]
    assert (taken.commands, taken.odd) == (3, 2)
    rows = commands(path, "program", "outcome", "analysis", "truncated")
    assert rows == [("p", "ok", "1.5", 0), ("q", "expired", None, 0), ("r", "ok", "a", 1)]
    assert is_whole(path)


def test_times_as_they_are_there() -> None:
    assert seconds_of("1500000000.5") == 1_500_000_000.5
    assert seconds_of("2017-07-14 02:40:00.500000") == 1_500_000_000.5
    assert [seconds_of(text) for text in ("", "nan", "inf", "-1", "1e99", "soon")] == [None] * 6


def hwsync(*words: object) -> None:
    cli.main(["import-original", *map(str, words)], obj=Settings(), standalone_mode=False)


def test_the_command_says_what_came_and_what_could_not(
    path: Path, theirs: Theirs, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs.add("a b", *CYCLE)
    theirs.archived("pi2", ("pi2", 1, "p", "", "", "1.0"))
    with closing(sqlite3.connect(theirs.archive)) as other:
        other.execute("CREATE TABLE notes (text)")
    hwsync(theirs.status, theirs.archive, "--db", path, "--dry-run")
    assert "2 commands would be imported" in capsys.readouterr().out
    hwsync(theirs.status, theirs.archive, "--db", path)
    out, err = capsys.readouterr()
    assert f"{board_of('a b')} (there 'a b'): 1 imported" in out
    assert "pi2: 1 imported; 1 had not ended there: may have run" in out
    assert "2 commands were imported" in out
    assert "notes" in err
    cli.main(["history", "--meta", "original=a b", "--db", str(path)], obj=Settings(),
             standalone_mode=False)  # fmt: skip
    assert board_of("a b") in capsys.readouterr().out


def test_files_that_are_none_are_named(path: Path, theirs: Theirs, tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is no database, as long as it may be" * 50)
    for words, found in (
        ((tmp_path / "no.db", theirs.archive), "there is no file"),
        ((text, theirs.archive), "is not a database"),
        ((theirs.archive, theirs.status), "has no table hw_status"),
    ):
        with pytest.raises(DatabaseError, match=found):
            hwsync(*words, "--db", path)
    assert not path.exists()


def test_what_cannot_be_read_now_says_what_to_do(
    path: Path, theirs: Theirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs.add("pi1", *CYCLE)
    monkeypatch.setattr(original, "PATIENCE_S", 0.0)
    with closing(sqlite3.connect(theirs.archive, isolation_level=None)) as writing:
        writing.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseError, match="locked") as found:
            imported(path, theirs)
        assert "stop the original's server" in found.value.hint
        writing.execute("PRAGMA cache_size = 1")
        writing.executemany(
            "INSERT INTO pi1 VALUES ('pi1', 1, ?, '', '', '9')", [("y" * 5_000,)] * 50
        )
        journal = Path(f"{theirs.archive}-journal").read_bytes()
        half = theirs.archive.read_bytes()
    theirs.archive.write_bytes(half)  # as a kill leaves them
    Path(f"{theirs.archive}-journal").write_bytes(journal)
    with pytest.raises(DatabaseError, match="readonly") as found:
        imported(path, theirs)
    assert "was killed while it wrote" in found.value.hint


def test_a_long_archive_is_streamed(path: Path, theirs: Theirs) -> None:
    def rows() -> Iterable[Row]:
        for number in range(1_200):
            text = (f"print({number})", str(number), "right", str(1e9 + number))
            yield from (("pi1", state, *text) for state in (1, 2, 3, 0))

    theirs.archived("pi1", *rows())
    counts: list[int] = []
    taken = imported(path, theirs, progress=counts.append)
    assert taken["pi1"].commands == 1_200
    assert counts == [500, 1_000]
    assert is_whole(path)
