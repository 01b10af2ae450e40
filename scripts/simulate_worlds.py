"""The simulation that scripts/simulate runs: many worlds, each from one seed, on all cores.

The law: a seed decides a world completely, on any machine with the same versions, so what was found
once is found again. Exit code 1: a promise was not kept, or a mutant survived.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hwsync.testing.broker import BROKERS
from hwsync.testing.faults import FAULTS
from hwsync.testing.mutants import MUTANTS
from hwsync.testing.switched_off import Mutant, changed
from hwsync.testing.world import Report, World

EACH: Final = 3_000  # steps with faults in one world; what follows until it is at rest comes on top
WORLDS: Final = 1_000  # in which a mutant may survive, until that is said
ALONE: Final = 60  # worlds in which a safeguard that is covered by another is switched off alone
MEMORY: Final = Path("/dev/shm")  # files that no power cut has to survive
LINE_S: Final = 10.0  # between two lines of progress, where no terminal refreshes one
BAR: Final = 30  # characters
BROKEN: Final = "broken without the mutant too,"
SHOWN: Final = 3  # worlds whose traces are printed
_folders: set[Path] = set()  # of the worlds that live in this process


@contextmanager
def folder() -> Iterator[Path]:
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="hwsync-world-", dir=where))
    _folders.add(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _folders.discard(path)


def live(
    seed: int,
    steps: int,
    broker: str | None,
    faults: tuple[str, ...],
    largest: bool = False,
    instants: bool | None = None,
    files: bool | None = None,
    analysts: bool | None = None,
) -> Report:
    """One world from its beginning to its end."""
    habits = next((one for one in BROKERS if one.name == broker), None)
    with folder() as path:
        return World(seed, path, steps=steps, habits=habits, faults=faults or None,
                     largest=largest, instants=instants, files=files,
                     analysts=analysts).run()  # fmt: skip


def hunt(mutant: Mutant, first: int, worlds: int, *, cover: bool) -> tuple[int, int, str]:
    """(worlds, steps, violation) until a mutant was caught; none, or ``BROKEN``: it was not."""
    steps = 0
    with changed(mutant.edits + (mutant.cover if cover else ())):
        for number in range(worlds):
            report = _lived(first + number, mutant)
            steps += report.steps
            if report.violations:
                break
        else:
            return worlds, steps, ""
    # What hwsync itself does in that world proves nothing.
    innocent = _lived(report.seed, mutant)
    if innocent.violations:
        return number + 1, steps, f"{BROKEN} seed {report.seed}: simulate it first"
    return number + 1, steps, str(report.violations[0])


def _lived(seed: int, mutant: Mutant) -> Report:
    kinds = (mutant.largest, mutant.instants, mutant.files, mutant.analysts)
    return live(seed, EACH, mutant.broker, mutant.faults, *kinds)


def _deaf() -> None:
    """Ctrl-C is for the parent; a world that has begun ends, which takes a second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound()


def _bound() -> None:
    """This process ends when its parent does, however that ended."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    for path in list(_folders):
        shutil.rmtree(path, ignore_errors=True)
    os._exit(1)


class Progress:
    """One refreshed line on a terminal, one now and then elsewhere; on standard error."""

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit = total, unit
        self._began = time.monotonic()
        self._said_at = self._began
        self._terminal = sys.stderr.isatty()

    def tell(self, done: int, more: str = "") -> None:
        now = time.monotonic()
        if not self._terminal and now - self._said_at < LINE_S:
            return
        self._said_at = now
        share = min(done / self._total, 1.0)
        bar = "#" * int(share * BAR)
        rate = done / max(now - self._began, 1e-9)
        line = f"[{bar:{BAR}}] {done:,} {self._unit}, {rate:,.0f}/s{more}"
        print(f"\r\033[K{line}" if self._terminal else line, end="" if self._terminal else "\n",
              file=sys.stderr, flush=True)  # fmt: skip

    def end(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


class Totals:
    """What many worlds came to."""

    def __init__(self) -> None:
        self.worlds = self.steps = self.commands = self.judged = 0
        self.seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        self.broken: list[Report] = []

    def add(self, report: Report) -> None:
        self.worlds += 1
        self.steps += report.steps
        self.seconds += report.seconds
        self.commands += report.commands
        self.judged += report.judged
        self.faults += report.faults
        self.ran += report.ran
        if report.violations:
            self.broken.append(report)


def simulate(options: argparse.Namespace) -> Totals:
    """Worlds on all cores until the steps, or the seeds, are done. Ctrl-C ends it early."""
    totals = Totals()
    progress = Progress(options.steps, "steps")
    seeds = iter(range(options.seed, options.seed + (options.seeds or sys.maxsize - options.seed)))
    pool = ProcessPoolExecutor(options.jobs, initializer=_deaf)
    running: set[Future[Report]] = set()
    try:
        while True:
            while len(running) < 2 * options.jobs and totals.steps < options.steps:
                seed = next(seeds, None)
                if seed is None:
                    break
                running.add(pool.submit(live, seed, options.each, options.broker, options.faults))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                totals.add(one.result())
            broken = f", {len(totals.broken)} worlds broken" if totals.broken else ""
            progress.tell(totals.steps, broken)
    except KeyboardInterrupt:
        print("\nended early; this is what was seen so far", file=sys.stderr)
        pool.shutdown(wait=False, cancel_futures=True)
    else:
        pool.shutdown()
    progress.end()
    return totals


def tell(totals: Totals, options: argparse.Namespace, seconds: float) -> None:
    """The figures, and each violation with the command that shows it again."""
    for report in sorted(totals.broken, key=lambda report: report.seed)[:SHOWN]:
        print(f"\nseed {report.seed} ({report.broker}):")
        for line in report.trace:
            print(f"  {line}")
        for violation in report.violations[:5]:
            print(f"VIOLATION {violation}")
        print(f"again: {again(report.seed, options)}")
    for report in totals.broken[SHOWN:]:
        print(f"VIOLATION {report.violations[0]}\nagain: {again(report.seed, options)}")
    print(f"first seed: {options.seed}")
    print(f"worlds: {totals.worlds:,}")
    print(f"steps: {totals.steps:,} in {seconds:.0f} s, {totals.steps / seconds:,.0f} a second")
    print(f"simulated time: {totals.seconds / 3_600:.1f} h")
    print(f"commands: {totals.commands:,}, ran {_counts(totals.ran)}")
    print(f"judged by an analyser: {totals.judged:,}")
    print("faults that took effect:")
    for kind, count in sorted(totals.faults.items()):
        print(f"  {count:9,}  {kind}")
    print(f"violations: {sum(len(report.violations) for report in totals.broken)}")


def again(seed: int, options: argparse.Namespace) -> str:
    """The command line that replays one world."""
    more = f" --each {options.each}" if options.each != EACH else ""
    more += f" --broker {options.broker}" if options.broker else ""
    more += f" --faults '{','.join(options.faults)}'" if options.faults else ""
    return f"scripts/simulate --seeds 1 --seed {seed}{more}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))


def hunts(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each mutant as soon as it is caught, alone or together with what covers it."""
    left = [one.name for one in MUTANTS if options.mutant in one.name]
    worlds = options.seeds or WORLDS
    progress, ended = Progress(len(left), "mutants"), 0
    pool = ProcessPoolExecutor(options.jobs, initializer=_bound)
    running: set[Future[dict[str, Any]]] = set()
    try:
        while left or running:
            while left and len(running) < options.jobs:  # so that Ctrl-C leaves nothing to be begun
                running.add(pool.submit(_hunted, left.pop(0), options.seed, worlds))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            progress.end()
            yield from (one.result() for one in done)
            ended += len(done)
            progress.tell(ended)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        progress.end()


def _hunted(name: str, first: int, worlds: int) -> dict[str, Any]:
    mutant = next(one for one in MUTANTS if one.name == name)
    alone = hunt(mutant, first, ALONE if mutant.cover else worlds, cover=False)
    said: dict[str, Any] = {"safeguard": mutant.name, "with": ""}
    if not alone[2] and mutant.cover:
        said["with"] = mutant.covered_by
        alone = hunt(mutant, first, worlds, cover=True)
    return said | {"worlds": alone[0], "steps": alone[1], "caught": alone[2]}


def tell_hunts(options: argparse.Namespace, began: float) -> int:
    """Print each verdict as it comes, with ``--json`` all at the end; return the exit code."""
    found: list[dict[str, Any]] = []
    try:
        for one in hunts(options):
            found.append(one)
            if not options.json:
                covered = f" (with: {one['with']})" if one["with"] else ""
                caught = one["caught"][:90] or "SURVIVED"
                line = f"{one['safeguard']}{covered}: after {one['steps']:,} steps: {caught}"
                print(line.replace("\n", " "), flush=True)
    except KeyboardInterrupt:
        print("\nended early", file=sys.stderr)
        return 130
    survived = [one for one in found if not one["caught"] or BROKEN in one["caught"]]
    if options.json:
        print(json.dumps(found))
    else:
        print(f"mutants: {len(found)}, survived: {len(survived)}, "
              f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return int(bool(survived))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description="Run the real coordinator and devices in worlds of faults, and check every "
        "promise of docs/protocol.md. A step is a delivered message, a timer or a fault.",
        epilog=f"Kinds of faults: {', '.join(FAULTS)}. docs/reliability.md says more.",
    )
    add = parser.add_argument
    add(
        "--steps",
        type=_positive,
        default=100_000,
        metavar="N",
        help="steps in all  [default: 100000]",
    )
    add("--seeds", type=_positive, metavar="N", help="so many worlds at most")
    add("--seed", type=int, metavar="S", help="the first seed  [default: random, and printed]")
    add(
        "--each",
        type=_positive,
        default=EACH,
        metavar="N",
        help=f"steps with faults in one world  [default: {EACH}]",
    )
    add(
        "--broker",
        default="",
        choices=[one.name for one in BROKERS],
        help="its habits  [default: as the seed says]",
    )
    add(
        "--faults",
        default="",
        metavar="KINDS",
        help="only these, with commas between; 'none': no faults  [default: as the seed says]",
    )
    add(
        "--jobs",
        type=_positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="worlds at the same time  [default: one for each core]",
    )
    add(
        "--mutants",
        action="store_true",
        help="switch off each safeguard in turn, and see that this is found out",
    )
    add("--mutant", default="", metavar="TEXT", help="only those whose name contains it")
    add("--json", action="store_true", help="the figures as one JSON object")  # fmt: skip
    options = parser.parse_args(argv)
    names = [name for name in options.faults.split(",") if name not in ("", "none")]
    unknown = sorted(set(names) - FAULTS.keys())
    if unknown:
        parser.error(f"unknown faults {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    options.faults = tuple(names) or (("none",) if options.faults else ())
    if options.seed is None:
        options.seed = 1 if options.mutants else random.randrange(10**6)
    return options


def _positive(text: str) -> int:
    try:
        number = int(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    began = time.monotonic()
    if options.mutants or options.mutant:
        return tell_hunts(options, began)
    totals = simulate(options)
    if options.json:
        print(json.dumps({
            "seed": options.seed, "worlds": totals.worlds, "steps": totals.steps,
            "commands": totals.commands, "ran": totals.ran, "judged": totals.judged,
            "faults": totals.faults,
            "broken": [{"seed": one.seed, "violations": list(map(str, one.violations))}
                       for one in totals.broken],
            "seconds": time.monotonic() - began,
        }))  # fmt: skip
    else:
        tell(totals, options, time.monotonic() - began)
    return int(bool(totals.broken))


if __name__ == "__main__":
    sys.exit(main())
