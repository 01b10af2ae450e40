"""The fuzzing that scripts/fuzz runs: hostile payloads, packets, and a lab that gets both.

The law: a seed and a number decide an input completely, and what is found is printed with the
command that repeats it. Exit code 1: something was found.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from simulate_worlds import MEMORY, Progress

from tests.support.brokers import MosquittoBroker
from tests.support.fuzz_broker import GROWTH as SIEGE_GROWTH
from tests.support.fuzz_broker import besiege, fortress
from tests.support.fuzz_hypothesis import examples
from tests.support.fuzz_lab import GROWTH as STORM_GROWTH
from tests.support.fuzz_lab import rage
from tests.support.fuzz_run import GROWTH, Fault, Report, Run, totals
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process

PAYLOADS: Final = 1_000_000
LAB: Final = 40_000  # its memory is level after the first 20,000
ATTACKS: Final = 20_000
EXAMPLES: Final = 100  # one example of hypothesis for so many payloads
SHOWN: Final = 300  # bytes of a payload


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hwsync-fuzz-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# Payloads through every reader


def parsers(options: argparse.Namespace) -> int:
    logging.disable()  # what a reader logs is not the question
    with folder() as where:
        run = Run(options.seed, where)
        if options.payload is not None:
            run.everywhere(base64.b64decode(options.payload))
        elif options.number is not None:
            run.run(1, options.number)
        else:
            progress = Progress(options.count, "payloads")
            run.run(options.count, tell=progress.tell)
            progress.end()
            progress = Progress(options.count // EXAMPLES, "examples of hypothesis")
            examples(run, options.count // EXAMPLES, tell=progress.tell)
            progress.end()
        return _told(run.report)


def _told(report: Report) -> int:
    calls = totals(report.outcomes)
    seconds, target, number = report.slowest
    print(f"seed {report.seed}: {report.payloads:,} payloads, {report.calls:,} calls of readers, "
          f"{report.seconds:.0f} s")  # fmt: skip
    print("  " + ", ".join(f"{name} {count:,}" for name, count in sorted(calls.items())))
    print(f"  slowest: {seconds * 1000:.0f} ms, {target}, number {number}")
    if report.memory:
        megabytes = ", ".join(f"{one / 2**20:.1f}" for one in report.memory)
        print(f"  memory after each quarter, MiB: {megabytes}")
    for fault in report.faults:
        _show(report.seed, fault)
    if report.growth > GROWTH:
        print(f"MEMORY GROWS: {report.growth:,} bytes in each of the last two quarters")
    return int(bool(report.faults) or report.growth > GROWTH)


def _show(seed: int, fault: Fault) -> None:
    print(f"FOUND by {fault.target}: {fault.what[:SHOWN]!a}")
    more = f" … ({len(fault.payload)} bytes)" if len(fault.payload) > SHOWN else ""
    print(f"  payload {fault.payload[:SHOWN]!r}{more}")
    if fault.number >= 0:
        print(f"  again: scripts/fuzz parsers --seed {seed} --number {fault.number}")
    else:
        print(f"  again: scripts/fuzz parsers --payload {base64.b64encode(fault.payload).decode()}")


# Packets against the embedded broker


def broker(options: argparse.Namespace) -> int:
    with folder() as where:
        served, port = fortress(where)
        served.start()
        progress = Progress(options.count, "attacks")
        first, count = (0, options.count) if options.number is None else (options.number, 1)
        try:
            siege = asyncio.run(
                besiege(served, port, options.seed, count, first, tell=progress.tell)
            )
        finally:
            served.stop()
    progress.end()
    print(f"seed {siege.seed}: {siege.attacks:,} attacks, {siege.seconds:.0f} s")
    for counted in (siege.kinds, siege.ends):
        print("  " + "; ".join(f"{name}: {count:,}" for name, count in sorted(counted.items())))
    normal = sorted(siege.normal_s)
    print(
        f"  {len(normal)} clients that behave were served meanwhile, in {normal[-1]:.1f} s or less"
    )
    print(f"  closed by the broker at most {siege.longest_s:.1f} s after the last byte")
    if siege.memory:
        megabytes = ", ".join(f"{one / 2**20:.1f}" for one in siege.memory)
        print(f"  its memory after each quarter, MiB: {megabytes}")
    print(f"  its sockets before and after: {siege.connections[0]}, {siege.connections[1]}")
    for fault in siege.faults:
        print(f"FOUND: {fault}")
    if siege.faults:
        print(f"  one attack again: scripts/fuzz broker --seed {siege.seed} --number NUMBER")
    if siege.growth > SIEGE_GROWTH:
        print(f"MEMORY GROWS: {siege.growth:,} bytes from the second quarter to the last")
    return int(bool(siege.faults) or siege.growth > SIEGE_GROWTH)


# Payloads over a real broker to a real lab


def lab(options: argparse.Namespace) -> int:
    started: list[Process] = []

    def start(command: list[str | Path], *, name: str, **more: Any) -> Process:
        started.append(Process(command, name=name, directory=where, **more))
        return started[-1]

    with folder() as where:
        served = MosquittoBroker(where / "broker")
        served.start()
        watcher = Watcher(served, "hw/pi1/#")
        progress = Progress(options.count, "payloads")
        try:
            made = Lab(served, start, where)
            made.coordinator("--settle", "1")
            made.device()
            storm = rage(made, watcher, options.seed, options.count, tell=progress.tell)
        except (AssertionError, pytest.fail.Exception) as error:
            print(f"FOUND, seed {options.seed}: {error}")
            return 1
        finally:
            watcher.close()
            for process in reversed(started):
                process.stop()
            served.stop()
    progress.end()
    print(f"seed {storm.seed}: {storm.sent:,} payloads sent, {storm.left_out:,} left out, "
          f"{storm.seconds:.0f} s")  # fmt: skip
    print(f"  unreadable {storm.unreadable:,}, refused in all {storm.refused:,}")
    for name, memory in storm.memory.items():
        megabytes = ", ".join(f"{one / 2**20:.1f}" for one in memory)
        print(f"  memory of the {name} after each quarter, MiB: {megabytes}")
    return int(storm.growth > STORM_GROWTH)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="WHAT")

    def command(name: str, help: str, call: object, count: int) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=help, description=help)
        one.add_argument("--count", type=int, default=count, help=f"how many (default {count:,})")
        one.add_argument("--seed", type=int, default=random.randrange(10**6), help="printed")
        one.set_defaults(call=call)
        return one

    one = command("parsers", "payloads, topics and files through every reader", parsers, PAYLOADS)
    one.add_argument("--number", type=int, help="only this one of the seed's")
    one.add_argument("--payload", metavar="BASE64", help="only this payload")
    one = command("broker", "malformed packets against hwsync broker", broker, ATTACKS)
    one.add_argument("--number", type=int, help="only this one of the seed's")
    command("lab", "payloads over mosquitto to a coordinator and a device", lab, LAB)
    options = parser.parse_args()
    return int(options.call(options))


if __name__ == "__main__":
    sys.exit(main())
