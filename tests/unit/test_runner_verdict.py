"""How a run ended, from what was seen of it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.runner import Job, Limits, Settings
from hwsync.runner.verdict import Seen, verdict

LIMITS = Limits(cpu_s=1, memory_mb=200, output_mb=5, file_size_mb=3)
SETTINGS = Settings(Path("/work"), limits=LIMITS)
JOB = Job("print(1)", "", (), 10.0)
EXITED = 256  # wait status of exit code 1


def seen(**changes: Any) -> Seen:
    usual = {"why": "", "began": True, "exit": (0, 0.1), "end": "-", "failure": None, "stderr": ""}
    return Seen(**usual | changes)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (seen(), ("ok", "", 0)),
        (seen(exit=(143 * 256, 0.1)), ("error", "exit code 143", 143)),
        (seen(exit=(signal.SIGTERM, 0.1)), ("killed", "killed by SIGTERM", 143)),
        (seen(exit=(signal.SIGKILL, 1.0)), ("killed", "CPU time limit of 1 s", 137)),
        (seen(exit=(signal.SIGKILL, 0.9)), ("killed", "killed by SIGKILL", 137)),
        (seen(exit=(signal.SIGXFSZ, 0.1)), ("killed", "file size limit of 3 MB", 153)),
        (seen(why="time"), ("timeout", "time limit of 10 s", None)),
        (seen(why="time", end="asked"), ("timeout", "time limit of 10 s", None)),
        (seen(why="time", end="asked", forced=2.5),
         ("timeout", "time limit of 10 s; it did not end by itself within 2.5 s", None)),
        (seen(why="time", end="memory"), ("killed", "memory limit of 200 MB", None)),
        (seen(why="output", end="asked"), ("killed", "output limit of 5 MB", None)),
        (seen(why="cancelled", exit=(EXITED, 0.1)), ("cancelled", "cancelled while it ran", None)),
        (seen(why="cancelled", began=False),
         ("cancelled", "cancelled before it began", None)),
        (seen(exit=None, end=""), ("killed", "its parent process was ended, and so it was", None)),
    ],
)  # fmt: skip
def test_an_end_is_called_what_it_was(what: Seen, said: tuple[str, str, int | None]) -> None:
    assert verdict(what, JOB, SETTINGS) == said


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (seen(began=False, failure="no room"), "did not begin: no room"),
        (seen(began=False, why="time"), "did not begin: time limit of 10 s"),
        (seen(began=False, exit=(9, 0.1)), "did not begin: killed by SIGKILL"),
        (seen(began=False, exit=None, end=""), "did not begin: it was ended"),
    ],
)
def test_what_did_not_begin_has_not_run(what: Seen, said: str) -> None:
    with pytest.raises(CannotRun, match=said):
        verdict(what, JOB, SETTINGS)


BASH = "#!/bin/bash\necho $HOME\n"


@pytest.mark.parametrize(
    ("program", "last", "told"),
    [
        (BASH, "SyntaxError: invalid syntax", "/bin/bash"),
        (BASH, "NameError: name 'echo' is not defined", "/bin/bash"),
        ("#! /usr/bin/env node\nx", "IndentationError: unexpected indent", "/usr/bin/env node"),
        (BASH, "ZeroDivisionError: division by zero", ""),
        (BASH, "", ""),
        ("#!/usr/bin/python3.11 -u\nx", "NameError: name 'x' is not defined", ""),
        ("#!/usr/bin/env -S uv run\nx", "NameError: name 'x' is not defined", ""),
        ("#!/usr/bin/pypy3\nx", "NameError: name 'x' is not defined", ""),
        ("x\n#!/bin/bash", "NameError: name 'x' is not defined", ""),
    ],
)
def test_another_language_is_named(program: str, last: str, told: str) -> None:
    what = seen(exit=(EXITED, 0.1), stderr=f"  File …\n{last}\n")
    _, reason, _ = verdict(what, Job(program, "", (), 10.0), SETTINGS)
    more = f" (its first line asks for {told}, and this board runs Python)" if told else ""
    assert reason == f"exit code 1{more}"
    elsewhere = Settings(Path("/work"), interpreter=("/bin/bash",))
    assert verdict(what, Job(program, "", (), 10.0), elsewhere)[1] == "exit code 1"
