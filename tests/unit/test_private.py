"""Nobody else reads the database and its copies, whatever the umask was."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hwsync.store import private
from hwsync.store.backups import Schedule, back_up
from hwsync.store.restoring import restore
from hwsync.store.store import Store
from tests.support.waiting import wait_until

SCHEMA_1 = Path(__file__).parents[1] / "fixtures/schema-1.sql"


@pytest.fixture(params=[0, 0o022, 0o077], ids=oct, autouse=True)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(params=[(0o755, 0o600), (0o750, 0o640), (0o700, 0o600), (0o777, 0o600)], ids=str)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    """And the mode that its files get."""
    made = tmp_path / "state"
    made.mkdir()
    made.chmod(request.param[0])
    return made, request.param[1]


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def test_database_log_lock_and_copies(
    folder: tuple[Path, int], caplog: pytest.LogCaptureFixture
) -> None:
    place, wanted = folder
    path = place / "hwsync.db"
    with closing(Store(path)):
        assert set(modes(place)) >= {f"hwsync.db{end}" for end in ("", "-wal", "-shm", ".lock")}
        assert set(modes(place).values()) == {wanted}
        back_up(path, place / "copy.db")
        schedule = Schedule(path, place, 0.01)
        schedule.start()
        wait_until(lambda: list(place.glob("hwsync-*Z.db")), what="a backup of the schedule")
        schedule.stop()
    done = restore(place / "copy.db", path)
    assert done.aside is not None
    assert done.aside.exists()
    found = {name: mode for name, mode in modes(place).items() if not name.endswith(".part")}
    assert set(found.values()) == {wanted}, found
    assert "open to other accounts" not in caplog.text


def test_the_copy_before_a_new_schema(folder: tuple[Path, int]) -> None:
    place, wanted = folder
    path = place / "hwsync.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA_1.read_text())
    path.chmod(0o644)
    with closing(Store(path)):
        found = modes(place)
    assert "hwsync.db.schema-1" in found
    assert {mode & ~wanted for mode in found.values()} == {0}, found


def test_what_was_open_is_closed_at_the_start_and_said_once(
    folder: tuple[Path, int], caplog: pytest.LogCaptureFixture
) -> None:
    place, wanted = folder
    path = place / "hwsync.db"
    Store(path).close()
    shutil.copy(path, place / "hwsync.db.before-20260101T000000Z")
    for file in place.iterdir():
        file.chmod(0o666)
    with closing(Store(path)):
        assert set(modes(place).values()) == {wanted}
    assert caplog.text.count("were open to other accounts, and are no more") == 1
    assert "hwsync.db.before-20260101T000000Z" in caplog.text
    caplog.clear()
    Store(path).close()
    assert caplog.text == ""


def test_only_files_are_closed_and_no_folder_nor_what_a_link_leads_to(tmp_path: Path) -> None:
    """A folder of backups may have a name that begins like the database's."""
    beside = tmp_path / "lab"
    (beside / "hwsync.db-backups").mkdir(parents=True)
    (beside / "hwsync.db-backups").chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    elsewhere.chmod(0o644)
    (beside / "hwsync.db-link").symlink_to(elsewhere)
    os.mkfifo(beside / "hwsync.db-pipe")
    (beside / "hwsync.db-pipe").chmod(0o644)
    Store(beside / "hwsync.db").close()
    assert stat.S_IMODE((beside / "hwsync.db-backups").stat().st_mode) == 0o755
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o644
    assert stat.S_IMODE((beside / "hwsync.db-pipe").stat().st_mode) == 0o644


def test_what_its_owner_closed_further_stays_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    path = tmp_path / "hwsync.db"
    Store(path).close()
    path.chmod(0o600)
    Store(path).close()
    assert modes(tmp_path)["hwsync.db"] == 0o600


def test_a_file_of_another_account_is_named_and_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "hwsync.db"
    file.touch()
    file.chmod(0o644)

    def denied(descriptor: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", denied)
    private.close_to_others([file, tmp_path / "gone"])
    assert f"{file} may be open to other accounts: Operation not permitted" in caplog.text
