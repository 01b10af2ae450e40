"""api.output: who reads what is written meanwhile, and from its beginning."""

from __future__ import annotations

import threading

import pytest

from hwsync.api import output
from hwsync.api.output import Text


def test_each_reader_gets_whole_lines_and_the_rest_at_the_end() -> None:
    text = Text()
    for piece in ("one\ntw", "o\n", "", "three"):
        text.add(piece)
    text.finish()
    assert list(text.lines()) == list(text.lines()) == ["one", "two", "three"]
    assert str(text) == "one\ntwo\nthree"


def test_a_reader_waits_for_what_comes() -> None:
    text, read = Text(), list[str]()
    reader = threading.Thread(target=lambda: read.extend(text.lines()))
    reader.start()
    for number in range(100):
        text.add(f"{number}\n")
    text.finish()
    reader.join(10.0)
    assert read == [str(number) for number in range(100)]


def test_what_nobody_reads_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "KEPT", 10)
    text = Text()
    for number in range(10):
        text.add(f"line {number}\n")
    text.finish()
    assert str(text) == "line 8\nline 9\n"
    assert list(text.lines()) == ["[hwsync: 56 characters are not kept]", "line 8", "line 9"]


def test_one_long_piece_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "KEPT", 10)
    text = Text()
    text.add("x" * 99)
    text.add("y")
    assert len(str(text)) == 100


def test_a_line_without_an_end_fills_no_memory_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "KEPT", 10)
    text, parts = Text(), list[str]()
    lines = text.lines()
    for _ in range(4):
        text.add("x" * 6)
        if len(parts) < 1 and len(str(text)) > 6:
            parts.append(next(lines))
    text.finish()
    assert [*parts, *lines] == ["x" * 12, "x" * 12]
