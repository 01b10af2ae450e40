"""How late programs are released at their instant, and how far apart several of them.

Each round prepares some programs, each with a runner of its own, gives them one instant, and reads
when each began, from what its process has written. The clock is this machine's own, so that only
the release is measured; what lab time adds is its bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
from pathlib import Path

from hwsync.raw_clock import asleep_us
from hwsync.runner import Instant, Job, Prepared, RunEnd, Runner, Settings, StopSwitch, raw_ns

AHEAD_NS = 100_000_000  # from the last preparation to the instant
START_AT_US = 1_700_000_000_000_000
WITHIN_US = 1_000_000


def round_of(runners: list[Runner]) -> list[int]:
    """Microseconds from the instant to each program's begin."""
    job = Job("pass", "", (), 10.0)
    prepared = [
        runner.prepare(job, on_output=lambda piece: None, stop=StopSwitch()) for runner in runners
    ]
    at = raw_ns() + AHEAD_NS
    ends: list[RunEnd] = []

    def run(one: Prepared) -> None:
        one.aim(Instant(START_AT_US, at, at + 10**10, True, 0, WITHIN_US, asleep_us=asleep_us()))
        ends.append(one.run())

    threads = [threading.Thread(target=run, args=(one,)) for one in prepared]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = [end.lab_us for end in ends if end.lab_us is not None]
    if len(begun) < len(runners):
        raise SystemExit("a program was not released")
    return [lab_us - START_AT_US for lab_us in begun]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="default 50")
    parser.add_argument("--programs", type=int, default=1, help="at the same time; default 1")
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    if min(options.rounds, options.programs) < 1:
        parser.error("--rounds and --programs must be at least 1")
    with tempfile.TemporaryDirectory() as name:
        runners = []
        for number in range(options.programs):
            folder = Path(name) / str(number)
            folder.mkdir()
            runners.append(Runner(Settings(folder)))
        rounds = [round_of(runners) for _ in range(options.rounds)]
        for runner in runners:
            runner.close()
    late = sorted(each for one in rounds for each in one)
    apart = [max(one) - min(one) for one in rounds]
    if options.json:
        print(json.dumps({"late_us": late, "apart_us": apart}))
        return
    print(f"{options.rounds} rounds of {options.programs}; microseconds after the instant:")
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        print(f"  {share:>4.0%}  {late[min(int(share * len(late)), len(late) - 1)]:,}")
    if options.programs > 1:
        print(f"  apart: {statistics.median(apart):,.0f} (median), {max(apart):,} (most)")


if __name__ == "__main__":
    main()
