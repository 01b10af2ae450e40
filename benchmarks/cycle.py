"""Whole cycles a second on mosquitto: hwsync beside the bare message floor, in one run.

The law: all sides get the same messages from the same reader, over the same broker, in turns, so
that a slow moment of the machine slows all. One process, this one, is all boards and their
operator. The answers come from a process that

- floor: sends at once what hwsync would send, of the same size, from paho's own callback, over MQTT
  3.1.1 and with paho's own acknowledgements: no decision, no database, nothing of hwsync between;
- hwsync: is ``hwsync.coordinator.service.serve``, durable, with its log in a file, at its default;
- beside (``--beside DIR``): is the same of another checkout, to see what a change does.

    python benchmarks/cycle.py --boards 1,100,1000 --seconds 3 --rounds 5

A cycle: request with an id, status 1 and envelope, collected, status 2 (the grant), response,
status 3, analysis, status 0. Every board begins its next cycle at once. Latency is from the request
to status 3; with many boards it is mostly the wait for one's turn. A side's processor time is that
of its process; the bytes are all that the broker reads and writes for a cycle, of both its clients.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import queue
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from hwsync import logs
from hwsync.address import BrokerUrl
from hwsync.coordinator.options import Options
from hwsync.coordinator.service import Access, serve
from hwsync.protocol import limits
from hwsync.protocol.errors import HwsyncError, NoBroker, NoCoordinator
from hwsync.protocol.record import Command, Outcome, Ran, Record, Request, RunReport, State, Verb
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.asking import encode_analysis
from hwsync.protocol.wire.envelope import encode_envelope
from hwsync.protocol.wire.request import encode_request
from hwsync.protocol.wire.response import encode_collected, encode_response
from hwsync.protocol.wire.status import encode_status
from hwsync.transport import Delivery, Signal, Subscribed, Subscription
from tests.support.threaded import Transport

CHECKOUT: Final = Path(__file__).resolve().parents[1]
LOOPBACK: Final = "127.0.0.1"
SIDES: Final = {"floor": "fl", "hwsync": "hw", "beside": "be"}  # the root of each: of one length
PATIENCE_S: Final = 30.0  # for anything that should come: a start, an answer, the last cycle
PINGS: Final = 200  # round trips in each round
PERCENTILE: Final = 0.95
RECEIVED: Final = "$SYS/broker/bytes/received"
SENT: Final = "$SYS/broker/bytes/sent"
BYTES_CYCLES: Final = 25  # for the bytes of one, which are nearly the same in each
TICKS: Final = os.sysconf("SC_CLK_TCK")  # a second, of processor time in /proc
LOG_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING}

PROGRAM: Final = "print(6*7)"
JOURNAL: Final = "journal1"
ANALYSIS: Final = "right"
REPORT: Final = RunReport(
    Outcome.OK, Ran.YES, "exit code 0", "42\n", exit_code=0, duration=0.0123, started=1.7e9 + 0.123
)
CYCLE: Final = (TopicKind.REQUEST, TopicKind.COLLECTED, TopicKind.RESPONSE, TopicKind.ANALYSIS)
NO_ID: Final = "0000-00000000"  # every id has this length, so the floor's answers are templates


# --- the two sides, each a process of its own ---------------------------------------------------


class Floor:
    """Answers each message with what hwsync would send; knows nothing but how often."""

    def __init__(self, url: BrokerUrl, root: str) -> None:
        self._topics = Topics(root)
        self._cycles: dict[str, int] = {}
        self._statuses = [
            [_status(state, pairs) for pairs in range(limits.SETTLED_PAIRS + 1)] for state in State
        ]
        self._envelope = encode_envelope(_record(State.REQUESTED, limits.SETTLED_PAIRS))
        self._url = url
        self._client = Client(CallbackAPIVersion.VERSION2, "hwsync-floor-side")
        self._client.on_socket_open = no_delay
        self._client.on_subscribe = lambda *_: logging.getLogger("floor").info("ready")
        self._client.on_message = self._answer

    def run(self) -> None:
        """Until it is killed."""
        self._client.connect(self._url.host, self._url.port)
        self._client.subscribe([(self._topics.of("+", kind), 1) for kind in CYCLE])
        self._client.loop_forever()

    def _answer(self, _: Client, __: object, message: MQTTMessage) -> None:
        user, kind = self._topics.split(message.topic)
        payload = message.payload
        start = payload.index(b'"id":"') + 6
        id = payload[start : start + len(NO_ID)]
        if kind is TopicKind.REQUEST:
            self._status(user, State.REQUESTED, id)
            envelope = self._envelope.replace(NO_ID.encode(), id)
            self._client.publish(self._topics.of(user, TopicKind.ENVELOPE), envelope, 1)
        elif kind is TopicKind.COLLECTED:
            self._status(user, State.COLLECTED, id)
        elif kind is TopicKind.RESPONSE:
            self._cycles[user] = min(self._cycles.get(user, 0) + 1, limits.SETTLED_PAIRS)
            self._status(user, State.RETURNED, id)
        elif kind is TopicKind.ANALYSIS:
            self._status(user, State.REST, id)

    def _status(self, user: str, state: State, id: bytes) -> None:
        status = self._statuses[state][self._cycles.get(user, 0)].replace(NO_ID.encode(), id)
        self._client.publish(self._topics.of(user, TopicKind.STATUS), status, 1, retain=True)


def _status(state: State, pairs: int) -> bytes:
    return encode_status(_record(state, pairs))


def _record(state: State, pairs: int) -> Record:
    """A record as hwsync has it in that state, with so many settled results."""
    now = time.time()
    command = Command(
        _user(0),
        NO_ID,
        Request(PROGRAM, NO_ID, analysis="manual"),
        number=1,
        issued=now,
        journal=JOURNAL if state is not State.REQUESTED else None,
        boot=1 if state is not State.REQUESTED else None,
        report=REPORT if state in (State.RETURNED, State.REST) else None,
        analysis=ANALYSIS if state is State.REST else None,
    )
    verbs = (Verb.ANALYSIS, Verb.REQUEST, Verb.RETRIEVAL, Verb.RESPONSE)
    return Record(
        command.user,
        state,
        seq=10,
        verb=verbs[state],
        time=now,
        deadline_wall=None if state is State.REST else now + 300,
        settled=((NO_ID, JOURNAL),) * pairs,
        count=1,
        current=command,
    )


class FromReadyOn(logging.Filter):
    """Sets the logger's level once it said that it is ready: this process waits for that line."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets everything pass."""
        if record.getMessage() == "ready":
            logger = logging.getLogger(record.name)
            logger.removeFilter(self)
            logger.setLevel(self._level)
        return True


def answer(side: str, url: BrokerUrl, directory: Path, level: int) -> None:
    """Be one of the two sides until SIGTERM."""
    logs.setup(side)
    if side != "floor":
        logging.getLogger("hwsync.coordinator").addFilter(FromReadyOn(level))
        options = Options(
            db=directory / f"{side}.db",
            analysis="manual",
            analysis_within=limits.DEFAULT_ANALYSIS_WITHIN_S,
            hold_deadlines_s=limits.DEFAULT_SETTLE_S,
            clean_session=False,
            backup_dir=None,
            backup_every=0.0,
            metrics_file=None,
            keep_days=0.0,
            keep_mb=0.0,
            requests_per_minute=0,
            max_program_kb=limits.MAX_PROGRAM // limits.KIB,
            max_queue=limits.MAX_QUEUE,
            max_message=limits.MAX_MESSAGE,
            take_over=False,
        )
        serve(options, Access(url, SIDES[side]))
        return
    Floor(url, SIDES[side]).run()


# --- all boards and their operator --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one side; times in seconds."""

    cycles_per_s: float
    median: float
    p95: float
    status_bytes: float  # of one status, on average
    processor: float  # of the side's process, for 1,000 cycles


@dataclass(slots=True)
class Board:
    """Where one board's cycle stands. ``awaits``: the state whose status moves it on."""

    user: str
    number: int = 0
    id: bytes = b""
    awaits: int = 0
    envelope: bool = False  # whether it still waits for its program
    asked: float = 0.0  # when; from state 3 on: the latency


class Lab:
    """Boards and operator of one root, on one connection; they answer in its network thread."""

    def __init__(self, url: BrokerUrl, side: str, pid: int) -> None:
        self.side = side
        self._pid = pid
        self._topics = Topics(SIDES[side])
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._boards: dict[str, Board] = {}
        self._until = 0.0  # no cycle begins after
        self._latencies: list[float] = []  # of the cycles that ended
        self._statuses = self._bytes = 0
        self._transport = Transport(
            url,
            f"lab-{side}",
            on_signal=self._on_signal,
            subscriptions=[
                Subscription(self._topics.of("+", kind))
                for kind in (TopicKind.STATUS, TopicKind.ENVELOPE, TopicKind.ERROR)
            ],
        )

    def __enter__(self) -> Lab:
        self._transport.start()
        self._expect("subscribed")
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.stop(0.0)

    def round(self, boards: int, seconds: float) -> Measured:
        """Every board has cycles for so many seconds, and ends the last; 0: one cycle each.

        From the first request to the last end: boards that go in step end a thousand cycles at
        once, and a window with an end of its own would have them or miss them.
        """
        for index in range(boards):
            self._boards.setdefault(_user(index), Board(_user(index)))
        self._latencies, self._statuses, self._bytes = [], 0, 0
        begin, used = time.perf_counter(), processor_time(self._pid)
        self._until = begin + seconds
        for index in range(boards):
            self._ask(self._boards[_user(index)])
        self._expect("idle", boards)
        took = time.perf_counter() - begin
        latencies = sorted(self._latencies)
        return Measured(
            len(latencies) / took,
            statistics.median(latencies),
            latencies[int(len(latencies) * PERCENTILE)],
            self._bytes / self._statuses,
            1_000 * (processor_time(self._pid) - used) / len(latencies),
        )

    def _expect(self, event: str, times: int = 1) -> None:
        """Wait until that came so often. Raises ``NoCoordinator`` when nothing moves any more."""
        while times:
            try:
                came = self._events.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise NoCoordinator(
                    f"{self.side} stands still: no {event!r} within {PATIENCE_S:g} s"
                ) from None
            if came == event:
                times -= 1
            elif came not in ("subscribed", "idle"):
                raise HwsyncError(f"{self.side} refused a message: {came}")

    def _on_signal(self, signal: Signal) -> None:
        if isinstance(signal, Subscribed):
            self._events.put("subscribed")
        elif isinstance(signal, Delivery):
            self._transport.acknowledge(signal)
            if not signal.retain:
                self._hear(signal)

    def _hear(self, delivery: Delivery) -> None:
        user, kind = self._topics.split(delivery.topic)
        if kind is TopicKind.ERROR:
            self._events.put(delivery.payload.decode())
            return
        if user not in self._boards:
            return  # one that the side's database has
        board, payload = self._boards[user], delivery.payload
        if not payload.startswith(
            b'{"id":"' + board.id if kind is TopicKind.STATUS else b'{"v":1,'
        ):
            return
        if kind is TopicKind.ENVELOPE:
            if board.envelope and board.id in payload:
                board.envelope = False
                self._tell(user, TopicKind.COLLECTED, encode_collected(_text(board), JOURNAL, 1))
            return
        self._statuses += 1
        self._bytes += len(payload)
        state = payload[payload.index(b'"state":') + 8] - ord("0")
        if state != board.awaits:
            return  # status 1, or a copy
        if state == State.COLLECTED:
            board.awaits = State.RETURNED
            result = encode_response(_text(board), JOURNAL, 1, REPORT)
            self._tell(user, TopicKind.RESPONSE, result)
        elif state == State.RETURNED:
            board.awaits = State.REST
            board.asked = time.perf_counter() - board.asked
            self._tell(user, TopicKind.ANALYSIS, encode_analysis(ANALYSIS, _text(board)))
        else:
            self._cycle_ended(board)

    def _cycle_ended(self, board: Board) -> None:
        self._latencies.append(board.asked)
        board.awaits = -1
        if time.perf_counter() < self._until:
            self._ask(board)
        else:
            self._events.put("idle")

    def _ask(self, board: Board) -> None:
        board.number += 1
        text = f"{board.user[1:]}-{board.number:08d}"
        board.id, board.awaits, board.envelope = text.encode(), State.COLLECTED, True
        board.asked = time.perf_counter()
        self._tell(board.user, TopicKind.REQUEST, encode_request(PROGRAM, id=text))

    def _tell(self, user: str, kind: TopicKind, payload: bytes) -> None:
        self._transport.publish(self._topics.of(user, kind), payload)


def _user(index: int) -> str:
    return f"b{index:04d}"


def _text(board: Board) -> str:
    return board.id.decode()


# --- a plain round trip -------------------------------------------------------------------------


def no_delay(_: Client, __: object, sock: Any) -> None:
    """For paho, which never does it itself."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def round_trips(port: int, count: int) -> list[float]:
    """Seconds from a QoS 1 publish to its own delivery, one after the other; paho with nodelay."""
    came: queue.SimpleQueue[float] = queue.SimpleQueue()

    def on_message(_: Client, __: object, ___: MQTTMessage) -> None:
        came.put(time.perf_counter())

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_socket_open = no_delay
    client.on_message = on_message
    client.on_subscribe = lambda *_: came.put(0.0)
    client.connect(LOOPBACK, port)
    client.loop_start()
    client.subscribe("ping", 1)
    try:
        came.get(timeout=PATIENCE_S)
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            client.publish("ping", b"x", 1)
            times.append(came.get(timeout=PATIENCE_S) - begin)
        return times
    except queue.Empty:
        raise NoBroker("mosquitto sends nothing back") from None
    finally:
        client.disconnect()
        client.loop_stop()


def transport_round_trips(url: BrokerUrl, count: int) -> list[float]:
    """The same through ``hwsync.transport``, which acknowledges by hand."""
    came: queue.SimpleQueue[float] = queue.SimpleQueue()

    def on_signal(heard: Signal) -> None:
        if isinstance(heard, Delivery):
            came.put(time.perf_counter())
            transport.acknowledge(heard)
        elif isinstance(heard, Subscribed):
            came.put(0.0)

    transport = Transport(
        url, "ping", on_signal=on_signal, subscriptions=[Subscription("ping/transport")]
    )
    transport.start()
    try:
        came.get(timeout=PATIENCE_S)
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            transport.publish("ping/transport", b"x")
            times.append(came.get(timeout=PATIENCE_S) - begin)
        return times
    except queue.Empty:
        raise NoBroker("mosquitto sends nothing back") from None
    finally:
        transport.stop()


# --- what a cycle costs -------------------------------------------------------------------------


def processor_time(pid: int) -> float:
    """Seconds that a process has had, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Meter:
    """What the broker has read and written in all; it says so every other second."""

    def __init__(self, port: int) -> None:
        self._counts: dict[str, int] = {}
        self._said: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.connect(LOOPBACK, port)
        self._client.subscribe([(RECEIVED, 0), (SENT, 0)])
        self._client.loop_start()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        self._said.put((message.topic, int(message.payload)))

    def of_a_cycle(self, lab: Lab) -> int:
        """Bytes of one board's cycle, seen from the broker: read and written."""
        before = self._now()
        for _ in range(BYTES_CYCLES):
            lab.round(1, 0.0)
        return round((self._now() - before) / BYTES_CYCLES)

    def _now(self) -> int:
        """What it says next: "received" where that has changed, and then "sent", which has."""
        while not self._said.empty():
            self._counts |= [self._said.get()]
        topic = ""
        try:
            while topic != SENT or RECEIVED not in self._counts:
                topic, count = self._said.get(timeout=PATIENCE_S)
                self._counts[topic] = count
        except queue.Empty:
            raise NoBroker("mosquitto does not say what it read and wrote") from None
        return sum(self._counts.values())


# --- processes ----------------------------------------------------------------------------------


@contextmanager
def running(
    command: list[str],
    log: Path,
    ready: Callable[[], bool],
    name: str,
    checkout: Path = CHECKOUT,
) -> Iterator[int]:
    """A process that is ready, and ended after; in a session of its own, away from Ctrl-C.

    Gives its number. ``checkout``: whose hwsync it is.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    last = log.read_text(errors="replace").strip()[-500:]
                    raise NoBroker(f"{name} does not start: {last or 'it said nothing'}")
                time.sleep(0.01)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def mosquitto(program: str, directory: Path) -> Iterator[int]:
    """A mosquitto of our own, set like hwsync's broker.conf, with long queues; gives its port."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    lines = [
        f"listener {port} {LOOPBACK}",
        "allow_anonymous true",
        "set_tcp_nodelay true",
        "max_inflight_messages 100",
        "max_queued_messages 1000000",
        "persistence true",
        f"persistence_location {directory}/",
        "autosave_interval 1",
        "sys_interval 1",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # else it becomes a user that may not write here
    configuration = directory / "broker.conf"
    configuration.write_text("\n".join([*lines, ""]))

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, port)) == 0

    command = [program, "-c", str(configuration)]
    with running(command, directory / "mosquitto.log", listens, "mosquitto"):
        yield port


def machine(program: str) -> dict[str, Any]:
    """What the figures depend on."""
    version = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "mosquitto": version.split("\n")[0].removeprefix("mosquitto version ").strip(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


@contextmanager
def answering(
    side: str, url: BrokerUrl, directory: Path, log: str = "info", checkout: Path = CHECKOUT
) -> Iterator[Lab]:
    """One of the sides in a process of its own, and its lab."""
    path = directory / f"{side}.log"
    command = [sys.executable, __file__, "--answer", side, "--log", log]
    command += ["--url", str(url), "--directory", str(directory)]
    with ExitStack() as stack:
        process = running(command, path, partial(_ready, path), side, checkout)
        yield stack.enter_context(Lab(url, side, stack.enter_context(process)))


# --- the run ------------------------------------------------------------------------------------


def summary(boards: int, rounds: dict[str, list[Measured]]) -> dict[str, Any]:
    """Medians of all rounds; a ratio to the floor is the median of the rounds' own."""
    row: dict[str, Any] = {"boards": boards}
    for side, measured in rounds.items():
        row[side] = {
            "cycles_per_s": round(statistics.median(m.cycles_per_s for m in measured), 1),
            "median_ms": round(1000 * statistics.median(m.median for m in measured), 2),
            "p95_ms": round(1000 * statistics.median(m.p95 for m in measured), 2),
            "status_bytes": round(statistics.median(m.status_bytes for m in measured)),
            "processor_s": round(statistics.median(m.processor for m in measured), 3),
        }
        pairs = zip(measured, rounds["floor"], strict=True)
        ratios = [one.cycles_per_s / floor.cycles_per_s for one, floor in pairs]
        row[side]["ratio"] = round(statistics.median(ratios), 3)
        row[side]["ratios"] = [round(ratio, 3) for ratio in ratios]
    return row


def measure(options: argparse.Namespace, program: str) -> Iterator[dict[str, Any]]:
    """The facts first, then the round trip, then a row for each number of boards."""
    yield {"machine": machine(program)}
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="hwsync-benchmark-")
        directory = Path(stack.enter_context(temporary))
        port = stack.enter_context(mosquitto(program, directory))
        url = BrokerUrl("mqtt", LOOPBACK, port)
        sides = [side for side in SIDES if side != "beside" or options.beside]
        labs: list[Lab] = []
        for side in sides:
            path = options.beside if side == "beside" else CHECKOUT
            lab = answering(side, url, directory, options.log, path)
            labs.append(stack.enter_context(lab))
        plain: list[float] = []
        ours: list[float] = []
        for _ in range(options.rounds):
            plain += round_trips(port, PINGS)
            ours += transport_round_trips(url, PINGS)
        yield {
            "round_trip_ms": round(1000 * statistics.median(plain), 3),
            "transport_round_trip_ms": round(1000 * statistics.median(ours), 3),
        }
        with Meter(port) as meter:
            yield {"wire_bytes": {lab.side: meter.of_a_cycle(lab) for lab in labs}}
        for boards in options.boards:
            rounds: dict[str, list[Measured]] = {side: [] for side in sides}
            for lab in labs:
                lab.round(boards, 0.0)  # so that every user is known to both
            for number in range(options.rounds):
                for lab in labs if number % 2 == 0 else reversed(labs):
                    rounds[lab.side].append(lab.round(boards, options.seconds))
                    rate = rounds[lab.side][-1].cycles_per_s
                    note = f"{boards} boards, round {number + 1}, {lab.side}: {rate:.0f} cycles/s"
                    print(note, file=sys.stderr, flush=True)
            yield summary(boards, rounds)


def _ready(log: Path) -> bool:
    return "ready" in log.read_text(errors="replace")


def show(row: dict[str, Any]) -> Iterator[str]:
    """A row for people."""
    if "machine" in row:
        yield (
            "{machine}, {cores} cores, Python {python}, mosquitto {mosquitto}".format(
                **row["machine"]
            )
        )
    elif "round_trip_ms" in row:
        yield (
            f"QoS 1 round trip: a plain client with TCP_NODELAY {row['round_trip_ms']:.2f} ms, "
            f"hwsync.transport {row['transport_round_trip_ms']:.2f} ms"
        )
    elif "wire_bytes" in row:
        each = ", ".join(f"{side} {count}" for side, count in row["wire_bytes"].items())
        yield f"bytes of a cycle, read and written by the broker: {each}"
        yield ""
        yield (
            "boards  side     cycles/s  of the floor  request to status 3: median     p95   "
            "status bytes  processor s/1000"
        )
    else:
        for side in SIDES:
            if value := row.get(side):
                yield (
                    f"{row['boards']:6}  {side:7}  {value['cycles_per_s']:8.0f}  "
                    f"{value['ratio']:12.0%}  "
                    f"{value['median_ms']:24.2f} ms {value['p95_ms']:6.1f} ms  "
                    f"{value['status_bytes']:12}  {value['processor_s']:16.2f}"
                )
        each = ", ".join(f"{ratio:.0%}" for ratio in row["hwsync"]["ratios"])
        yield f"        hwsync has {row['hwsync']['ratio']:.0%} of the floor (rounds: {each})"


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if not all(1 <= number <= 9_999 for number in numbers):
        raise ValueError(text)
    return numbers


def _positive(kind: type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < 1e6:
            raise ValueError(text)
        return value

    parse.__name__ = "positive number"  # what argparse says was expected
    return parse


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; the last three are how the script starts its sides."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--boards", type=_numbers, default=[1, 100, 1000], metavar="N,N")
    parser.add_argument("--seconds", type=_positive(float), default=3.0, help="of each round")
    parser.add_argument("--rounds", type=_positive(int), default=5)
    parser.add_argument("--beside", type=Path, metavar="DIR", help="a checkout to compare with")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument(
        "--log", choices=LOG_LEVELS, default="info", help="hwsync's log; info: its own"
    )
    parser.add_argument("--answer", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--url", type=BrokerUrl.parse, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0, 1 on an error that it names, 130 on Ctrl-C or SIGTERM."""
    chosen = options(arguments)
    if chosen.answer:
        answer(chosen.answer, chosen.url, chosen.directory, LOG_LEVELS[chosen.log])
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    program = shutil.which("mosquitto", path=path)
    if program is None:
        print("mosquitto is missing (apt-get install mosquitto)", file=sys.stderr)
        return 1
    try:
        for row in measure(chosen, program):
            for line in [json.dumps(row)] if chosen.json else show(row):
                print(line, flush=True)
    except HwsyncError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
