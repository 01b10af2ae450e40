"""cli.screen: what a terminal is given of a program's output, and what a file is."""

from __future__ import annotations

import io
import itertools
import os
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsync.cli.screen import MAX_SGR, Filter, Screen
from tests.support.terminal import dangers

RED, PLAIN = "\x1b[31m", "\x1b[0m"
PASSES = re.compile(r"\x1b\[[0-9:;]*m|[\n\t\r]")
HOSTILE = st.lists(
    st.one_of(
        st.sampled_from([RED, PLAIN, "\x1b", "\x1b[", "\x1b[3", "m", ";", "\x9b1m"]),
        st.sampled_from(["a", "é", "\n", "\t", "\r", "\x08", "\u202e", "\x1b[2J", "\x1b]0;t\x07"]),
        st.text(max_size=3),
    ),
    max_size=20,
).map("".join)  # fmt: skip


def shown(*pieces: str) -> str:
    some = Filter()
    return "".join([*(some.feed(piece) for piece in pieces), some.end()])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class File(io.StringIO):
    """What a file or pipe is to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = io.BytesIO()


def both(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal that both streams are. Not a fixture: pytest puts its own streams after these."""
    one = Terminal()
    monkeypatch.setattr(sys, "stdout", one)
    monkeypatch.setattr(sys, "stderr", one)
    return one


# What passes


@pytest.mark.parametrize(
    "text",
    [
        "plain\n\ttext é 😀", f"{RED}red{PLAIN}", "\x1b[m", "\x1b[1;38;5;196m",
        "\x1b[38:2::255:0:0m",
        "  5%|█\r 10%|██\r", "line\r\n", "\x1b[" + "1" * MAX_SGR + "m",
    ],
)  # fmt: skip
def test_colours_and_progress_bars_pass(text: str) -> None:
    assert shown(text) == text
    assert shown(*text) == text  # one character at a time


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\x1b[2J", r"\x1b[2J"), ("\x1b[H", r"\x1b[H"), ("\x1b[5A", r"\x1b[5A"),
        ("\x1b[K", r"\x1b[K"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"), ("\x1bc", r"\x1bc"), ("\x1b[?1m", r"\x1b[?1m"),
        ("\x1b[>4m", r"\x1b[>4m"), ("\x1b[1 m", r"\x1b[1 m"), ("\x9b31m", r"\x9b31m"),
        ("\x08", r"\x08"), ("\x1b", r"\x1b"), ("\x1b[31", r"\x1b[31"),
        ("\x1b\x1b[31m", "\\x1b" + RED),
        ("\x1b[" + "1" * (MAX_SGR + 1) + "m", r"\x1b[" + "1" * (MAX_SGR + 1) + "m"),
        ("\u202eexe", r"\u202eexe"), ("\x1b[3\n1m", "\\x1b[3\n1m"),
    ],
)  # fmt: skip
def test_everything_else_is_shown_as_an_escape(text: str, escaped: str) -> None:
    assert shown(text) == escaped
    assert shown(*text) == escaped


@given(text=HOSTILE, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_wherever_a_piece_ends_it_is_the_same_and_harmless(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    assert shown(*pieces) == shown(text)
    assert dangers(PASSES.sub("", shown(text))) == []


@given(text=HOSTILE)
def test_at_most_a_few_bytes_are_held_back(text: str) -> None:
    some = Filter()
    now = some.feed(text)
    assert len(some.end()) <= MAX_SGR + len(r"\x1b[")
    assert now is not None


# Where lines of hwsync's own stand among it


def test_colours_are_as_before_at_the_end_and_before_a_line_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = both(monkeypatch)
    screen = Screen()
    screen.program("stdout", f"{RED}a")
    screen.tell("ours")
    screen.program("stderr", f"{RED}b\n")
    screen.end()
    assert terminal.getvalue() == f"{RED}a{PLAIN}\nours\n{RED}b\n{PLAIN}"


def test_a_colour_that_the_program_took_back_is_not_taken_back_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = both(monkeypatch)
    screen = Screen()
    screen.program("stdout", f"{RED}a\x1b[0;0mb\n")
    screen.tell("ours")
    screen.end()
    assert terminal.getvalue() == f"{RED}a\x1b[0;0mb\nours\n"


def test_a_line_of_ours_does_not_stand_behind_what_was_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = both(monkeypatch)
    screen = Screen()
    screen.program("stdout", "a\n")
    terminal.write("^C")
    screen.begin_line()
    screen.tell("ours")
    screen.tell("again")
    assert terminal.getvalue() == "a\n^C\nours\nagain\n"


def test_a_line_among_the_output_begins_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = both(monkeypatch)
    screen = Screen()
    screen.program("stdout", f"{RED}10%\r")
    screen.note("stdout", "[hwsync: \x1b]]")
    screen.program("stdout", "b\n")
    screen.note("stderr", "[hwsync]")
    screen.end()
    assert terminal.getvalue() == f"{RED}10%\r{PLAIN}\n[hwsync: \\x1b]]\nb\n[hwsync]\n"


def test_the_hint_comes_once_and_only_where_escapes_were_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = both(monkeypatch)
    screen = Screen()
    screen.program("stdout", f"{RED}a{PLAIN}\r\n")
    screen.end()
    assert "--raw" not in terminal.getvalue()
    screen.program("stdout", "a\x1b[2J\n")
    screen.program("stderr", "b\x1b[2J")
    screen.program("stderr", "c\x1b")
    screen.end()
    screen.end()
    assert terminal.getvalue().count("--raw") == 1
    assert terminal.getvalue().endswith("terminal\n")
    assert "bc" not in terminal.getvalue()
    assert "c\\x1b\nhwsync: " in terminal.getvalue()


def test_raw_lets_it_all_through(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = both(monkeypatch)
    screen = Screen(raw=True)
    screen.program("stdout", "\x1b[2J\x1b")
    screen.end()
    assert terminal.getvalue() == "\x1b[2J\x1b"


def test_a_file_gets_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = File(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    screen = Screen()
    assert screen.files == {"stdout"}
    assert not screen.together
    screen.program("stdout", f"{RED}\x1b[2J\x1b")
    screen.note("stdout", "[hwsync]")
    screen.program("stdout", "b\n")
    screen.note("stdout", "[hwsync]")
    screen.end()
    assert out.buffer.getvalue().decode() == f"{RED}\x1b[2J\x1b\n[hwsync]\nb\n[hwsync]\n"
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_json_shows_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = both(monkeypatch)
    screen = Screen(silent=True)
    screen.program("stdout", f"{RED}\x1b")
    screen.note("stdout", "x")
    screen.end()
    assert terminal.getvalue() == ""


def test_streams_that_are_closed_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    screen = Screen()
    screen.program("stdout", f"{RED}a\x1b")
    screen.note("stderr", "x")
    screen.tell("y")
    screen.end()
    assert not screen.together


@pytest.mark.parametrize("one", [True, False])
def test_both_streams_may_be_one_file(one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = os.pipe(), os.pipe()
    with (
        os.fdopen(first[1], "w") as out,
        os.fdopen(second[1], "w") as other,
        os.fdopen(os.dup(first[1]), "w") as again,
    ):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", again if one else other)
        assert Screen().together is one
    for end in (first[0], second[0]):
        os.close(end)


def test_the_line_that_waits_is_taken_away_before_anything_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = both(monkeypatch)
    screen = Screen(begin=lambda: terminal.write("|") and None)
    screen.program("stdout", "a\n")
    screen.note("stdout", "b")
    screen.tell("c")
    assert terminal.getvalue() == "|a\n|b\n|c\n"
