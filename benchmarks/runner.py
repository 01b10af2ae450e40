"""How long one small program takes, side by side: ``python3 file.py``, cold, warm, in bubblewrap.

All ways take turns in every round, so that whatever else the machine does falls on all of them; the
figure that counts is the ratio to ``python3 file.py``. With ``--preload numpy`` a program that
imports the module is timed too, with and without it being ready. At last a program that prints many
short lines is timed beside the same one whose standard output python3 itself buffers by lines.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsync.protocol.errors import CannotRun
from hwsync.runner import Isolation, Job, Runner, Settings, Start, StopSwitch

FLOOR = "python3 file.py"
AIM = 0.4  # of the time of python3 file.py, for a warm start
LINES_AIM = 1.5  # of the time of python3, for a program that prints many lines
LINES = "for n in range({0}):\n    print(n)\n"
BY_LINES = "import sys\nsys.stdout.reconfigure(line_buffering=True)\n"


def plain(program: str, folder: Path) -> Callable[[], None]:
    """``python3 file.py``, with its output read through pipes."""
    folder.mkdir(exist_ok=True)
    file = folder / f"program-{len(list(folder.iterdir()))}.py"
    file.write_text(program)

    def once() -> None:
        subprocess.run([sys.executable, file.name], cwd=folder, capture_output=True, check=True)

    return once


def through(runner: Runner, program: str) -> Callable[[], None]:
    job = Job(program, "", (), 60.0)

    def once() -> None:
        end = runner.run(
            job, on_started=lambda group: None, on_output=lambda piece: None, stop=StopSwitch()
        )
        if end.outcome != "ok":
            raise SystemExit(f"the program failed: {end.reason}\n{end.stderr}")

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100, help="default 100")
    parser.add_argument("--preload", metavar="MODULE", help="time its import too")
    parser.add_argument("--lines", type=int, default=1_000_000, help="default 1,000,000; 0: none")
    parser.add_argument("--line-rounds", type=int, default=5, help="default 5")
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    with tempfile.TemporaryDirectory() as name:
        folder, files = Path(name) / "work", Path(name) / "files"

        def made(**settings: Any) -> Runner:
            return Runner(Settings(folder, empty_directory=True, **settings))

        runners = {"cold": made(start=Start.COLD), "warm": made()}
        if shutil.which("bwrap"):
            runners["bwrap"] = made(isolation=Isolation.BWRAP)
        else:
            print("bubblewrap is missing (apt-get install bubblewrap)", file=sys.stderr)
        ways = {FLOOR: plain("print(1)", files)}
        ways |= {way: through(runner, "print(1)") for way, runner in runners.items()}
        if options.preload:
            program = f"import {options.preload}"
            runners["ready"] = made(preload=(options.preload,))
            ways[f"{FLOOR}, {program}"] = plain(program, files)
            ways[f"warm, {program}"] = through(runners["warm"], program)
            ways[f"preload, {program}"] = through(runners["ready"], program)
            ways["preload, print(1)"] = through(runners["ready"], "print(1)")
        program = LINES.format(options.lines)
        many = {FLOOR: plain(BY_LINES + program, files)}
        many |= {way: through(runner, program) for way, runner in runners.items()}
        many.pop("ready", None)
        try:
            for once in ways.values():
                once()
            times = measure(ways, options.rounds)
            lines = measure(many, options.line_rounds) if options.lines else {}
        except CannotRun as error:
            raise SystemExit(f"benchmarks/runner.py: {error}") from None
        finally:
            for runner in runners.values():
                runner.close()
    if options.json:
        tables = {"ways": table(times), "lines": table(lines)}
        print(json.dumps({"rounds": options.rounds, "aim": AIM, "lines_aim": LINES_AIM, **tables}))
        return
    show("one short program", times, f"aim: warm at most {AIM:g} of {FLOOR}")
    if lines:
        show(f"{options.lines:,} lines", lines, f"aim: at most {LINES_AIM:g} of {FLOOR}")


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round; the ways take turns."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    told = time.monotonic()
    for number in range(rounds):
        for way, once in ways.items():
            began = time.perf_counter()
            once()
            times[way].append((time.perf_counter() - began) * 1000)
        if time.monotonic() - told > 2:
            told = time.monotonic()
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return times


def table(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The figures of each way."""
    if not times:
        return {}
    floor = statistics.median(times[FLOOR])
    return {
        way: {
            "min_ms": min(all_),
            "median_ms": statistics.median(all_),
            "ratio": statistics.median(all_) / floor,
        }
        for way, all_ in times.items()
    }


def show(title: str, times: dict[str, list[float]], aim: str) -> None:
    """One table for people."""
    print(f"{title:36}{'min ms':>10}{'median ms':>11}{'ratio':>8}")
    for way, row in table(times).items():
        print(f"{way:36}{row['min_ms']:10.2f}{row['median_ms']:11.2f}{row['ratio']:8.2f}")
    print(f"{aim}\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
