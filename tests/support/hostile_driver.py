"""A runner as a process of its own: a job a line in, how it ended and what it left a line out.

Run as a file, also by an interpreter that has nothing but hwsync's own files in its path:
``hostile_driver.py FOLDER SETTINGS``, the settings as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from hwsync.protocol.errors import CannotRun
from hwsync.runner import Isolation, Job, Limits, Runner, Settings, StopSwitch
from hwsync.runner.processes import read_process

FOLDER = Path(sys.argv[1])


def left_over(runner: Runner) -> list[str]:
    """What lives with our mark in its environment beside us and the fork server."""
    mark = f"MARK={os.environ['MARK']}\0".encode()
    ours = {os.getpid(), runner._idle.pid if runner._idle is not None else 0}
    found = []
    for name in os.listdir("/proc"):
        process = read_process(int(name)) if name.isdecimal() else None
        try:
            mine = mark in Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue  # it is gone, or another account's
        if mine and process is not None and process.alive and process.pid not in ours:
            found.append(f"{process.pid} ({process.state}) of session {process.session}")
    return found


def run(runner: Runner, program: str, timeout: float) -> dict[str, Any]:
    began = time.monotonic()
    try:
        end = runner.run(
            Job(program, "", (), timeout),
            on_started=lambda group: None,
            on_output=lambda piece: None,
            stop=StopSwitch(),
        )
        outcome, reason, code = end.outcome, end.reason, end.exit_code
        text, complaint = end.response, end.stderr
    except CannotRun as error:
        outcome, reason, code, text, complaint = "rejected", str(error), None, "", ""
    took = time.monotonic() - began
    return {"outcome": outcome, "reason": reason, "exit_code": code, "response": text[-2000:],
            "stderr": complaint[-2000:], "took": took}  # fmt: skip


def main() -> None:
    given = json.loads(sys.argv[2])
    limits = Limits(**given.pop("limits"))
    isolation = Isolation(given.pop("isolation"))
    (FOLDER / "work").mkdir(exist_ok=True)
    settings = Settings(
        FOLDER / "work", empty_directory=True, limits=limits, isolation=isolation, **given
    )
    runner = Runner(settings, alone=True)
    runner.start()
    for line in sys.stdin:
        job = json.loads(line)
        said = run(runner, job["program"], job["timeout"])
        said["left"] = left_over(runner)
        said["next"] = run(runner, "print(6*7)", 10.0)
        print(json.dumps(said), flush=True)
    runner.close()


main()
