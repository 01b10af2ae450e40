"""Which connection file counts, and what ``--quiet`` and NO_COLOR leave out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest

from hwsync import connection
from hwsync.cli import say
from hwsync.cli.columns import table
from hwsync.cli.common import PROFILE_VARIABLE, Settings, lab_file
from hwsync.cli.screen import Filter, Screen
from hwsync.lab.accounts import OperatorRights
from hwsync.lab.folder import Folder
from hwsync.protocol.errors import UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(connection, "FOR_ALL", tmp_path / "etc/hwsync.toml")
    for variable in (PROFILE_VARIABLE, "HWSYNC_CONFIG", "HWSYNC_BROKER"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / ".config/hwsync").mkdir(parents=True)
    return tmp_path


def test_a_profile_is_a_file_of_that_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / ".config/hwsync/school.toml"
    file.write_text('broker = "mqtt://school.lab"\n')
    assert Settings(profile="school").url.host == "school.lab"
    monkeypatch.setenv(PROFILE_VARIABLE, "school")
    assert Settings().file == file
    other = home / "other.toml"
    assert Settings(config=other).file == other, "--config is nearer than the variable"
    with pytest.raises(UsageError, match="contradict"):
        _ = Settings(config=other, profile="school").file
    with pytest.raises(UsageError, match="there is no profile none") as raised:
        _ = Settings(profile="none").file
    assert str(home / ".config/hwsync/none.toml") in raised.value.hint
    with pytest.raises(UsageError, match="is no name of a profile"):
        _ = Settings(profile="../x").file
    (home / "etc").mkdir()
    (home / "etc/none.toml").touch()
    assert Settings(profile="none").file == home / "etc/none.toml"


def test_root_takes_the_file_of_the_one_operator_who_may_use_all_boards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Accounts:
        operators: ClassVar = {
            "anna": OperatorRights(("pi1",)),
            "eve": OperatorRights(None, read_only=True),
        }

    monkeypatch.setattr(Folder, "accounts", Accounts)
    monkeypatch.setattr(Folder, "file_of", lambda self, name, _: self.path / f"{name}.toml")
    assert lab_file(tmp_path) is None, "there is no lab"
    (tmp_path / "lab.json").touch()
    assert lab_file(tmp_path) is None, "nobody may use all boards"
    Accounts.operators["teacher"] = OperatorRights(None)
    assert lab_file(tmp_path) is None, "his file is elsewhere"
    (tmp_path / "teacher.toml").touch()
    assert lab_file(tmp_path) == tmp_path / "teacher.toml"
    Accounts.operators["dean"] = OperatorRights(None)
    (tmp_path / "dean.toml").touch()
    with pytest.raises(UsageError, match="2 operators") as raised:
        lab_file(tmp_path)
    assert raised.value.hint == f"name one of them: --config {tmp_path / 'dean.toml'}"


def test_quiet_leaves_remarks_out_and_no_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(say, "quiet", True)
    screen = Screen()
    screen.remark("a hint")
    say.remark("another")
    screen.tell("an error")
    assert capsys.readouterr().err == "an error\n"


def test_no_color_lets_no_colours_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    red = "\x1b[31mred\x1b[0m \x1b[2J"
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Filter().feed(red) == "\x1b[31mred\x1b[0m \\x1b[2J"
    monkeypatch.setenv("NO_COLOR", "1")
    one = Filter()
    assert one.feed(red) == "red \\x1b[2J"
    assert not one.coloured


def test_a_table_has_headings_and_no_empty_column() -> None:
    rows = [("pi1", "", "ok"), ("bench-10", "", "\x1b[2J")]
    assert table(("BOARD", "NONE", "OUTCOME"), rows) == [
        "BOARD     OUTCOME", "pi1       ok", "bench-10  \\x1b[2J",
    ]  # fmt: skip
    assert os.linesep not in "".join(table(("A",), [("a\nb",)]))
