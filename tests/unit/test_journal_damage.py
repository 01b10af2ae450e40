"""What a journal makes of damage, of its older form, of clocks that jump, and of its own size."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hwsync.device import journal_files
from hwsync.device.journal import KEEP_S, KEEP_TEXTS, Journal, Stage
from hwsync.device.journal_files import KEEP_ASIDE, JournalFiles
from hwsync.device.sealed import LOG_BYTES
from hwsync.protocol.errors import JournalDamaged, JournalUnavailable
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import RunReport
from hwsync.protocol.wire.envelope import Envelope
from tests.unit.test_journal import CLOSING, ENVELOPE, GROUP, REPORT

OF_VERSION_1 = """
create table if not exists meta (name text primary key, value text not null);
create table if not exists entries (
    id text primary key, state text not null, envelope text not null,
    epoch integer not null, seq integer not null,
    closing_epoch integer, closing_seq integer,
    run_group text, account text, settled integer not null default 0, changed real not null
);
insert into meta values ('journal', 'j-old'), ('machine', 'm'), ('boot', '4'), ('epoch', '7');
pragma user_version = 1;
"""


def opened(folder: Path) -> Journal:
    return Journal(folder, machine="m")


def filled(folder: Path) -> str:
    """A closed journal with one result; its name."""
    with closing(opened(folder)) as journal:
        for id in "ab":
            journal.received(replace(ENVELOPE, id=id), 1.0)
        journal.started("a", GROUP, 2.0)
        journal.finished("a", REPORT, 3.0)
        return journal.name


def damage(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        db.executescript(sql)


# -- set aside ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "key", "value"),
    [
        ("envelope", "files", []),
        ("envelope", "files", {"a": None}),
        ("envelope", "args", None),
        ("envelope", "start", {"of": "another version"}),
        ("envelope", "new", 1),
        ("account", "files", []),
        ("account", "files", {"a": []}),
        ("account", "not_kept", ["a"]),
        ("account", "outcome", "splendid"),
        ("account", "order", [1]),
        ("run_group", "new", 1),
        ("envelope", None, None),
        ("account", None, None),
    ],
)
def test_what_was_written_and_cannot_be_understood_is_set_aside_too(
    column: str, key: str | None, value: object, tmp_path: Path
) -> None:
    """Its seals are right: another program wrote it, or a later version."""
    with closing(opened(tmp_path)) as journal:
        journal.received(replace(ENVELOPE, id="a"), 1.0)
        journal.started("a", GROUP, 2.0)
        journal.finished("a", REPORT, 3.0)
        name = journal.name
        with journal._changing():
            row = journal._row("a")
            assert row is not None
            told = [] if key is None else json.loads(row[column]) | {key: value}
            journal._put(row | {column: dumps(told)})
    with closing(opened(tmp_path)) as again:
        assert again.name != name
        assert again.unsettled() == []
    assert list(tmp_path.glob("journal-damaged-*.db"))


@pytest.mark.parametrize(
    "sql",
    [
        "update entries set state = 'received' where id = 'a'",
        "update entries set settled = 1 where id = 'a'",
        "update entries set checksum = checksum + 1 where id = 'a'",
        "update entries set account = null where id = 'a'",
        "delete from entries where id = 'a'",
        "update meta set value = '0' where name = 'boot'",
        "update meta set value = 0 where name = 'changes'",
        "delete from meta where name = 'seal'",
        "delete from meta",
        "drop table entries",
        "pragma user_version = 0",
        "pragma user_version = 9",
        "alter table entries add column more text",
    ],
)
def test_what_is_not_what_was_written_is_set_aside_and_a_new_one_begins(
    sql: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = filled(tmp_path)
    damage(tmp_path, sql)
    with closing(opened(tmp_path)) as journal:
        assert journal.name != name
        assert (journal.boot, journal.get("a")) == (1, None)
        journal.received(ENVELOPE, 1.0)
    (aside,) = tmp_path.glob("journal-damaged-*.db")
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"{tmp_path}/journal.db is damaged: " in said
    assert f"moved to {aside}, a new one made" in said
    assert len(list(tmp_path.glob("journal-damaged-*.mark"))) == 1
    with closing(opened(tmp_path)) as journal:
        assert journal.boot == 2, "the new one stays"


@pytest.mark.parametrize("content", [b"", b"no database at all, " * 100])
def test_a_file_that_is_no_database_any_more_is_set_aside(content: bytes, tmp_path: Path) -> None:
    name = filled(tmp_path)
    (tmp_path / "journal.db").write_bytes(content)
    with closing(opened(tmp_path)) as journal:
        assert (journal.name != name, journal.boot) == (True, 1)
    (aside,) = tmp_path.glob("journal-damaged-*.db")
    assert aside.read_bytes() == content or not content


def test_an_index_that_finds_an_id_no_more_is_damage(tmp_path: Path) -> None:
    """The row is whole: only whoever asks for it by its id would not find it."""
    id = "an-id-that-is-nowhere-else"
    with closing(opened(tmp_path)) as journal:
        journal.received(replace(ENVELOPE, id=id), 1.0)
    whole = (tmp_path / "journal.db").read_bytes()
    places = [at for at in range(len(whole)) if whole.startswith(id.encode(), at)]
    assert len(places) == 3, "the row, its envelope, the index"
    for number, at in enumerate(places):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "journal.db").write_bytes(whole[:at] + b"A" + whole[at + 1 :])
        opened(folder).close()
        assert len(list(folder.glob("journal-damaged-*.db"))) == 1, f"byte {at}"


def test_a_database_that_was_put_back_without_its_mark_is_set_aside(tmp_path: Path) -> None:
    name = filled(tmp_path)
    old = (tmp_path / "journal.db").read_bytes()
    with closing(opened(tmp_path)) as journal:
        journal.started("b", GROUP, 5.0)
    (tmp_path / "journal.db").write_bytes(old)
    with closing(opened(tmp_path)) as journal:
        assert journal.name != name
        assert journal.get("b") is None


@pytest.mark.parametrize("mark", [None, b"", b"\0" * 128, b"NAME 99 1", "j-ü".encode()])
def test_a_mark_that_a_power_cut_took_or_tore_does_no_harm(
    mark: bytes | None, tmp_path: Path
) -> None:
    name = filled(tmp_path)
    (tmp_path / "journal.mark").unlink()
    if mark is not None:
        (tmp_path / "journal.mark").write_bytes(mark.replace(b"NAME", name.encode()))
    with closing(opened(tmp_path)) as journal:
        assert (journal.name, journal.boot) == (name, 2)


def test_a_mark_that_cannot_be_written_does_no_harm_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "journal.mark").mkdir()
    name = filled(tmp_path)
    with closing(opened(tmp_path)) as journal:
        assert journal.name == name
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{tmp_path}/journal.mark cannot be written: Is a directory"] * 2, "once a life"


def test_only_the_last_copies_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(99, 0, -1))  # an order that is not that of the names
    monkeypatch.setattr(journal_files.secrets, "token_hex", lambda _: f"{next(numbers):02}")
    made: list[str] = []
    for _ in range(KEEP_ASIDE + 2):
        filled(tmp_path)
        damage(tmp_path, "delete from meta")
        opened(tmp_path).close()
        now = {path.name for path in tmp_path.glob("journal-damaged-*.db")}
        made += sorted(now - set(made))
    assert now == set(made[-KEEP_ASIDE:])
    assert len(made) == KEEP_ASIDE + 2
    assert len(list(tmp_path.glob("journal-damaged-*.mark"))) == KEEP_ASIDE


def test_a_folder_that_lets_nothing_be_moved_is_a_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    files = JournalFiles(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(JournalUnavailable, match="cannot be set aside: Read-only file system"):
        files.set_aside("damaged")
    files.close()


# -- damage in the middle of a life ---------------------------------------------------------------

CALLS: list[Callable[[Journal], object]] = [
    lambda journal: journal.get("a"),
    lambda journal: journal.get("b"),
    lambda journal: journal.unsettled(),
    lambda journal: journal.open_entries(),
    lambda journal: journal.received(ENVELOPE, 9.0),
    lambda journal: journal.settle("a", 9.0),
    lambda journal: journal.prune(9.0),
    lambda journal: journal.probe(),
]


@pytest.mark.parametrize(
    ("sql", "first"),
    [
        ("update entries set state = 'received' where id = 'a'", lambda j: j.get("a")),
        ("delete from entries where id = 'a'", lambda j: j.get("a")),
        ("update entries set account = 'x'", lambda j: j.unsettled()),
        ("delete from meta", lambda j: j.probe()),
    ],
)
def test_damage_found_later_ends_the_journal_and_nothing_else(
    sql: str, first: Callable[[Journal], object], tmp_path: Path
) -> None:
    filled(tmp_path)
    with closing(opened(tmp_path)) as journal:
        assert (journal.needs_reopening, journal.refusal) == (False, "")
        damage(tmp_path, sql)
        with pytest.raises(JournalDamaged):
            first(journal)
        assert journal.needs_reopening
        assert f"{tmp_path}/journal.db is damaged: " in journal.refusal
        for call in CALLS:
            with pytest.raises(JournalDamaged, match="is damaged: "):
                call(journal)
    with closing(opened(tmp_path)) as journal:
        assert (journal.needs_reopening, journal.refusal, journal.get("a")) == (False, "", None)


def test_a_refusal_lasts_until_something_is_written(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        damage(tmp_path, "create trigger full before insert on entries "
                         "begin select raise(abort, 'database or disk is full'); end")  # fmt: skip
        with pytest.raises(JournalUnavailable):
            journal.received(ENVELOPE, 1.0)
        full = "the journal cannot be written: database or disk is full"
        assert (journal.refusal, journal.needs_reopening) == (full, False)
        journal.probe()
        assert journal.refusal == ""


# -- its older form -------------------------------------------------------------------------------


def older(value: Envelope | RunReport) -> dict[str, Any]:
    """As it was written when no message had files."""
    return {k: v for k, v in asdict(value).items() if k not in ("files", "collect", "not_kept")}


def test_a_journal_of_version_1_is_taken_over_whole(tmp_path: Path) -> None:
    rows = {
        "open": ("started", None, None, dumps(asdict(GROUP)), None, 0),
        "done": ("finished", None, None, dumps(asdict(GROUP)), dumps(older(REPORT)), 0),
        "closed": ("closed", 0, 6, None, dumps(older(CLOSING)), 1),
    }
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.executescript(OF_VERSION_1)
        for id, (state, *rest) in rows.items():
            text = dumps(older(replace(ENVELOPE, id=id)))
            values = (id, state, text, 0, 5, *rest, 1.7e9)
            db.execute(f"insert into entries values ({', '.join('?' * 11)})", values)
        db.commit()
    for boot in (5, 6):
        with closing(opened(tmp_path)) as journal:
            assert (journal.name, journal.boot, journal.epoch) == ("j-old", boot, 7)
            journal.prune(10.0)
            (started,) = journal.open_entries()
            (done,) = journal.unsettled()
            closed = journal.get("closed")
        assert (started.id, started.group, started.envelope.program) == (
            "open", GROUP, ENVELOPE.program,
        )  # fmt: skip
        assert (done.id, done.stage, done.report) == ("done", Stage.FINISHED, REPORT)
        assert closed is not None
        assert (closed.closing, closed.report, closed.settled) == ((0, 6), CLOSING, True)
    assert not list(tmp_path.glob("journal-damaged-*"))


# -- clocks ---------------------------------------------------------------------------------------


def test_a_day_is_a_day_of_running_over_all_lives(tmp_path: Path) -> None:
    """Each life's clock begins somewhere else: what counts is how far it goes."""
    with closing(opened(tmp_path)) as journal:
        journal.received(ENVELOPE, 5_000.0)
        journal.finished("a", REPORT, 5_000.0)
        journal.settle("a", 5_000.0)
    step = KEEP_S / 4
    for number, begin in enumerate((3.0, 1.7e9, 0.0, 80.0, 9.9e9)):
        with closing(opened(tmp_path)) as journal:
            journal.prune(begin)
            assert journal.get("a") is not None, f"life {number}"
            journal.prune(begin + step)
            journal.received(replace(ENVELOPE, id=f"x{number}"), begin + step)
            known = journal.get("a") is not None
    assert not known, "five quarters of a day"


def test_what_is_not_settled_is_kept_whatever_the_clock_says(tmp_path: Path) -> None:
    filled(tmp_path)
    for now in (0.0, 1e12, -1e12, 1.7e9):
        with closing(opened(tmp_path)) as journal:
            journal.prune(now)
            journal.prune(now + 9 * KEEP_S)
            assert [entry.id for entry in journal.unsettled()] == ["a"]
            assert [entry.id for entry in journal.open_entries()] == ["b"]


# -- its size -------------------------------------------------------------------------------------


def test_the_files_do_not_grow_for_ever(tmp_path: Path) -> None:
    """Three days of long programs with long results, of which a hundred keep their texts."""
    long = replace(REPORT, response="x" * 20_000, stderr="")
    sizes = []
    with closing(opened(tmp_path)) as journal:
        now = 0.0
        for day in range(3):
            for number in range(2 * KEEP_TEXTS):
                id = f"{day}-{number}"
                journal.received(replace(ENVELOPE, id=id, program="#" * 30_000), now)
                journal.started(id, GROUP, now)
                journal.finished(id, long, now)
                journal.settle(id, now)
                journal.prune(now)
                now += KEEP_S / (2 * KEEP_TEXTS)
            files = [tmp_path / name for name in ("journal.db", "journal.db-wal")]
            sizes.append(sum(file.stat().st_size for file in files))
            assert files[1].stat().st_size <= LOG_BYTES + 200_000
    assert sizes[0] <= KEEP_TEXTS * 20_000 * 1.5 + 2 * KEEP_TEXTS * 5_000 + LOG_BYTES
    assert sizes[2] <= sizes[1] * 1.1


def test_the_log_of_one_large_change_is_cut_again(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        ids = [f"c{number}" for number in range(60)]
        for id in ids:
            journal.received(replace(ENVELOPE, id=id), 1.0)
            journal.finished(id, replace(REPORT, response="x" * 200_000), 1.0)
            journal.settle(id, 1.0)
        journal.begin_epoch(1)  # writes all of them
        assert (tmp_path / "journal.db").stat().st_size > 2 * LOG_BYTES
        assert (tmp_path / "journal.db-wal").stat().st_size <= LOG_BYTES


def test_a_settled_result_keeps_no_program_and_no_input(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.received(replace(ENVELOPE, program="secret-program", stdin="secret-input"), 1.0)
        journal.settle("a", 1.0)
        entry = journal.get("a")
        assert entry is not None
        assert entry.envelope.program == "secret-program", "it may still run"
        journal.finished("a", REPORT, 2.0)
        journal.settle("a", 3.0)
        entry = journal.get("a")
    assert entry is not None
    assert (entry.envelope.program, entry.envelope.stdin, entry.envelope.args) == ("", "", ())
    assert entry.order == (0, 5)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "hwsync")
