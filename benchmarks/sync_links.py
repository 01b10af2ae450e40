"""Whether the bound of every start is true, on links that are slow and with clocks that are wrong.

The law: the truth comes from outside. Each board's raw clock is another one than the machine's
(``SKEW``: by up to 500 s, and up to 100 ppm fast or slow, with one step in the middle), and what it
said at a release is turned back into the machine's own. So for each start it is known when it truly
was, and |true - instant| must be at most |start_error| + clock_bound.

    python benchmarks/sync_links.py --starts 2000

The links: symmetric (0 to 20 ms each way, by chance), asymmetric (30 ms
to the broker, 1 ms back), ramp (the way to the board grows by 3 ms a minute, then begins anew).
Needs mosquitto and a C compiler (``cc``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.sync import Boards, Statuses, percentiles, row, tell
from tests.support.brokers import MosquittoBroker

SKEW_S: Final = 500.0  # at most, of a board's clock
DRIFT: Final = 100e-6
STEP_S: Final = 0.25  # once, at each board
ROUNDING_S: Final = 3e-6  # what is said has microseconds
RAMP_S_PER_S: Final = 0.003 / 60
RAMP_S: Final = 0.02  # then it begins anew
WITHIN_S: Final = 0.1  # how late or uncertain a start may be
LINKS: Final = ("symmetric", "asymmetric", "ramp")

# CLOCK_MONOTONIC_RAW (4) of whoever has this loaded: another rate, another beginning, and what the
# file says beside that, in ns.
SKEW: Final = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static double rate; static long long offset, base; static volatile long long *step;
static void begin(void) {
    rate = atof(getenv("SKEW_RATE")); offset = atoll(getenv("SKEW_OFFSET_NS"));
    base = atoll(getenv("SKEW_BASE_NS"));
    step = mmap(0, 8, PROT_READ, MAP_SHARED, open(getenv("SKEW_STEP"), O_RDONLY | O_CLOEXEC), 0);
}
int clock_gettime(clockid_t id, struct timespec *at) {
    int done = syscall(SYS_clock_gettime, id, at);
    if (done || id != 4) return done;
    if (!step) begin();
    long long now = at->tv_sec * 1000000000LL + at->tv_nsec;
    now += (long long)((double)(now - base) * rate) + offset + *step;
    at->tv_sec = now / 1000000000LL; at->tv_nsec = now % 1000000000LL;
    return 0;
}
"""


class Skewed:
    """A board's raw clock: ``rate`` faster than the machine's, ``offset`` ns ahead at ``base``."""

    def __init__(self, rate: float, offset: int, base: int, file: Path) -> None:
        self.rate, self.offset, self.base, self.step = rate, offset, base, 0
        self._file = file
        self._write()

    def variables(self, library: Path) -> dict[str, str]:
        """What a process's environment needs for that."""
        return {
            "LD_PRELOAD": str(library),
            "SKEW_RATE": repr(self.rate),
            "SKEW_OFFSET_NS": str(self.offset),
            "SKEW_BASE_NS": str(self.base),
            "SKEW_STEP": str(self._file),
        }

    def jump(self, seconds: float) -> None:
        """One step, from now on."""
        self.step += round(seconds * 1e9)
        self._write()

    def _write(self) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(self.step.to_bytes(8, "little", signed=True))

    def host_s(self, raw_s: float) -> float:
        """What the machine's own raw clock said when this one said that."""
        base = self.base / 1e9
        return base + (raw_s - (self.offset + self.step) / 1e9 - base) / (1.0 + self.rate)


class Link:
    """TCP from a port of its own to the broker; each way waits, and what was sent keeps its order.

    ``up``, ``down``: seconds of the next piece to and from the broker.
    """

    def __init__(self, port: int, up: Callable[[], float], down: Callable[[], float]) -> None:
        self._broker, self._up, self._down = port, up, down
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._broker)
        for one in (writer, back):
            one.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
        await asyncio.gather(
            self._pass(reader, back, self._up), self._pass(there, writer, self._down)
        )

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, wait: Callable[[], float]
    ) -> None:
        """Each piece leaves when its time has come, and never before the one before it."""
        due = 0.0
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def leave() -> None:
            while True:
                at, piece = await pieces.get()
                await asyncio.sleep(at - self._loop.time())
                sink.write(piece)
                if not piece:
                    sink.close()
                    return

        leaving = self._loop.create_task(leave())
        with suppress(OSError):
            while piece := await source.read(65_536):
                due = max(due, self._loop.time() + wait())
                pieces.put_nowait((due, piece))
        pieces.put_nowait((due, b""))
        await leaving


def links(dice: random.Random) -> dict[str, tuple[Callable[[], float], Callable[[], float]]]:
    """By name: the seconds of the way to the broker, and of the way back."""
    began = time.monotonic()
    by_chance = lambda: dice.uniform(0.0, 0.02)  # noqa: E731
    ramp = lambda: 0.001 + (time.monotonic() - began) * RAMP_S_PER_S % RAMP_S  # noqa: E731
    return {
        "symmetric": (by_chance, by_chance),
        "asymmetric": (lambda: 0.03, lambda: 0.001),
        "ramp": (lambda: 0.001, ramp),
    }


@contextmanager
def skew_library() -> Iterator[Path]:
    """The compiled ``SKEW``."""
    folder = Path(tempfile.mkdtemp(prefix="hwsync-skew-"))
    try:
        (folder / "skew.c").write_text(SKEW)
        library = folder / "skew.so"
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(folder / "skew.c")]
        subprocess.run(command, check=True)
        yield library
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Room:
    """Boards with other clocks, behind one kind of link."""

    def __init__(
        self, link: str, boards: int, library: Path, dice: random.Random, stack: ExitStack
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="hwsync-links-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        self.clocks: dict[str, Skewed] = {}

        def reach(broker: MosquittoBroker, board: str) -> tuple[str, dict[str, str]]:
            way = Link(broker.port, *links(dice)[link])
            stack.callback(way.stop)
            offset = dice.uniform(max(-SKEW_S, 10.0 - now / 1e9), SKEW_S)
            rate = dice.uniform(-DRIFT, DRIFT)
            self.clocks[board] = Skewed(rate, round(offset * 1e9), now, folder / f"{board}.step")
            return f"mqtt://127.0.0.1:{way.port}", self.clocks[board].variables(library)

        self._boards = Boards(folder, boards, stack, reach)
        with closing(sqlite3.connect(self._boards.db)) as connection:
            ((wall_us, raw_us),) = connection.execute("SELECT wall_us, raw_us FROM lives")
        self._life = wall_us / 1e6, raw_us / 1e6
        self._dice = dice

    def jump(self) -> None:
        """Each board's clock, once."""
        for clock in self.clocks.values():
            clock.jump(self._dice.choice((-STEP_S, STEP_S)))

    def start(self, within: float) -> Statuses:
        """One batch in step."""
        return self._boards.hwsync(within=within)

    def true(self, board: str, status: dict[str, Any]) -> float:
        """In lab time, in seconds, when that board's program was truly released."""
        offset = float(status["hw_response"].split()[1])
        host = self.clocks[board].host_s(status["started"] - offset)
        wall, raw = self._life
        return wall + (host - raw)


@dataclass(slots=True)
class Found:
    """What was seen on one link; seconds."""

    link: str
    starts: int = 0
    broken: list[str] = field(default_factory=list)  # starts of which the bound was not true
    failed: list[str] = field(default_factory=list)  # rounds without a start of all
    errors: list[float] = field(default_factory=list)  # of the clock: true minus what was said
    bounds: list[float] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)  # true ones

    def add(self, room: Room, ended: Statuses) -> None:
        """One round."""
        if bad := {
            one["reason"] or one["outcome"] for one in ended.values() if one["outcome"] != "ok"
        }:
            self.failed.append("; ".join(sorted(bad)))
        true = []
        for board, status in ended.items():
            if status["outcome"] != "ok":
                continue
            at = room.true(board, status)
            true.append(at)
            late, bound = status["start_error"], status["clock_bound"]
            off = at - (status["started"] - late)  # from the instant
            self.starts += 1
            self.errors.append(abs(at - status["started"]))
            self.bounds.append(bound)
            early = off < -bound - ROUNDING_S
            if abs(off) > abs(late) + bound + ROUNDING_S or early:
                self.broken.append(f"{board}: {off:.6f}, said {late:.6f} within {bound:.6f}")
        if len(true) > 1:
            self.spreads.append(max(true) - min(true))

    def figures(self) -> dict[str, Any]:
        """In ms; ``wider``: the median of how often the true error fits into its bound."""
        wider = [
            bound / max(error, 1e-6) for bound, error in zip(self.bounds, self.errors, strict=True)
        ]
        return {
            "link": self.link,
            "starts": self.starts,
            "broken": self.broken,
            "failed": self.failed,
            "bound_ms": percentiles([1e3 * one for one in self.bounds]),
            "true_error_ms": percentiles([1e3 * one for one in self.errors]),
            "wider": round(statistics.median(wider), 1) if wider else None,
            "true_spread_ms": percentiles([1e3 * one for one in self.spreads]),
        }


def measure(link: str, boards: int, starts: int, library: Path, dice: random.Random) -> Found:
    """Rounds on one kind of link until so many starts; in the middle each clock steps."""
    found, stepped = Found(link), False
    with ExitStack() as stack:
        room = Room(link, boards, library, dice, stack)
        while found.starts < starts and len(found.failed) < starts:
            if not stepped and found.starts >= starts / 2:
                room.jump()
                stepped = True
            found.add(room, room.start(within=WITHIN_S))
            tell(f"{link}, {boards} boards: {found.starts} of {starts} starts")
    tell("")
    return found


def main() -> int:
    """Measure, print; 1: the bound of some start was not true."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=2_000, help="in all [default: 2000]")
    parser.add_argument("--boards", type=int, default=2, help="at the same time [default: 2]")
    parser.add_argument("--links", default=",".join(LINKS), help=f"[default: {','.join(LINKS)}]")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if shutil.which("cc") is None:
        parser.error("it needs a C compiler, cc")
    names = options.links.split(",")
    dice, broken = random.Random(options.seed), 0
    print(f"seed {options.seed}", file=sys.stderr)
    with skew_library() as library:
        for name in names:
            starts = -(-options.starts // len(names))
            figures = measure(name, options.boards, starts, library, dice).figures()
            broken += len(figures["broken"])
            print(json.dumps(figures) if options.json else show(figures))
    return int(bool(broken))


def show(figures: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{figures['link']}: {figures['starts']} starts, {len(figures['broken'])} beyond their "
        f"bound, {len(figures['failed'])} rounds without a start of all {figures['failed'][:2]}"
    ]
    names = ("true_spread_ms", "true_error_ms", "bound_ms")
    lines += [f"  {name:16}{row(figures[name])}" for name in names]
    lines.append(f"  the bound is {figures['wider']} times the true error (median)")
    return "\n".join([*lines, *figures["broken"][:10]])


if __name__ == "__main__":
    sys.exit(main())
