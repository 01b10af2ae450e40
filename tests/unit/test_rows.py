"""How a batch looks: its lines on a terminal, and its output in a pipe."""

from __future__ import annotations

import io
import re
import sys

import pytest

from hwsync.cli import rows
from hwsync.cli.members import Members
from hwsync.cli.rows import MAX_LINE, Lines, Rows


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called by the test itself: pytest's own capturing comes between it and a fixture."""
    made = Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    return made


def shown(text: str) -> list[str]:
    """What stands on a screen then."""
    lines, at = [""], 0
    for part in re.findall(r"\x1b\[\d*[AKJ]|\r|\n|[^\r\n\x1b]+", text):
        if part.endswith("A") and part.startswith("\x1b"):
            at -= int(part[2:-1])
        elif part == "\n":
            at += 1
            lines += [""] * (at + 1 - len(lines))
        elif part == "\x1b[K":
            lines[at] = ""
        elif part == "\x1b[J":
            del lines[at:]
            lines.append("")
        elif part != "\r":
            lines[at] = part
    assert at == len(lines) - 1
    return lines[:-1]


def test_each_board_has_its_line_which_is_drawn_again_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_terminal(monkeypatch)
    now = 0.0
    members = Members("b1", ["pi1", "pi10"])
    live = Rows(members, wanted=True, monotonic=lambda: now)
    live.draw()
    assert shown(terminal.getvalue()) == ["pi1   asked         ", "pi10  asked         "]
    members.of("pi1").told = {"outcome": "ok", "ran": "yes", "exit_code": 0}
    members.of("pi1").line = "\x1b[2Ja very long line that has no room here"
    live.tick()  # too early
    assert shown(terminal.getvalue())[0].startswith("pi1   asked")
    now = 1.0
    live.tick()
    lines = shown(terminal.getvalue())
    assert lines[0] == r"pi1   ok            exit 0  \x1b[2Ja ve"
    assert len(lines) == 2
    live.tell("something else")
    assert shown(terminal.getvalue())[0] == "something else"
    assert len(shown(terminal.getvalue())) == 3
    live.leave()
    live.draw()
    assert len(shown(terminal.getvalue())) == 3
    assert not live.live


def test_more_boards_than_lines_show_who_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    members = Members("b1", [f"pi{number}" for number in range(100)])
    for number in range(98):
        members.of(f"pi{number}").told = {"outcome": "ok", "ran": "yes"}
    live = Rows(members, wanted=True, monotonic=lambda: 5.0)
    live.draw()
    lines = shown(terminal.getvalue())
    assert len(lines) == 7
    assert [line.split()[0] for line in lines[:2]] == ["pi98", "pi99"]
    assert lines[-1] == "… of 100: 98 ok, 2 open"
    assert max(map(len, lines)) < 40


@pytest.mark.parametrize("why", ["unwanted", "dumb", "pipe"])
def test_where_no_terminal_shows_them_there_are_none(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    terminal = on_terminal(monkeypatch)
    if why == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if why == "pipe":
        monkeypatch.setattr(sys, "stdout", io.StringIO())
    live = Rows(Members("b1", ["pi1"]), wanted=why != "unwanted", monotonic=lambda: 5.0)
    live.draw()
    live.tick()
    live.leave()
    assert terminal.getvalue() == ""


def test_a_pipe_gets_each_line_with_its_board(capsys: pytest.CaptureFixture[str]) -> None:
    last: list[str] = []
    lines = Lines("pi1", show=True, on_line=last.append)
    lines.program("stdout", "one\ntw")
    lines.program("stderr", "problem\n")
    lines.program("stdout", "o\n\nthree")
    lines.note("stderr", "[hwsync: 5 bytes left out]")
    lines.end()
    lines.end()
    out, err = capsys.readouterr()
    assert out == "pi1: one\npi1: two\npi1: \npi1: three\n"
    assert err == "pi1: problem\npi1: [hwsync: 5 bytes left out]\n"
    assert last == ["tw", "problem", "three"]


def test_a_line_without_an_end_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("pi1", show=True, on_line=lambda _: None)
    lines.program("stdout", "x" * (2 * MAX_LINE + 1))
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [MAX_LINE + 5] * 2
    lines.end()


def test_what_a_terminal_gets_in_between_cannot_steer_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_terminal(monkeypatch)
    lines = Lines("pi1", show=True, on_line=lambda _: None)
    lines.program("stderr", "\x1b[2Jred\n")
    assert terminal.getvalue() == "pi1: \\x1b[2Jred\n"
    hidden = Lines("pi1", show=False, on_line=lambda _: None)
    hidden.program("stderr", "not shown\n")
    assert "not shown" not in terminal.getvalue()
    assert rows.DRAW_S < 1.0
