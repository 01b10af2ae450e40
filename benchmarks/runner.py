"""How long one small program takes, side by side: ``python3 -``, cold, warm, in bubblewrap.

All ways take turns in every round, so that whatever else the machine does falls on all of them; the
figure that counts is the ratio to ``python3 -``. With ``--preload numpy`` a program that imports
the module is timed too, with and without it being ready.
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

from hwsync.protocol.errors import CannotRun
from hwsync.runner import Isolation, Job, Runner, Settings, Start, StopSwitch

AIM = 0.2  # of the time of python3 -


def plain(program: str) -> Callable[[], None]:
    def once() -> None:
        subprocess.run(
            [sys.executable, "-"], input=program.encode(), capture_output=True, check=True
        )

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
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runners = {
            "cold": Runner(Settings(folder, start=Start.COLD)),
            "warm": Runner(Settings(folder)),
        }
        if shutil.which("bwrap"):
            runners["bwrap"] = Runner(Settings(folder, isolation=Isolation.BWRAP))
        else:
            print("bubblewrap is missing (apt-get install bubblewrap)", file=sys.stderr)
        ways = {"python3 -": plain("print(1)")}
        ways |= {way: through(runner, "print(1)") for way, runner in runners.items()}
        if options.preload:
            program = f"import {options.preload}"
            runners["ready"] = Runner(Settings(folder, preload=(options.preload,)))
            ways[f"python3 -, {program}"] = plain(program)
            ways[f"warm, {program}"] = through(runners["warm"], program)
            ways[f"preload, {program}"] = through(runners["ready"], program)
            ways["preload, print(1)"] = through(runners["ready"], "print(1)")
        try:
            for once in ways.values():
                once()
            times = measure(ways, options.rounds)
        except CannotRun as error:
            raise SystemExit(f"benchmarks/runner.py: {error}") from None
        finally:
            for runner in runners.values():
                runner.close()
    show(times, as_json=options.json)


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


def show(times: dict[str, list[float]], *, as_json: bool) -> None:
    floor = statistics.median(times["python3 -"])
    rows = {
        way: {
            "min_ms": min(all_),
            "median_ms": statistics.median(all_),
            "ratio": statistics.median(all_) / floor,
        }
        for way, all_ in times.items()
    }
    if as_json:
        print(json.dumps({"rounds": len(times["python3 -"]), "aim": AIM, "ways": rows}))
        return
    print(f"{'':32}{'min ms':>9}{'median ms':>11}{'to python3 -':>14}")
    for way, row in rows.items():
        print(f"{way:32}{row['min_ms']:9.2f}{row['median_ms']:11.2f}{row['ratio']:14.2f}")
    print(f"aim: warm at most {AIM:g} of python3 -")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
