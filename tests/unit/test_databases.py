"""Which database a command means that was told none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsync.cli import common
from hwsync.protocol.errors import UsageError


class Machine:
    """A home folder, and where units keep their state."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.own = folder / "home/.local/state/hwsync/hwsync.db"
        self.unit = folder / "var/hwsync/hwsync.db"
        monkeypatch.setenv("HOME", str(folder / "home"))
        monkeypatch.delenv("STATE_DIRECTORY", raising=False)
        monkeypatch.setattr(common, "SERVICE_STATE", folder / "var")

    def make(self, *paths: Path) -> None:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_it_is_the_one_that_is_there(machine: Machine, tmp_path: Path) -> None:
    assert common.the_database(None) == machine.own, "nothing is there: the default"
    machine.unit.parent.mkdir(parents=True)
    assert common.the_database(None) == machine.unit, "a service is installed here"
    machine.make(machine.own)
    assert common.the_database(None) == machine.own
    machine.own.unlink()
    machine.make(machine.unit)
    assert common.the_database(None) == machine.unit
    assert common.the_database(tmp_path / "named.db") == tmp_path / "named.db"


def test_of_two_one_must_be_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.make(machine.own, machine.unit)
    with pytest.raises(UsageError, match="there are two databases") as error:
        common.the_database(None)
    assert str(machine.own) in str(error.value)
    assert str(machine.unit) in str(error.value)
    assert "--db" in str(error.value)
    assert common.databases() == [machine.own, machine.unit]
    monkeypatch.setenv("STATE_DIRECTORY", str(machine.unit.parent))
    assert common.the_database(None) == machine.unit, "systemd has said which"


def test_one_in_a_folder_that_hides_it_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.make(machine.own, machine.unit)
    machine.unit.unlink()  # nobody can tell whether it is there
    monkeypatch.setattr(common.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="there are two databases"):
        common.the_database(None)


def test_an_account_without_a_home_has_the_units(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> Path:
        raise UsageError("this account has no home directory", "give --db")

    monkeypatch.setattr(common, "state_directory", nowhere)
    with pytest.raises(UsageError, match="no home directory"):
        common.the_database(None)
    machine.unit.parent.mkdir(parents=True)
    assert common.the_database(None) == machine.unit
