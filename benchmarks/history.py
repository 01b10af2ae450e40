"""How long it takes to ask what was run, in a lab that has run for years.

The law: figures are printed and nothing is asserted. Each command is started as a person starts it,
so Python's own start counts; the best and the middle of some rounds are shown.

    python benchmarks/history.py [--db FILE] [--commands 250000] [--rounds 5] [--seconds 3]

Without a file one is written first (``past``). Then mosquitto and a coordinator with that database
are started, and the commands asked, over MQTT and with ``--db``. At last whole cycles a second with
that database beside an empty one's, in turns (``cycle``).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from cycle import CHECKOUT, answering, machine, mosquitto, running
from past import fill

from hwsync.address import BrokerUrl
from hwsync.protocol import limits
from hwsync.protocol.history import Wanted
from hwsync.protocol.record import Reply
from hwsync.store.past import Past
from tests.support.lab import HWSYNC

BOARD: Final = "pi07"
APART_S: Final = 1.1 / limits.HISTORY_PER_S  # a board is asked no more often
META: Final = "assignment=lab3"


def asked(db: Path, id: str) -> Iterator[list[str]]:
    """What is typed."""
    for where in ([], ["--db", str(db)]):
        yield ["history", "--last", "20", *where]
        yield ["show", BOARD, id, *where]
        yield ["grades", "--meta", META, *where]
    yield ["show", id]
    yield ["history", "--meta", META]
    yield ["export", "--meta", META]
    yield ["--version"]


def timed(words: Sequence[str], environment: dict[str, str]) -> tuple[float, float, int]:
    """(seconds, of them processor, exit code) of one command."""
    used, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [*HWSYNC, *words]
    code = subprocess.run(command, env=environment, capture_output=True, check=False).returncode
    took, now = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, code


def an_id(db: Path) -> str:
    """Of a command in the middle of a board's."""
    with Past(db) as past:
        rows = list(past.commands(Wanted(BOARD, Reply(""), None, meta={"assignment": "lab3"}), 0.0))
    return str(rows[len(rows) // 2][1]["id"])


def commands(db: Path, url: BrokerUrl, rounds: int) -> Iterator[str]:
    """A line for each command."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(db.parent), "LANG": "C.UTF-8",
                   "PYTHONPATH": str(CHECKOUT), "HWSYNC_BROKER": str(url)}  # fmt: skip
    yield "   best  middle  processor  command"
    for words in asked(db, an_id(db)):
        took = []
        for _ in range(rounds):
            time.sleep(APART_S)
            took.append(timed(words, environment))
        best, middle = min(one[0] for one in took), statistics.median(one[0] for one in took)
        processor = min(one[1] for one in took)
        bad = "" if all(one[2] == 0 for one in took) else f"  (exit code {took[0][2]})"
        shown = " ".join(words).replace(str(db), "FILE")
        yield f"{best * 1e3:5.0f}  {middle * 1e3:6.0f}  {processor * 1e3:6.0f} ms  {shown}{bad}"


def cycles(
    port: int, folder: Path, db: Path, boards: int, rounds: int, seconds: float
) -> Iterator[str]:
    """The rate with that database, beside an empty one's."""
    url = BrokerUrl("mqtt", "127.0.0.1", port)
    rates: dict[str, list[float]] = {"hwsync": [], "beside": []}  # empty, and full
    shutil.copy(db, folder / "beside.db")
    with ExitStack() as stack:
        labs = [stack.enter_context(answering(side, url, folder)) for side in rates]
        for lab in labs:
            lab.round(boards, 0.0)
        for number in range(rounds):
            for lab in labs if number % 2 == 0 else reversed(labs):
                rates[lab.side].append(lab.round(boards, seconds).cycles_per_s)
    empty, full = (statistics.median(some) for some in rates.values())
    ratio = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
    found = f"{empty:6.0f} cycles/s with an empty database, {full:6.0f} with this one: {ratio:.0%}"
    yield f"{boards:4} boards: {found}"


def main(arguments: list[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--db", type=Path, help="a database that benchmarks/past.py has written")
    parser.add_argument("--commands", type=int, default=250_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round of cycles")
    chosen = parser.parse_args(arguments)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    program = shutil.which("mosquitto", path=path)
    if program is None:
        print("mosquitto is missing (apt-get install mosquitto)", file=sys.stderr)
        return 1
    print("{machine}, {cores} cores, Python {python}".format(**machine(program)))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hwsync-history-")))
        db = folder / "past.db"
        if chosen.db is None:
            begin = time.perf_counter()
            fill(db, chosen.commands)
            print(f"{chosen.commands:,} commands written in {time.perf_counter() - begin:.0f} s")
        else:
            shutil.copy(chosen.db, db)
        port = stack.enter_context(mosquitto(program, folder))
        for boards in (1, 30):
            rounds = cycles(port, folder, db, boards, chosen.rounds, chosen.seconds)
            for line in rounds:
                print(line, flush=True)
            for left in folder.glob("*.db*"):
                if left.stem.split(".")[0] in ("hwsync", "beside"):
                    left.unlink()
        url, log = BrokerUrl("mqtt", "127.0.0.1", port), folder / "coordinator.log"
        command = [*HWSYNC, "coordinator", "--broker", str(url),
                   "--db", str(db)]  # fmt: skip
        begin = time.perf_counter()
        with running(command, log, partial(_ready, log), "the coordinator"):
            print(f"the coordinator is ready after {time.perf_counter() - begin:.2f} s")
            for line in commands(db, url, chosen.rounds):
                print(line, flush=True)
    return 0


def _ready(log: Path) -> bool:
    return " ready" in log.read_text(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
