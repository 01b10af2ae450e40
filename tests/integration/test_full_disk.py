"""A coordinator and a device on a disk that is full for a while: a small tmpfs, really full.

And a program that would fill it, which is ended before.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.protocol.files import File
from hwsync.protocol.limits import MAX_FILES_BYTES
from hwsync.runner import Job, Limits, RunEnd, Runner, Settings, Start, StopSwitch
from hwsync.runner.processes import read_process
from tests.support.board import envelope
from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Message, Watcher
from tests.support.processes import Process
from tests.support.waiting import wait_until

SIZE = "2m"
SOON_S = 30.0  # for a repetition, which comes after at most 30 s


class SmallDisk:
    """A file system of its own, which can be filled to the last byte and emptied again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                pass

    def empty(self) -> None:
        self._filler.unlink()

    def remount(self, how: str) -> None:
        """ "ro" or "rw"; nobody may have a file open for writing then."""
        command = ["mount", "-o", f"remount,{how}", str(self.folder)]
        subprocess.run(command, check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_delays_a_request_and_loses_nothing(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
    disk: SmallDisk,
) -> None:
    lab = Lab(mosquitto, start, tmp_path)
    lab.db = disk.folder / "hwsync.db"
    coordinator = lab.coordinator("--settle", "0")
    watcher = watch(mosquitto)
    lab.pub("request", '{"program":"print(1)","id":"c1"}')
    watcher.wait_for_state("pi1", 1, id="c1")
    disk.fill()
    before = watcher.mark()
    lab.pub("cancel", json.dumps({"id": "c1"}))
    error = watcher.wait_for(
        lambda message: message.json["error"] == "degraded", SOON_S, topic="hw/pi1/error"
    ).json
    assert error["id"] == "c1"
    asked = watcher.mark()
    lab.pub("query")
    watcher.wait_for_state("pi1", 1, after=asked)
    assert {status["state"] for status in watcher.statuses("pi1")} == {1}
    assert coordinator.running
    disk.empty()
    end = watcher.wait_for_state("pi1", 0, SOON_S, id="c1", after=before)
    assert (end["outcome"], end["ran"]) == ("cancelled", "no")
    check = lab.cli("check-db", "--db", str(lab.db))
    assert check.wait() == 0, check.account()
    assert "Traceback" not in coordinator.stderr


def test_on_a_full_disk_status_and_cancel_answer_from_what_is_kept(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
    disk: SmallDisk,
) -> None:
    lab = Lab(mosquitto, start, tmp_path)
    lab.db = disk.folder / "hwsync.db"
    lab.coordinator("--settle", "0")
    watcher = watch(mosquitto)
    lab.pub("request", '{"program":"print(1)","id":"c1"}')
    watcher.wait_for_state("pi1", 1, id="c1")
    disk.fill()
    lab.pub("request", '{"program":"print(2)","id":"c2","queue":true}')
    health = watch(mosquitto, "hw/@hwsync/health")
    health.wait_for(lambda message: message.json["condition"] == "degraded", SOON_S)
    # Its own questions wait behind that request, as long as it cannot be stored.
    status = lab.cli("status", "pi1")
    everybody = lab.cli("status", "--json")
    cancel = lab.cli("cancel", "pi1")
    past = lab.cli("history", "pi1", "--json")  # which waits for nothing
    assert past.wait(SOON_S) == 0, past.account()
    assert [json.loads(line)["id"] for line in past.stdout.splitlines()] == ["c1"]
    assert status.wait(SOON_S) == 0, status.account()
    assert status.stdout.startswith("pi1: 1 requested")
    assert everybody.wait(SOON_S) == 0, everybody.account()
    assert json.loads(everybody.stdout)["id"] == "c1"
    assert cancel.wait(SOON_S) == 125, cancel.account()
    assert "1 requested" in cancel.stdout
    for process in (status, everybody, cancel):
        assert "degraded: the coordinator cannot save anything now" in process.stderr
        assert "start" not in process.stderr
    before = watcher.mark()
    disk.empty()
    end = watcher.wait_for_state("pi1", 0, SOON_S, id="c1", after=before)
    assert end["outcome"] == "cancelled", "what was sent waited at the broker"


# -- a program ------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", Start)
def test_a_program_that_fills_the_disk_is_ended_before_it_is_full(
    disk: SmallDisk, start: Start
) -> None:
    """What it started too; what it wrote goes with it, and the next one runs."""
    limits = Limits(free_disk_mb=1)
    folder = disk.folder / "work"
    runner = Runner(Settings(folder, empty_directory=True, start=start, limits=limits))
    program = """
import os, time
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    with open("big", "wb", buffering=0) as file:
        for _ in range(130):  # of 10,000 bytes: the disk holds two million
            file.write(bytes(10_000))
    time.sleep(600)
os.wait()
"""

    def run(program: str) -> RunEnd:
        return runner.run(
            Job(program, "", (), 60.0),
            on_started=lambda group: None,
            on_output=lambda piece: None,
            stop=StopSwitch(),
        )

    try:
        end = run(program)
        assert (end.outcome, end.exit_code, end.began) == ("killed", None, True), end
        assert end.reason == "less than 1 MB free on the disk"
        assert end.duration < 10
        assert read_process(int(end.response)) is None
        assert list(folder.iterdir()) == []
        assert run("open('small', 'w').write('x' * 1000)").outcome == "ok"
        disk.fill()
        with pytest.raises(CannotRun, match=r"only 0 MB are free in .*work, 1 must be"):
            run("print(1)")
        disk.empty()
        assert run("print(6*7)").response == "42\n"
    finally:
        runner.close()


@pytest.mark.parametrize("emptied", [True, False])
def test_files_for_which_a_disk_has_no_room_are_named_and_nothing_is_half(
    disk: SmallDisk, emptied: bool
) -> None:
    work = disk.folder / "work"
    work.mkdir()
    (work / "data").write_text("old")
    runner = Runner(Settings(work, empty_directory=emptied))
    files = (File.of("data", b"new"), File.of("large", bytes(MAX_FILES_BYTES)))
    (disk.folder / "taken").write_bytes(bytes(1_500_000))
    job = Job("print(open('data').read())", "", (), 60.0, files=files)
    arguments: Any = {
        "on_started": lambda _: None,
        "on_output": lambda _: None,
        "stop": StopSwitch(),
    }
    try:
        with pytest.raises(CannotRun, match=r"large cannot be written in .*: No space left on dev"):
            runner.run(job, **arguments)
        left = {path.name: path.read_text() for path in work.iterdir()}
        assert left == ({} if emptied else {"data": "old"})
        (disk.folder / "taken").unlink()
        assert runner.run(job, **arguments).response == "new\n"
    finally:
        runner.close()


# -- a device --------------------------------------------------------------------------------------

FULL = "database or disk is full"


class Bench:
    """A coordinator, and a device whose state is on the small disk."""

    def __init__(self, lab: Lab, watcher: Watcher, disk: SmallDisk) -> None:
        self.lab, self.watcher, self.disk = lab, watcher, disk
        self.witness, self.gate = lab.folder / "witness", lab.folder / "gate"
        lab.coordinator("--settle", "0")

    @property
    def device(self) -> Process:
        return self.lab.processes["device"]

    def start(self, *, refusing: str | None = None) -> dict[str, Any]:
        """The first heartbeat of a new process, which refuses for that reason."""
        before = self.watcher.mark()
        self.lab.device(folder="disk/device")
        return self.heartbeat(refusing, after=before)

    def heartbeat(self, refusing: str | None, after: int) -> dict[str, Any]:
        def says(message: Message) -> bool:
            said, beat = message.json.get("refusing"), message.json
            return beat["online"] and (refusing in said if refusing and said else said == refusing)

        found: dict[str, Any] = self.watcher.wait_for(
            says, SOON_S, f"refusing {refusing}", topic="hw/pi1/heartbeat", after=after
        ).json
        return found

    def ask(self, id: str, *, waits: bool = False) -> int:
        """A program that leaves its id in the witness, perhaps not ending before the gate opens."""
        program = f"import os, time; open({str(self.witness)!r}, 'a').write({id!r} + ' ')\n"
        if waits:
            program += f"while not os.path.exists({str(self.gate)!r}): time.sleep(0.02)"
        before = self.watcher.mark()
        self.lab.pub("request", json.dumps({"program": program, "id": id, "expires": 60}))
        return before

    def ends(self, id: str, outcome: str, ran: str) -> str:
        """Wait for that end; its reason."""
        end = self.watcher.wait_for_state("pi1", 3, SOON_S, id=id)
        assert (end["outcome"], end["ran"]) == (outcome, ran), end["reason"]
        self.lab.pub("analysis", json.dumps({"analysis": "seen", "id": id}))
        self.watcher.wait_for_state("pi1", 0, SOON_S, id=id)
        reason: str = end["reason"]
        return reason

    def ran(self) -> list[str]:
        return self.witness.read_text().split() if self.witness.exists() else []

    def stored(self, id: str) -> tuple[str, int] | None:
        """Stage and whether it is settled, as the file has it."""
        with closing(sqlite3.connect(self.disk.folder / "device" / "journal.db")) as db:
            row: tuple[str, int] | None = db.execute(
                "select state, settled from entries where id = ?", (id,)
            ).fetchone()
        return row

    def check(self) -> None:
        assert self.device.running
        assert "Traceback" not in self.device.stderr


def no_limit(folder: Path) -> None:
    """Programs run on this disk however little is free: else nothing would come to the journal."""
    (folder / "device.toml").write_text("[limits]\nfree_disk_mb = 0\n")


@pytest.fixture
def bench(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
    disk: SmallDisk,
) -> Bench:
    no_limit(tmp_path)
    return Bench(Lab(mosquitto, start, tmp_path), watch(mosquitto), disk)


def test_a_device_with_a_full_disk_refuses_with_the_reason_and_is_well_again_by_itself(
    bench: Bench,
) -> None:
    name = bench.start()["journal"]
    bench.disk.fill()
    before = bench.ask("c1")
    reason = bench.ends("c1", "rejected", "no")
    assert reason == f"the journal cannot be written: {FULL}"
    bench.heartbeat(FULL, after=before)
    bench.ask("c2")
    bench.ends("c2", "rejected", "no")
    assert bench.ran() == []
    before = bench.watcher.mark()
    bench.disk.empty()
    assert bench.heartbeat(None, after=before)["journal"] == name
    bench.ask("c3")
    bench.ends("c3", "ok", "yes")
    assert bench.ran() == ["c3"]
    bench.check()


def test_a_result_that_a_full_disk_does_not_take_is_told_and_saved_later(bench: Bench) -> None:
    bench.start()
    bench.ask("c1", waits=True)
    wait_until(bench.ran, what="the program")
    bench.disk.fill()
    bench.gate.touch()
    bench.ends("c1", "ok", "yes")
    assert bench.stored("c1") == ("started", 0)
    bench.disk.empty()
    wait_until(lambda: bench.stored("c1") == ("finished", 1), SOON_S, what="saved and settled")
    assert bench.ran() == ["c1"]
    bench.check()


def test_a_result_that_only_memory_had_is_not_told_twice_nor_otherwise_after_a_kill(
    bench: Bench,
) -> None:
    bench.start()
    bench.ask("c1", waits=True)
    wait_until(bench.ran, what="the program")
    bench.disk.fill()
    bench.gate.touch()
    bench.ends("c1", "ok", "yes")
    bench.device.kill()
    bench.disk.empty()
    bench.start()
    wait_until(lambda: bench.stored("c1") == ("finished", 1), SOON_S, what="settled")
    bench.ask("c2")
    bench.ends("c2", "ok", "yes")
    statuses = bench.watcher.statuses("pi1")
    assert {one["outcome"] for one in statuses if one["id"] == "c1"} == {None, "ok"}
    assert bench.ran() == ["c1", "c2"]
    bench.check()


def test_a_start_that_a_full_disk_does_not_take_is_rejected(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
    disk: SmallDisk,
) -> None:
    """The coordinator is played by hand: nobody else waits between ``collected`` and the grant."""
    lab, watcher = Lab(mosquitto, start, tmp_path), watch(mosquitto)
    no_limit(tmp_path)
    device = lab.device(folder="disk/device")
    watcher.wait_for(lambda message: True, topic="hw/pi1/heartbeat")
    witness = tmp_path / "witness"
    lab.pub("command", json.dumps(envelope(user="pi1", program=f"open({str(witness)!r}, 'w')")))
    mine = watcher.wait_for(lambda message: True, topic="hw/pi1/collected").json
    disk.fill()
    grant = {"state": 2, "epoch": 0, "start_at": None, "cancelling": False, **mine}
    lab.pub("status", json.dumps(grant | {"seq": 2, "settled": []}))
    said = watcher.wait_for(lambda message: True, topic="hw/pi1/response").json
    assert (said["outcome"], said["ran"]) == ("rejected", "no")
    assert FULL in said["reason"]
    assert not witness.exists()
    settled = {"seq": 3, "state": 3, "settled": [["a", mine["journal"]]]}
    lab.pub("status", json.dumps(grant | settled))
    disk.empty()
    database = disk.folder / "device" / "journal.db"

    def stored() -> list[tuple[str, int]]:
        with closing(sqlite3.connect(database)) as db:
            return db.execute("select state, settled from entries").fetchall()

    wait_until(lambda: stored() == [("finished", 1)], SOON_S, what="saved and settled")
    wait_until(lambda: "programs can be run again" in device.stderr, what="the log says so")
    assert "Traceback" not in device.stderr


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_device_that_begins_on_a_disk_that_refuses_is_there_and_says_why(
    how: str, bench: Bench
) -> None:
    first = bench.start()
    bench.ask("c1")
    bench.ends("c1", "ok", "yes")
    bench.device.kill()
    if how == "full":
        bench.disk.fill()
    else:
        bench.disk.remount("ro")
    beat = bench.start(refusing="the journal cannot be" if how == "full" else "cannot be used")
    assert beat["journal"] != first["journal"]
    bench.ask("c2")
    reason = bench.ends("c2", "rejected", "no")
    assert reason == beat["refusing"]
    before = bench.watcher.mark()
    if how == "full":
        bench.disk.empty()
    else:
        bench.disk.remount("rw")
    well = bench.heartbeat(None, after=before)
    assert (well["journal"], well["boot"] > first["boot"]) == (first["journal"], True)
    bench.ask("c3")
    bench.ends("c3", "ok", "yes")
    assert bench.ran() == ["c1", "c3"]
    bench.device.terminate()
    assert bench.device.wait() == 0


def test_a_journal_that_is_damaged_meanwhile_is_set_aside_without_a_restart(bench: Bench) -> None:
    first = bench.start()
    bench.ask("c1")
    bench.ends("c1", "ok", "yes")
    folder = bench.disk.folder / "device"
    before = bench.watcher.mark()
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        db.execute("update meta set value = 'x' where name = 'seal'")
        db.commit()
    bench.ask("c2")
    bench.ends("c2", "rejected", "no")
    bench.heartbeat("is damaged", after=before)
    well = bench.heartbeat(None, after=bench.watcher.mark())
    assert well["journal"] != first["journal"]
    assert len(list(folder.glob("journal-damaged-*.db"))) == 1
    bench.ask("c3")
    bench.ends("c3", "ok", "yes")
    bench.check()
