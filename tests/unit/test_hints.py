"""cli.hints: what to do after a run that did not end well."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.cli.common import own_words
from hwsync.cli.hints import hints
from hwsync.cli.request import Asked
from hwsync.cli.run import _print_end
from hwsync.cli.screen import Screen
from hwsync.operator.run import RunRequest
from hwsync.protocol.errors import Code
from hwsync.protocol.events import CancelAsked, Requested
from hwsync.protocol.grouped import _refused_by_all
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.protocol.machine import Rules, hole
from hwsync.protocol.record import Command, Record, Request, State, Verb

EOF = "Traceback (most recent call last):\n  …\nEOFError: EOF when reading a line\n"
BASH = "#!/bin/bash\necho $HOME\n"


def asked(program: str = "1", file: str | None = "x.py", **changes: Any) -> Asked:
    request = RunRequest(**{"program": program, "id": "c1", "timeout": 10.0, **changes})
    return Asked(request, file)


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
    assert said(asked(stdin=""), "error", EOF) == ""
    assert said(asked(), "error", EOF + "and went on\n") == ""


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("exit code 1", ""),
        ("exit code 1; stdout cut: 300,000 bytes", ""),
        ("exit code 1 (MemoryError; memory_mb = 200)",
         "hwsync: exit code 1 (MemoryError; memory_mb = 200)"),
        ("exit code 1 (its first line asks for /bin/bash); stdout cut: 9 bytes",
         "hwsync: exit code 1 (its first line asks for /bin/bash)"),
    ],
)  # fmt: skip
def test_what_the_device_knows_of_an_exit_code_is_shown(reason: str, shown: str) -> None:
    assert said(asked(), "error", "SyntaxError: x", reason) == shown


@pytest.mark.parametrize("state", State)
def test_the_command_line_says_its_own_words_for_what_is_accepted(state: State) -> None:
    record = Record("pi1", state, current=Command("pi1", "c1", Request("1")))
    said = {
        State.REST: "it waits for a request (hwsync run pi1 FILE)",
        State.REQUESTED: "to take it back: hwsync cancel pi1",
        State.COLLECTED: "to stop it: hwsync cancel pi1",
        State.RETURNED: "it waits for its analysis: hwsync analyse pi1 TEXT",
    }[state]
    for root in ("hw", "a/b-c"):
        for event in (Requested(Request("1")), CancelAsked()):
            hint = own_words(hole(record, event, Rules(root)).hint)
            assert said in hint
            assert "mosquitto" not in hint
            assert hint.endswith("; --queue lets a request wait behind it") is (
                event.verb is Verb.REQUEST
            )
    assert own_words("first --queue") == "first --queue"


def test_a_group_that_is_busy_is_told_of_the_option_too() -> None:
    hint = own_words(_refused_by_all("lab1", [Code.BUSY]).hint)
    assert hint == "nothing was stored. --queue lets a request wait behind it"


@pytest.mark.parametrize(
    ("left_out", "limit", "said"),
    [("900,000", 131_072, True), ("900,000", MAX_MESSAGE, False), ("7", 131_072, False)],
)
def test_an_output_that_the_brokers_limit_cuts_names_it(
    left_out: str, limit: int, said: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    end = {"outcome": "ok", "stderr": "", "reason": "", "truncated": True, "user": "pi1",
           "hw_response": f"first\n[hwsync: {left_out} bytes left out]\nlast\n"}  # fmt: skip
    _print_end(end, asked(), Screen(), 0, limit, "")
    told = capfd.readouterr().err
    assert "longer than is kept" in told
    assert ("the broker takes messages of at most 131,072 bytes" in told) is said
