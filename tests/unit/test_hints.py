"""cli.hints: what to do after a run that did not end well."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.cli.hints import hints
from hwsync.cli.request import Asked

EOF = "Traceback (most recent call last):\n  …\nEOFError: EOF when reading a line\n"
BASH = "#!/bin/bash\necho $HOME\n"


def asked(program: str = "1", file: str | None = "x.py", **changes: Any) -> Asked:
    return Asked(**{"id": "c1", "payload": b"", "program": program, "file": file, "timeout": 10.0,
                    "stdin": False, **changes})  # fmt: skip


def said(request: Asked, outcome: str, stderr: str = "", reason: str = "") -> str:
    return "\n".join(hints({"outcome": outcome, "stderr": stderr, "reason": reason}, request))


@pytest.mark.parametrize("outcome", ["ok", "killed", "cancelled", "expired", "rejected", "lost"])
def test_most_ends_need_no_hint(outcome: str) -> None:
    assert said(asked(BASH), outcome, EOF, "time limit of 1 s") == ""


def test_a_time_limit_names_the_option() -> None:
    hint = said(asked(), "timeout", reason="time limit of 10 s")
    assert hint == "  --timeout SECONDS before FILE lets it run longer; it was 10"
    hint = said(asked(file=None, timeout=0.3), "timeout", reason="time limit of 0.3 s")
    assert hint == "  --timeout SECONDS lets it run longer; it was 0.3"


@pytest.mark.parametrize("reason", ["", "TIMEOUT", "time limit of 2e s", "time limit of . s"])
def test_a_reason_in_other_words_is_no_boards_limit(reason: str) -> None:
    assert "--timeout" in said(asked(), "timeout", reason=reason)


@pytest.mark.parametrize(
    ("timeout", "limit", "own"),
    [(60.0, "5", True), (1e6, "3600", True), (1234564.0, "1.23456e+06", False), (5.0, "5", False)],
)
def test_a_boards_own_limit_is_no_matter_of_the_option(
    timeout: float, limit: str, own: bool
) -> None:
    hint = said(asked(timeout=timeout), "timeout", reason=f"time limit of {limit} s")
    assert ("max_timeout_s" in hint) is own
    assert ("--timeout" in hint) is not own


def test_a_program_that_asks_says_how_to_answer() -> None:
    assert "--stdin FILE" in said(asked(), "error", EOF)
    assert said(asked(stdin=True), "error", EOF) == ""
    assert said(asked(), "error", EOF + "and went on\n") == ""


@pytest.mark.parametrize(
    ("program", "last", "hinted"),
    [
        (BASH, "SyntaxError: invalid syntax", True),
        (BASH, "NameError: name 'echo' is not defined", True),
        ("#!/usr/bin/env node\nx", "IndentationError: unexpected indent", True),
        (BASH, "ZeroDivisionError: division by zero", False),
        (BASH, "", False),
        ("#!/usr/bin/python3.11 -u\nx", "NameError: name 'x' is not defined", False),
        ("#!/usr/bin/env -S uv run\nx", "NameError: name 'x' is not defined", False),
        ("#!/usr/bin/pypy3\nx", "NameError: name 'x' is not defined", False),
        ("x\n#!/bin/bash", "NameError: name 'x' is not defined", False),
    ],
)
def test_another_language_is_named(program: str, last: str, hinted: bool) -> None:
    hint = said(asked(program, "x.sh"), "error", f"  File …\n{last}\n")
    assert hint.startswith("hwsync: x.sh begins with #!") is hinted
    assert bool(hint) is hinted
    if hinted:
        assert "programs.interpreter" in hint


def test_code_that_has_no_file_is_the_program() -> None:
    for file in (None, "-"):
        assert said(asked(BASH, file), "error", "SyntaxError: x").startswith("hwsync: the program")
