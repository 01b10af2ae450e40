"""What a verdict costs: an analyser of each kind, beside an empty program in the same runner.

The kinds take turns, so that whatever else the machine does meets all of them. Then as many as
there are processors judge at the same time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hwsync.analysers import Run
from hwsync.analysers.engine import Engine
from hwsync.analysers.folder import Analyser, Folder
from hwsync.runner import Job, Runner, Settings, StopSwitch

FILES = {
    "function.py": "def analyse(run):\n    return run.stdout.strip() == '42'\n",
    "builtin.toml": 'builtin = "equals"\n[arguments]\nexpected = "42"\n',
    "shell": "#!/bin/sh\ncat > /dev/null\necho true\n",
}
RUN = Run(id="c1", board="pi1", stdout="42\n", program="print(42)\n", duration=0.1, exit_code=0)


def analysers(folder: Path) -> dict[str, Analyser]:
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    found = Folder(folder).scan()
    return {name: found[name] for name in ("function", "builtin", "shell")}


def judge(engine: Engine, analyser: Analyser) -> None:
    judgement = engine.judge(analyser, RUN)
    if judgement.fault or judgement.analysis["passed"] is not True:
        raise SystemExit(f"{analyser.name}: {judgement}")


def in_turns(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, by name."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number:  # the first one starts the interpreter
                took[name].append((time.perf_counter() - began) * 1000)
    return took


def at_once(analyser: Analyser, threads: int, rounds: int) -> float:
    """Verdicts a second."""
    with Engine(at_once=threads) as engine:
        engine.start()

        def some() -> None:
            for _ in range(rounds):
                judge(engine, analyser)

        workers = [threading.Thread(target=some) for _ in range(threads)]
        began = time.perf_counter()
        for one in workers:
            one.start()
        for one in workers:
            one.join()
        return threads * rounds / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100, help="default 100")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder, place = Path(name) / "analysers", Path(name) / "programs"
        folder.mkdir()
        place.mkdir()
        found = analysers(folder)
        runner = Runner(Settings(place, empty_directory=True))

        def empty() -> None:
            job = Job("pass", "", (), 10.0)
            runner.run(
                job, on_started=lambda group: None, on_output=lambda piece: None, stop=StopSwitch()
            )

        with Engine(at_once=1) as engine:

            def way(analyser: Analyser) -> Callable[[], None]:
                return lambda: judge(engine, analyser)

            ways = {"an empty program": empty} | {kind: way(one) for kind, one in found.items()}
            took = in_turns(ways, options.rounds)
        runner.close()
        for kind, times in took.items():
            ordered = sorted(times)
            worst = ordered[int(0.95 * (len(ordered) - 1))]
            print(f"{kind:17} {statistics.median(ordered):6.1f} ms   95 %: {worst:6.1f} ms")
        rate = at_once(found["function"], threads, options.rounds)
        print(f"function, {threads} at a time: {rate:.0f} verdicts/s")


if __name__ == "__main__":
    main()
