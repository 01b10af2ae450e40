"""Backups, and what is restored: a copy is whole or not there, and nothing is lost for it."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from time import gmtime

import pytest

from hwsync.protocol.errors import DatabaseError, UsageError
from hwsync.protocol.record import State
from hwsync.store import backups
from hwsync.store.backups import KEPT, Schedule, back_up, scheduled
from hwsync.store.checking import check
from hwsync.store.reader import Reader
from hwsync.store.restoring import restore
from hwsync.store.store import Store
from tests.support.coordinator import Lab, change, request, use
from tests.support.waiting import wait_until


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """With one whole cycle, one refused message and one command under way."""
    use(lab)
    return lab


def test_a_backup_is_made_while_the_database_is_written(lab: Lab, path: Path) -> None:
    target = path.parent / "backups" / "one.db"
    ended = threading.Event()

    def copy() -> None:
        try:
            back_up(path, target)
        finally:
            ended.set()

    # A connection of SQLite's belongs to its thread: the backup has one in another.
    copier = threading.Thread(target=copy)
    copier.start()
    while not ended.is_set():
        lab.hear("reset", b"")
    copier.join()
    assert list(check(target)) == []
    with Reader(target) as reader:
        assert reader.show("pi1", "c1")["hw_response"] == "42\n"
    assert [file.name for file in target.parent.iterdir()] == ["one.db"]


def test_nothing_is_overwritten_and_nothing_half_is_left(lab: Lab, path: Path) -> None:
    target = path.with_name("one.db")
    back_up(path, target)
    before = target.read_bytes()
    with pytest.raises(DatabaseError, match="exists already"):
        back_up(path, target)
    assert target.read_bytes() == before
    folder = path.with_name("a file")
    folder.touch()
    with pytest.raises(DatabaseError, match="cannot back up"):
        back_up(path, folder / "x.db")
    for missing in (path.with_name("none.db"), path.parent):
        with pytest.raises(DatabaseError, match="there is no database"):
            back_up(missing, path.with_name("two.db"))
    foreign = path.with_name("foreign.db")
    change(foreign, "CREATE TABLE t (x)")
    with pytest.raises(DatabaseError, match="no database of this hwsync"):
        back_up(foreign, path.with_name("two.db"))
    assert not path.with_name("two.db").exists()


class Days:
    """A folder of backups, one made each day; ``clock``: Unix seconds, and it may be wrong."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.clock = path.parent / "backups", 1_800_000_000.0
        self.made: list[Path] = []
        self.waited: list[float] = []
        self._path = path
        self._days = 0
        monkeypatch.setattr(time, "time", lambda: self.clock)
        monkeypatch.setattr(time, "gmtime", lambda: gmtime(self.clock))
        monkeypatch.setattr(backups, "back_up", self._copy)

    def _copy(self, source: Path, target: Path) -> None:
        back_up(source, target)
        os.utime(target, (self.clock, self.clock))
        self.made.append(target)

    def wait(self, seconds: float) -> bool:
        """The schedule's own wait: the time passes at once, until the days are over."""
        self.waited.append(seconds)
        self.clock += seconds
        self._days -= 1
        return self._days < 0

    def pass_by(self, days: int, every: float = 86_400.0) -> None:
        schedule = Schedule(self._path, self.folder, every)
        schedule._end = self  # type: ignore[assignment]
        self._days = days
        schedule._run()

    @property
    def kept(self) -> list[Path]:
        return [path for _, path in scheduled(self.folder)]


@pytest.fixture
def days(lab: Lab, path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(path, monkeypatch)


def test_the_schedule_keeps_the_last_ones(days: Days) -> None:
    days.pass_by(5)
    assert days.kept == days.made
    days.pass_by(9)
    assert days.kept == days.made[-KEPT:]
    assert [path.name[:13] for path in days.kept] == [f"hwsync-{n:06}" for n in range(5, 15)]
    assert [path.name for path in days.folder.iterdir() if path not in days.kept] == []


@pytest.mark.parametrize("jump", [3_650 * 86_400.0, -3_650 * 86_400.0])
def test_no_clock_that_jumps_once_or_for_good_costs_a_new_backup(days: Days, jump: float) -> None:
    days.pass_by(12)
    days.clock += jump
    days.pass_by(1)
    days.clock -= jump
    for _ in range(12):
        days.pass_by(1)
        assert days.kept == days.made[-KEPT:]
        days.clock += jump / 10
    days.pass_by(3)
    assert days.kept == days.made[-KEPT:]


def test_backups_of_the_version_before_are_the_oldest(days: Days) -> None:
    days.folder.mkdir()
    names = [f"hwsync-{year}0101T000000Z.db" for year in (2024, 2025, 2036)]
    others = ["hwsync-mine.db", "hwsync-20240101T000000Z.db.part", "notes-20240101T000000Z.db"]
    for name in [*names, *others]:
        (days.folder / name).touch()
    days.pass_by(8)
    assert [path.name for path in days.kept[:3]] == [*names[1:], days.made[0].name]
    days.pass_by(1)
    assert [path.name for path in days.kept[:2]] == [names[2], days.made[0].name]
    days.pass_by(4)
    assert days.kept == days.made[-KEPT:]
    assert all((days.folder / name).exists() for name in others)


def test_a_backup_that_fails_removes_none(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    days.pass_by(12)
    before = days.kept

    def fail(*_: Path) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(backups, "back_up", fail)
    days.pass_by(3)
    assert days.kept == before


def test_a_coordinator_that_is_off_every_night_is_backed_up_too(days: Days) -> None:
    """The first one follows an interval after the last one, not after the start."""
    days.pass_by(1)
    assert days.waited[0] == 60.0  # there is none yet
    days.clock = days.made[-1].stat().st_mtime + 50_000.0
    days.waited.clear()
    days.pass_by(1)
    assert days.waited[0] == pytest.approx(36_400.0)
    days.clock = days.made[-1].stat().st_mtime + 90_000.0
    days.waited.clear()
    days.pass_by(1)
    assert days.waited == [60.0, 86_400.0]
    days.clock -= 1e9  # the clock is behind: it is soon, too
    days.waited.clear()
    days.pass_by(0)
    assert days.waited == [60.0]


def test_a_schedule_runs_by_itself_and_ends(lab: Lab, path: Path) -> None:
    schedule = Schedule(path, path.parent / "backups", 0.001)
    schedule.start()
    wait_until(lambda: len(scheduled(path.parent / "backups")) == KEPT, what="the backups")
    schedule.stop()
    schedule._thread.join()
    for _, backup in scheduled(path.parent / "backups"):
        assert list(check(backup)) == []


def test_a_folder_that_takes_no_backups_is_wrong_usage(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/backups", Path("/proc/backups")):
        schedule = Schedule(path, folder, 1.0)
        with pytest.raises(UsageError) as error:
            schedule.start()
        assert f"cannot write backups to {folder}: " in str(error.value)
        assert "--backup-dir" in error.value.hint
        assert not schedule._thread.is_alive()


FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("schema-*.sql"))


def test_a_restore_puts_the_backup_in_place_and_begins_an_epoch(lab: Lab, path: Path) -> None:
    backup = path.with_name("backup.db")
    back_up(path, backup)
    lab.hear("cancel", b'{"id":"c2"}')
    lab.hear("request", request("c3"))
    lab.stop()
    done = restore(backup, path)
    assert done.open == 1
    assert done.aside is not None
    with Reader(done.aside) as reader:
        assert reader.show("pi1", "c3")["state"] == 1
    assert list(check(path)) == []
    lab.start()
    told = lab.connect()
    assert (lab.record.id, lab.record.state, lab.record.epoch) == ("c2", State.REST, done.epoch)
    assert told
    command = lab.store.command("pi1", "c2")
    assert command is not None
    assert command.report is not None
    assert (command.report.outcome, command.report.ran) == ("lost", "maybe")
    lab.stop()
    # Again, and again higher, also where the clock stands still.
    assert restore(backup, path).epoch > done.epoch
    assert sorted(file.name for file in path.parent.glob("hwsync.db.restored*")) == []


def test_a_restore_is_refused_while_a_coordinator_has_the_database(lab: Lab, path: Path) -> None:
    backup = path.with_name("backup.db")
    back_up(path, backup)
    with pytest.raises(DatabaseError, match="another coordinator"):
        restore(backup, path)
    assert list(check(path)) == []


def test_a_damaged_backup_is_restored_only_where_that_is_asked_for(lab: Lab, path: Path) -> None:
    backup = path.with_name("backup.db")
    back_up(path, backup)
    lab.stop()
    before = path.read_bytes()
    change(backup, "UPDATE transitions SET note = 'x' WHERE row = 1")
    with pytest.raises(DatabaseError, match="row 1 was changed"):
        restore(backup, path)
    assert path.read_bytes() == before
    restore(backup, path, damaged=True)
    assert any("row 1 was changed" in line for line in check(path))
    with pytest.raises(DatabaseError, match="there is no database"):
        restore(path.with_name("none.db"), path)


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_backup_of_an_older_schema_is_brought_up_to_date(path: Path, fixture: Path) -> None:
    old = path.with_name("old.db")
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(fixture.read_text())
    assert list(check(old)) == []
    done = restore(old, path)
    assert (done.aside, done.open) == (None, 1)
    assert list(check(path)) == []
    with closing(Store(path)) as store:
        assert store.epoch(0.0)[0] == done.epoch


def test_what_was_changed_in_an_older_backup_is_found_before_it_is_migrated(
    path: Path,
) -> None:
    old = path.with_name("old.db")
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(FIXTURES[1].read_text())
    change(old, "UPDATE commands SET program = 'x' WHERE id = 'c1'")
    with pytest.raises(DatabaseError, match="its program, stdin, args, name, start or files"):
        restore(old, path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to somebody else")
def test_what_root_restores_belongs_to_whom_it_belonged(lab: Lab, path: Path) -> None:
    lab.stop()
    backup = path.with_name("copy.db")
    back_up(path, backup)
    path.parent.chmod(0o750)
    os.chown(path.parent, 4711, 4712)
    os.chown(path, 4711, 4713)
    path.chmod(0o640)
    path.with_name("hwsync.db.lock").unlink(missing_ok=True)
    done = restore(backup, path)

    def owner(file: Path) -> tuple[int, int]:
        return file.stat().st_uid, file.stat().st_gid

    assert (owner(path), path.stat().st_mode & 0o777) == ((4711, 4713), 0o640)
    assert owner(path.with_name(path.name + ".lock")) == (4711, 4713)
    assert done.aside is not None
    assert owner(done.aside) == (4711, 4713)
    for file in (path, path.with_name(path.name + ".lock"), done.aside):
        file.unlink()
    restore(backup, path)
    assert owner(path) == (4711, 4712), "a new one: its folder's"
    assert owner(path.with_name(path.name + ".lock")) == (4711, 4712)
