"""A daemon that is killed at a named point, and started again: each point, and what is true then.

mosquitto, one coordinator, and for each point a board of its own. The witness is a file outside
hwsync to which each program adds a line. What the journal says of the command at the kill decides
the end that must be recorded: ``started`` is interrupted and maybe, ``finished`` is the result,
anything less runs now. Each program is sent a file and brings one back, whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hwsync.runner.processes import read_process
from tests.support import killed_device
from tests.support.brokers import MosquittoBroker
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC
from tests.support.mqtt import Watcher, publish
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

KILLED = [sys.executable, killed_device.__file__]

# Adds its line; then it hangs for as long as the test says so, but never for ever.
PROGRAM = """
import os, time
with open({witness!r}, "a") as file:
    file.write("ran\\n")
for _ in range(3_000):
    if not os.path.exists({hang!r}):
        break
    time.sleep(0.01)
with open("out/back", "wb") as file:
    file.write(open("in/sent", "rb").read()[::-1])
print(6*7)
"""
SENT = bytes(range(256)) * 512  # 128 KiB: more than any buffer on its way
FILES = {"in/sent": b64encode(SENT).decode(), "out/other": ""}
BACK = {"out/back": {"size": len(SENT), "sha256": sha256(SENT[::-1]).hexdigest()}}


class Bench:
    """A broker and a coordinator for many boards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []
        self.broker = MosquittoBroker(folder / "mosquitto")
        self.broker.start()
        self.watcher = Watcher(self.broker)
        self.master = self.coordinator()

    def coordinator(self) -> Process:
        command = [*HWSYNC, "coordinator", "--broker", self.broker.url, "--settle", "0"]
        master = self.start([*command, "--db", self.folder / "hwsync.db"], "coordinator")
        master.wait_for_log(r"\bready\b", START_PATIENCE)
        return master

    def start(self, command: list[Any], name: str, **variables: str) -> Process:
        label = f"{len(self.started)}-{name}"
        process = Process(command, directory=self.folder, name=label, variables=variables)
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self.started):
            process.stop()
        self.watcher.close()
        self.broker.stop()
        print(self.broker.account(), self.master.account(), sep="\n")


class Board:
    """One user, and what is known of it from outside."""

    def __init__(self, bench: Bench, user: str) -> None:
        self.bench, self.user, self.watcher = bench, user, bench.watcher
        self.folder = bench.folder / user
        self.folder.mkdir()
        self.witness, self.hang = self.folder / "witness", self.folder / "hang"
        self.witness.touch()
        self.mark = str(self.folder)  # other tests have a pi1 of theirs meanwhile
        self.daemon: Process | None = None

    def start(self, point: str = "", passing: int = 1) -> Process:
        command = [*KILLED, point, str(passing)] if point else DEVICE
        arguments = ["--user", self.user, "--broker", self.bench.broker.url, *AS_ROOT]
        arguments += ["--state-dir", str(self.folder / "state")]
        name = f"{self.user}-{point or 'whole'}".replace(" ", "-")
        self.daemon = self.bench.start([*command, *arguments], name, HW_MARK=self.mark)
        return self.daemon

    def die(self, point: str, passing: int = 1) -> None:
        """A life that must end at that point, and leave no process."""
        daemon = self.start(point, passing)
        assert daemon.wait(START_PATIENCE) == -signal.SIGKILL, daemon.account()
        wait_until(lambda: not self.processes(), what=lambda: f"the end of {self.processes()}")

    def stop(self) -> None:
        assert self.daemon is not None
        self.daemon.terminate()
        assert self.daemon.wait() == 0, self.daemon.account()
        assert self.processes() == []

    def pub(self, kind: str, payload: str = "") -> None:
        publish(self.bench.broker, f"hw/{self.user}/{kind}", payload)

    def request(self, id: str) -> dict[str, Any]:
        program = PROGRAM.format(witness=str(self.witness), hang=str(self.hang))
        request = {"id": id, "program": program, "files": FILES, "collect": ["out/*"]}
        self.pub("request", json.dumps({**request, "analysis": "outcome"}))
        return self.watcher.wait_for_state(self.user, 1, id=id)

    def end_of(self, id: str) -> tuple[str, str, str]:
        """Outcome, ran and output, when the record is at rest after that command.

        The device may only just have been started.
        """
        end = self.watcher.wait_for_state(self.user, 0, START_PATIENCE, id=id)
        assert end["files"] == (BACK if end["outcome"] == "ok" else {}), end
        return end["outcome"], end["ran"], end["hw_response"]

    def run_to_its_end(self, id: str) -> None:
        self.request(id)
        assert self.end_of(id) == ("ok", "yes", "42\n")
        wait_until(lambda: self.entry(id, "settled") == 1, what=f"{id} is settled")

    def lines(self) -> int:
        return len(self.witness.read_text().splitlines())

    def entry(self, id: str, column: str) -> Any:
        """What a copy of the journal says of it; None where it says nothing."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder / "state", copy, ignore=lambda *_: {"work"})
        with closing(sqlite3.connect(copy / "journal.db")) as db:
            row = db.execute(f"select {column} from entries where id = ?", (id,)).fetchone()
        return row[0] if row else None

    def processes(self) -> list[int]:
        """Whatever lives with the daemon's mark in its environment: itself, servers, programs."""
        mark = f"HW_MARK={self.mark}\0".encode()
        found = []
        for name in os.listdir("/proc"):
            process = read_process(int(name)) if name.isdecimal() else None
            try:
                marked = mark in Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue  # it is gone
            if marked and process is not None and process.alive:
                found.append(process.pid)
        return found

    def assert_all_is_well(self, id: str, runs: int) -> None:
        """The result is settled, the next command is normal, nothing ran twice or is left."""
        wait_until(lambda: self.entry(id, "settled") == 1, what=f"{id} is settled")
        assert self.lines() == runs
        self.run_to_its_end("next")
        assert self.lines() == runs + 1
        self.stop()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    one = Bench(tmp_path_factory.mktemp("bench"))
    yield one
    one.close()


@pytest.fixture
def board(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Board]:
    number = len([path for path in bench.folder.iterdir() if path.name.startswith("pi")])
    one = Board(bench, f"pi{number}")
    yield one
    if one.daemon is not None:
        one.daemon.stop()
        print(one.daemon.account())


@dataclass(frozen=True, slots=True)
class At:
    """What must be true at the moment of a kill."""

    stage: str | None  # the journal's word on the command; None: it does not know it
    lines: int | None  # how often the program has run; None: nobody can know


NOTHING, RECEIVED, STARTED = At(None, 0), At("received", 0), At("started", 0)
PERHAPS, RAN, FINISHED = At("started", None), At("started", 1), At("finished", 1)

POINTS = {
    "before publish first heartbeat": NOTHING,
    "after publish first heartbeat": NOTHING,
    "before journal received": NOTHING,
    "after journal received": RECEIVED,
    "before publish collected": RECEIVED,
    "after publish collected": RECEIVED,
    "before publish busy heartbeat": RECEIVED,
    "after publish busy heartbeat": RECEIVED,
    "before acknowledge envelope": RECEIVED,
    "after acknowledge envelope": RECEIVED,
    "before acknowledge grant": RECEIVED,
    "after acknowledge grant": RECEIVED,
    "before start of the process": RECEIVED,
    "after start of the process": RECEIVED,
    "before journal started": RECEIVED,
    "after journal started": STARTED,
    "before handing over": STARTED,
    "after handing over": PERHAPS,
    "after first instruction": PERHAPS,
    "before bringing back": RAN,
    "after bringing back": RAN,
    "after run": RAN,
    "before result in the loop": RAN,
    "before journal finished": RAN,
    "after journal finished": FINISHED,
    "before publish last heartbeat": FINISHED,
    "after publish last heartbeat": FINISHED,
    "before publish response": FINISHED,
    "after publish response": FINISHED,
    "before journal settle": FINISHED,
    "after journal settle": FINISHED,
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_on_the_way_of_a_command(board: Board, point: str) -> None:
    at = POINTS[point]
    board.request("a")
    if at is PERHAPS:
        board.hang.touch()
    board.die(point)
    assert board.entry("a", "state") == at.stage
    before = board.lines()
    assert at.lines in (None, before)
    board.hang.unlink(missing_ok=True)
    board.start()
    end = board.end_of("a")
    if at.stage == "started":
        assert end == ("interrupted", "maybe", "")
        board.assert_all_is_well("a", runs=before)
    else:
        assert end == ("ok", "yes", "42\n")
        board.assert_all_is_well("a", runs=1)


@pytest.mark.parametrize("point", ["before journal finished", "after journal finished"])
def test_a_second_kill_while_the_first_one_is_written_down(board: Board, point: str) -> None:
    board.request("a")
    board.die("before journal finished")
    board.die(point)
    board.start()
    assert board.end_of("a") == ("interrupted", "maybe", "")
    board.assert_all_is_well("a", runs=1)


@pytest.mark.parametrize("point", ["before journal closed", "after journal closed"])
def test_a_kill_where_a_cancelled_command_is_given_up(board: Board, point: str) -> None:
    cancel_while_it_is_away(board)
    board.die(point)
    assert board.entry("a", "state") == ("received" if point.startswith("before") else "closed")
    board.start()
    board.assert_all_is_well("a", runs=0)
    assert board.end_of("a") == ("cancelled", "no", "")


@pytest.mark.parametrize("point", ["before journal next_boot", "after journal next_boot"])
def test_a_kill_where_a_newer_envelope_opens_a_closed_command(board: Board, point: str) -> None:
    cancel_while_it_is_away(board)
    board.start()
    settled = board.watcher.wait_for_status(board.user, lambda status: status["settled"])
    wait_until(lambda: board.entry("a", "settled") == 1, what="a is settled")
    board.stop()
    envelope = board.watcher.wait_for(
        lambda message: message.json["id"] == "a", topic=f"hw/{board.user}/command"
    ).json
    # As from a coordinator that asks anew; its own status is as new, and says what is true.
    board.pub("command", json.dumps(envelope | {"seq": settled["seq"]}))
    board.die(point)
    assert board.entry("a", "state") == "closed"
    board.start()
    wait_until(lambda: board.entry("a", "seq") == settled["seq"], what="it is open again")
    wait_until(lambda: board.entry("a", "state") == "closed", what="it is closed again")
    board.assert_all_is_well("a", runs=0)
    assert board.end_of("a") == ("cancelled", "no", "")


def cancel_while_it_is_away(board: Board) -> None:
    """Its next life hears the envelope and then that it is over."""
    board.start()
    board.watcher.wait_for(lambda message: True, topic=f"hw/{board.user}/heartbeat")
    board.stop()
    board.request("a")
    board.pub("cancel")
    board.watcher.wait_for_state(board.user, 0, id="a")


@pytest.mark.parametrize("point", ["before journal begin_epoch", "after journal begin_epoch"])
def test_a_kill_where_a_new_epoch_begins(tmp_path: Path, point: str) -> None:
    """An old database is put back: what the board still holds is said again, and not run."""
    bench = Bench(tmp_path)
    try:
        board = Board(bench, "pi1")
        daemon = board.start(point)
        board.run_to_its_end("known")
        old, db = tmp_path / "old.db", tmp_path / "hwsync.db"
        with closing(sqlite3.connect(db)) as source, closing(sqlite3.connect(old)) as copy:
            source.backup(copy)
        board.run_to_its_end("a")
        bench.master.kill()
        for file in tmp_path.glob("hwsync.db-*"):
            file.unlink()
        old.rename(db)
        mark = bench.watcher.mark()
        bench.master = bench.coordinator()
        assert daemon.wait() == -signal.SIGKILL, daemon.account()
        assert board.entry("a", "settled") == (1 if point.startswith("before") else 0)
        board.start()
        again = bench.watcher.wait_for(
            lambda message: (message.json["id"], message.json["boot"]) == ("a", 2),
            START_PATIENCE,
            topic="hw/pi1/response",
            after=mark,
        ).json
        assert (again["outcome"], again["response"]) == ("ok", "42\n")
        board.assert_all_is_well("a", runs=2)
    finally:
        bench.close()


def test_every_call_that_can_be_chosen_is_a_point_of_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for name in killed_device.CALLS:
        assert f"before {name}" in source or f"after {name}" in source, name


def test_a_point_that_is_never_passed_does_not_look_like_a_kill(
    board: Board, start: Callable[..., Process]
) -> None:
    daemon = board.start("before journal started", passing=1_000)
    board.request("a")
    assert board.end_of("a")[0] == "ok"
    assert daemon.running
    unknown = start([*KILLED, "before journal vanished", "1"], name="unknown")
    assert unknown.wait() == 1
    assert "KeyError: 'journal vanished'" in unknown.stderr
    board.stop()
