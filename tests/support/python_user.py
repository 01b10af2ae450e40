"""A user's program that uses all of ``import hwsync``, for mypy and for a test that runs it."""

from __future__ import annotations

import platform
import time
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any

import hwsync


def double(number: int) -> int:
    """Called on a board."""
    return 2 * number


def day(lab: hwsync.Lab, folder: Path, first: str, second: str, group: str) -> list[str]:
    """What an operator does in a day; what was found."""
    said: list[str] = []
    program = folder / "speed.py"
    program.write_text("import sys; print('speed', sys.argv[1], sys.stdin.read())")
    run: hwsync.Run = lab.run(
        first, program, args=["2"], stdin="x", timeout=20.0, expires=60.0, grace=10.0,
        meta={"lesson": 3},
    )  # fmt: skip
    said.append(run.stdout)
    assert run.ran == "yes"
    assert run.exit_code == 0
    assert run.duration is not None
    assert run.started is not None
    python: str | float | bool = run.ran_on["python"]
    assert python == platform.python_version()

    def note(ended: Future[hwsync.Run]) -> None:
        said.append(ended.result().outcome or "")

    later = lab.submit(second, "print('a=1 b=2')", name="later.py")
    later.add_done_callback(note)
    for each in as_completed([later]):
        columns: dict[str, list[float]] = each.result().numbers()
        said.append(str(columns))
    for number, line in enumerate(lab.submit(first, "print(1); print(2)")):
        assert line == str(number + 1)
    try:
        lab.run(first, "raise SystemExit(3)")
    except hwsync.NotOk as error:
        code: int | None = error.run.exit_code
        record: Any = error.record["outcome"]
        said.append(f"{code} {record}")
    runs: hwsync.Runs = lab.map("print(7)", [first, second])
    said.append("".join(one.stdout for one in runs.check()))
    timed = lab.run(first, "print('timed')", at=time.time() + 2.0, within=1.0)
    said.append(f"{timed.stdout} {timed.record['start_error'] is not None}")
    told = lab.group(group).run("print(8)")
    said.append(f"{dict(told.counts)} {told[first].stdout} {told.ok}")
    boards: list[hwsync.Board] = lab.boards()
    said.append(str([(board.name, board.online, board.busy) for board in boards]))
    doubled: int = lab.call(double, 21, on=first)
    said.append(str(doubled))
    found = lab.find(first, run.id)
    said.append(found.result(30.0).stdout)
    past: list[dict[str, Any]] = lab.history(first, last=1, name="speed.py")
    said.append(f"{past[0]['id'] == run.id} {past[0]['outcome']}")
    files = lab.run(first, "open('a.txt', 'w').write('7')", get=["a.txt"]).files
    said.append(str(dict(files)))
    return said
