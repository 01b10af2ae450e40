"""The shell's completion: what is written where, and what is proposed."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import click
import pytest

from hwsync.cli import completion
from hwsync.cli.app import cli
from hwsync.cli.common import Settings
from hwsync.cli.completing import OURS, READY, SHELLS, VARIABLE, _add_line
from hwsync.protocol.errors import UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    return tmp_path


def typed(*words: str) -> None:
    cli.main(["completion", *words], obj=Settings(), standalone_mode=False)


@pytest.mark.parametrize(("shell", "start"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_one_line_is_added_once(home: Path, shell: str, start: str) -> None:
    (home / start).write_text("mine")
    typed("install", shell)
    typed("install", shell)
    first, second = (home / start).read_text().splitlines()
    file = home / ".config/hwsync" / f"completion.{shell}"
    assert first == "mine"
    assert second == f'[ -f "{file}" ] && . "{file}"  {OURS}'
    assert VARIABLE in file.read_text()


def test_a_full_disk_takes_nothing_of_a_persons_own_file(home: Path) -> None:
    start, before = home / ".bashrc", "mine\n" * 100
    start.write_text(before)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(UsageError, match="cannot write"):
            _add_line(start, home / "completion.bash")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert start.read_text() == before


def test_the_own_shell_is_taken_where_none_is_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed("install")
    assert (home / ".zshrc").exists()
    typed("install", "fish")
    assert VARIABLE in (home / ".config/fish/completions/hwsync.fish").read_text()
    typed("show")
    assert READY in capsys.readouterr().out


def test_another_shell_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    with pytest.raises(Exception, match="which shell") as raised:
        typed("install")
    for shell in SHELLS:
        assert shell in raised.value.hint  # type: ignore[attr-defined]


def test_ids_are_those_of_the_board_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def ids(_: Settings, boards: list[str] | None) -> list[str]:
        asked.append(boards)
        return ["cli-1", "c2"]

    monkeypatch.setattr("hwsync.cli.names.last_ids", ids)
    monkeypatch.setattr("hwsync.cli.names.known", lambda _: ["pi1", "@lab1"])
    context = click.Context(click.Command("x"))
    parameter = click.Argument(["id"])
    context.params = {"target": "pi1,pi2"}
    assert completion.of_ids(context, parameter, "cli") == ["cli-1"]
    context.params = {}
    assert completion.of_both(context, parameter, "") == ["pi1", "@lab1", "cli-1", "c2"]
    assert asked == [["pi1", "pi2"], None]
    (file,) = completion.of_files(context, parameter, "bl")
    assert (file.value, file.type) == ("bl", "file")
