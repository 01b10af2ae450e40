"""How far apart programs begin on several boards that are to begin at one instant.

The law: all sides run on this machine, in turns, and the witness of all is the same: its raw
monotonic clock, read in the first line of the program. The sides of one round:

- floor: as many plain Python processes, which sleep and then spin until one instant. Nothing on
  this machine can be better; with fewer cores than processes they wait for each other;
- naive: as many plain processes with a bare paho client; one message is published, and each reads
  the clock when it comes;
- wall: hwsync runs a program everywhere that waits for one time of day by itself;
- hwsync: one batch with ``"start": {"together": true}``.

    python benchmarks/sync.py --boards 2,8,30 --rounds 200
    python benchmarks/sync.py --quick
    python benchmarks/sync.py --picture docs/in-step.svg

Spread is last minus first. The delay from a program's release to its first line is shown apart. The
boards are ``hwsync-device`` processes, the broker is mosquitto.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from hwsync.cli.starts import Start, picture, title
from tests.support.brokers import MosquittoBroker
from tests.support.processes import Process

SIDES: Final = ("floor", "naive", "wall", "hwsync")
LEAD_S: Final = 0.2  # from the order to the instant, for floor and hwsync
WALL_S: Final = 0.5  # the same for wall, and so much more for each board: its program must be there
WALL_EACH_S: Final = 0.1
PATIENCE_S: Final = 60.0  # for anything that should come
QUICK: Final = (30, (2, 8))  # rounds, boards
AIM_TWO_MS: Final = 0.5  # of the 90th percentile at two boards
AIM_FLOOR: Final = 1.3  # times the floor's, at more
AS_ROOT: Final = ["--allow-root"] if os.geteuid() == 0 else []

# A plain process: an instant on each line of its input, in ns; what the clock says then.
FLOOR: Final = """
import sys, time
raw = time.CLOCK_MONOTONIC_RAW
for line in sys.stdin:
    at = int(line)
    if (left := at - time.clock_gettime_ns(raw) - 2_000_000) > 0:
        time.sleep(left / 1e9)
    while time.clock_gettime_ns(raw) < at:
        pass
    print(time.clock_gettime_ns(raw), flush=True)
"""
NAIVE: Final = """
import socket, sys, time
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
client = Client(CallbackAPIVersion.VERSION2)
client.on_socket_open = lambda c, u, s: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def go(*_):
    print(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), flush=True)
client.on_message = go
client.on_subscribe = lambda *_: print("ready", flush=True)
client.connect("127.0.0.1", int(sys.argv[1]))
client.subscribe("naive/go", 1)
client.loop_forever()
"""
PROGRAM: Final = """
import time
now = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
import os
print(now, os.environ.get("HWSYNC_LAB_OFFSET", "0"))
"""
WALL: Final = """
import time
at = {at!r}
if (left := at - time.time() - 0.002) > 0:
    time.sleep(left)
while time.time() < at:
    pass
print(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))
"""

Statuses = dict[str, dict[str, Any]]  # by board


class Plain:
    """One plain process that is spoken to by lines."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Operator:
    """Asks with requests, and follows the statuses of every board."""

    def __init__(self, port: int) -> None:
        self.refused: list[str] = []
        self._statuses: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._client = Client(CallbackAPIVersion.VERSION2, "hwsync-sync-operator")
        self._client.on_message = self._hear
        subscribed = queue.SimpleQueue[bool]()
        self._client.on_subscribe = lambda *_: subscribed.put(True)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe([("hw/+/status", 1), ("hw/+/error", 1), ("hw/+/heartbeat", 1)])
        subscribed.get(timeout=PATIENCE_S)
        self.bounds: dict[str, float] = {}  # by board, as its heartbeat says

    def _hear(self, _: Client, __: object, message: Any) -> None:
        board, kind = message.topic.split("/")[1:3]
        fields = json.loads(message.payload or b"{}")
        if kind == "error":
            self.refused.append(f"{board}: {fields['message']}")
        elif kind == "heartbeat":
            clock = fields.get("clock")
            if clock is not None:
                self.bounds[board] = clock["bound"]
        elif not board.startswith("@"):
            self._statuses.put(fields | {"user": board})

    def publish(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, 1)

    def run(self, boards: Sequence[str], id: str, **keys: Any) -> Statuses:
        """Ask each of them for one program; how it ended there."""
        for board in boards:
            request = {"id": id, "analysis": "outcome", "timeout": 60} | keys
            self.publish(f"hw/{board}/request", json.dumps(request))
        ended: Statuses = {}
        limit = time.monotonic() + PATIENCE_S
        while len(ended) < len(boards):
            try:
                status = self._statuses.get(timeout=max(limit - time.monotonic(), 0.01))
            except queue.Empty:
                missing = sorted(set(boards) - set(ended))
                raise SystemExit(f"no end of {id} on {missing}; refused: {self.refused}") from None
            if status["id"] == id and status["state"] == 0:
                ended[status["user"]] = status
        return ended

    def wait_for_clocks(self, boards: Sequence[str]) -> None:
        """Until each board says that it knows the lab's time."""
        limit = time.monotonic() + PATIENCE_S
        while set(boards) - set(self.bounds):
            if time.monotonic() > limit:
                raise SystemExit(f"no clock of {sorted(set(boards) - set(self.bounds))}")
            time.sleep(0.05)

    def end(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


Reach = Callable[[MosquittoBroker, str], tuple[str, dict[str, str]]]
"""Of a board: the address at which it finds the broker, and what its environment has beside."""


def directly(broker: MosquittoBroker, board: str) -> tuple[str, dict[str, str]]:
    """As every board of a lab without faults."""
    return broker.url, {}


class Boards:
    """Broker, coordinator, devices, and who asks them; ends with ``stack``."""

    def __init__(
        self, folder: Path, boards: int, stack: ExitStack, reach: Reach = directly
    ) -> None:
        self.stack, self.db = stack, folder / "hwsync.db"
        self.broker = MosquittoBroker(folder / "broker")
        self.broker.start()
        stack.callback(self.broker.stop)
        self.boards = [f"b{number:02}" for number in range(boards)]
        coordinator = self._start(
            folder, "coordinator", self.broker.url, {}, "hwsync.cli", "coordinator",
            "--db", str(self.db), "--settle", "1",
        )  # fmt: skip
        coordinator.wait_for_log(r"\bready\b", PATIENCE_S)
        for board in self.boards:
            self._start(folder, board, *reach(self.broker, board), "hwsync.device.service",
                        "--user", board, *AS_ROOT, "--state-dir", str(folder / board))  # fmt: skip
        self.operator = Operator(self.broker.port)
        stack.callback(self.operator.end)
        self.operator.wait_for_clocks(self.boards)
        self._rounds = 0

    def _start(
        self, folder: Path, name: str, url: str, variables: dict[str, str], module: str,
        *options: str,
    ) -> Process:  # fmt: skip
        command = [sys.executable, "-m", module, *options, "--broker", url]
        process = Process(command, directory=folder, name=name, variables=variables)
        self.stack.callback(process.stop)
        return process

    def hwsync(self, *, within: float = 0.1) -> Statuses:
        """One batch in step; how it ended on each board. ``within``: seconds, as in the request."""
        count = len(self.boards)
        start = {"together": True, "wait": 30, "lead": LEAD_S, "within": within, "need": count}
        id = self.id("sync")
        return self.operator.run(self.boards, id, program=PROGRAM, batch=self.boards, start=start)

    def id(self, side: str) -> str:
        self._rounds += 1
        return f"{side}-{self._rounds}"


class Lab(Boards):
    """The same, and as many plain processes of both kinds."""

    def __init__(self, folder: Path, boards: int, stack: ExitStack) -> None:
        super().__init__(folder, boards, stack)
        self.floors = [self._plain(FLOOR) for _ in self.boards]
        self.naives = [self._plain(NAIVE, str(self.broker.port)) for _ in self.boards]
        for plain in self.naives:
            assert plain.hear() == "ready"

    def _plain(self, program: str, *arguments: str) -> Plain:
        plain = Plain(program, *arguments)
        self.stack.callback(plain.end)
        return plain

    def floor(self) -> list[int]:
        at = raw_ns() + int(LEAD_S * 1e9)
        for plain in self.floors:
            plain.tell(str(at))
        return [int(plain.hear()) for plain in self.floors]

    def naive(self) -> list[int]:
        self.operator.publish("naive/go", "")
        return [int(plain.hear()) for plain in self.naives]

    def wall(self) -> list[int]:
        at = time.time() + WALL_S + WALL_EACH_S * len(self.boards)
        ended = self.operator.run(self.boards, self.id("wall"), program=WALL.format(at=at))
        return [int(status["hw_response"]) for status in ended.values()]


class Found:
    """What was measured at one number of boards; spreads and delays in ms."""

    def __init__(self, boards: int) -> None:
        self.boards = boards
        self.spreads: dict[str, list[float]] = {side: [] for side in SIDES}
        self.releases: list[float] = []  # spread of the releases themselves
        self.delays: list[float] = []  # from a release to its program's first line
        self.bounds: list[float] = []
        self.failed: list[str] = []  # rounds of hwsync in which not everybody was released

    def add(self, side: str, readings: Sequence[int]) -> None:
        self.spreads[side].append((max(readings) - min(readings)) / 1e6)

    def add_starts(self, ended: Statuses) -> None:
        """A round of hwsync's."""
        if bad := {status["reason"] or status["outcome"] for status in ended.values()
                   if status["outcome"] != "ok"}:  # fmt: skip
            self.failed.append("; ".join(sorted(bad)))
            return
        firsts, released = [], []
        for status in ended.values():
            first, offset = status["hw_response"].split()
            firsts.append(int(first))
            released.append((status["started"] - float(offset)) * 1e9)
            self.bounds.append(status["clock_bound"] * 1e3)
        self.add("hwsync", firsts)
        self.releases.append((max(released) - min(released)) / 1e6)
        self.delays += [(a - b) / 1e6 for a, b in zip(firsts, released, strict=True)]

    def figures(self) -> dict[str, Any]:
        return {
            "boards": self.boards,
            "spread_ms": {side: percentiles(values) for side, values in self.spreads.items()},
            "spread_of_releases_ms": percentiles(self.releases),
            "release_to_first_line_ms": percentiles(self.delays),
            "clock_bound_ms": percentiles(self.bounds),
            "failed": self.failed,
        }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the number of values; nothing of none."""
    if len(values) < 2:
        return {"n": len(values)}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"n": len(values), **{f"p{n}": round(cuts[n - 1], 4) for n in (50, 90, 99)}}


def raw_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@contextmanager
def lab(boards: int) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="hwsync-sync-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Lab(folder, boards, stack)


def measure(boards: int, rounds: int) -> Found:
    """All sides in turns, ``rounds`` times; another side begins each round."""
    found = Found(boards)
    with lab(boards) as room:
        plain: dict[str, Callable[[], list[int]]] = {
            "floor": room.floor, "naive": room.naive, "wall": room.wall
        }  # fmt: skip
        for number in range(rounds):
            first = number % len(SIDES)
            for side in SIDES[first:] + SIDES[:first]:
                if side == "hwsync":
                    found.add_starts(room.hwsync())
                else:
                    found.add(side, plain[side]())
            tell(f"{boards} boards, round {number + 1} of {rounds}")
    tell("")
    return found


def draw(boards: int, file: Path) -> None:
    """One round of hwsync's, as ``hwsync sync --save`` draws it."""
    with lab(boards) as room:
        ended = room.hwsync()
    starts = [
        Start(board, one["start_error"], one["clock_bound"]) for board, one in sorted(ended.items())
    ]
    picture(starts, title(f"{boards} boards on one machine", starts), file)


def tell(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def show(figures: dict[str, Any]) -> None:
    """A table for people."""
    boards, spreads = figures["boards"], figures["spread_ms"]
    print(f"\n{boards} boards: spread in ms (last minus first), {spreads['floor']['n']} rounds")
    for side in SIDES:
        print(f"  {side:8}{row(spreads[side])}")
    print(f"  releases{row(figures['spread_of_releases_ms'])}")
    print(
        f"  from a release to the program's first line: {row(figures['release_to_first_line_ms'])}"
    )
    print(f"  clock_bound: {row(figures['clock_bound_ms'])}")
    if figures["failed"]:
        print(f"  {len(figures['failed'])} rounds without a start of all: {figures['failed'][:3]}")
    ours, floor = spreads["hwsync"].get("p90"), spreads["floor"].get("p90")
    if ours is not None and floor:
        if boards == 2:
            print(f"  aim: p90 at most {AIM_TWO_MS} ms: {ours:.3f}")
        else:
            print(f"  aim: p90 at most {AIM_FLOOR} x the floor's: {ours / floor:.2f}")


def row(figures: dict[str, float]) -> str:
    return "".join(f"  {name} {figures[name]:8.3f}" for name in ("p50", "p90", "p99")
                   if name in figures)  # fmt: skip


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--boards", default="2,8,30", help="numbers [default: 2,8,30]")
    parser.add_argument("--rounds", type=int, default=200, help="[default: 200]")
    parser.add_argument("--quick", action="store_true", help="30 rounds with 2 and 8 boards")
    parser.add_argument("--picture", type=Path, help="only draw one round of 6 boards, into a file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.picture is not None:
        draw(6, options.picture)
        return
    rounds, sizes = options.rounds, [int(n) for n in options.boards.split(",")]
    if options.quick:
        rounds, sizes = QUICK[0], list(QUICK[1])
    results = []
    for boards in sizes:
        figures = measure(boards, rounds).figures()
        results.append(figures)
        if not options.json:
            show(figures)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"machine": machine, "results": results}))
    else:
        print(f"\n{machine}")


if __name__ == "__main__":
    main()
