"""Programs that are prepared, and released at an instant, with real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.raw_clock import asleep_us
from hwsync.runner import (
    Instant,
    Isolation,
    Job,
    Known,
    Limits,
    Piece,
    Prepared,
    RunEnd,
    Runner,
    Settings,
    Start,
    StopSwitch,
    raw_ns,
)
from hwsync.runner.page import Page
from hwsync.runner.processes import members
from tests.support.programs import require_program
from tests.support.waiting import START_PATIENCE, wait_until

AT = 1_700_000_000_000_000  # microseconds of lab time
SOON = 150_000_000  # ns: for the instant of a test
WITHIN = 5_000_000  # µs: what a loaded machine keeps to
LONG = 60.0  # s: a limit that no passing test reaches

RAN = "open('ran', 'w').close()\n"


def instant(ahead: int = SOON, **changes: Any) -> Instant:
    """One that is met, unless something of it is changed."""
    at = raw_ns() + ahead
    return replace(
        Instant(AT, at, at + 10**10, True, 500, WITHIN, 1_500, asleep_us=asleep_us()), **changes
    )


def prepare(
    runner: Runner, program: str, *, timeout: float = LONG, stop: StopSwitch | None = None
) -> Prepared:
    return runner.prepare(
        Job(program, "", ("a",), timeout), on_output=lambda piece: None, stop=stop or StopSwitch()
    )


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    one = Runner(Settings(tmp_path))
    yield one
    one.close()


WAYS: dict[str, dict[str, Any]] = {
    "warm": {},
    "cold": {"start": Start.COLD},
    "bwrap": {"isolation": Isolation.BWRAP},
    "interpreter": {"interpreter": ("/usr/bin/python3",)},
    "interpreter in bwrap": {
        "interpreter": ("/usr/bin/python3",),
        "isolation": Isolation.BWRAP,
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_a_program_begins_at_its_instant_and_knows_lab_time(way: str, tmp_path: Path) -> None:
    if "bwrap" in way:
        require_program("bwrap", "bubblewrap")
    program = (
        "import time\nnow = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)\n"
        "import json, os, sys\n"
        "known = {key: value for key, value in os.environ.items() if key[:7] == 'HWSYNC_'}\n"
        "files = sorted(map(int, os.listdir('/proc/self/fd')))\n"
        "print(json.dumps([now, known, files, 'resource' in sys.modules, sys.argv[1:]]))"
    )
    runner = Runner(Settings(tmp_path, limits=Limits(cpu_s=30), **WAYS[way]))
    try:
        prepared = prepare(runner, program)
        when = instant()
        prepared.aim(when)
        end = prepared.run()
        now, known, files, imported, arguments = json.loads(end.response)
    finally:
        runner.close()
    assert (end.outcome, end.began, end.stderr) == ("ok", True, "")
    assert end.lab_us is not None
    assert end.raw_us is not None
    assert end.lab_us >= AT
    assert when.raw_ns // 1000 <= end.raw_us <= now // 1000
    beyond = end.raw_us - when.raw_ns // 1000
    assert abs(end.lab_us - AT - beyond - beyond * 1_500 // 10**9) <= 1
    assert end.bound_us == 500
    offset = AT - when.raw_ns // 1000
    page = known.pop("HWSYNC_LAB_PAGE", None)
    assert (page is None) == ("interpreter" in way), "another one does not keep it"
    assert known == {
        "HWSYNC_START_AT": "1700000000.000000",
        "HWSYNC_LAB_OFFSET": f"{offset // 10**6}.{offset % 10**6:06}",
        "HWSYNC_LAB_DRIFT_PPM": "1.500",
        "HWSYNC_LAB_BOUND": "0.000500",
    }
    assert files[:3] == [0, 1, 2]
    more = [] if page is None else [int(page)]
    assert set(files) >= {0, 1, 2, *more}
    assert len(files) == 4 + len(more), "the last is that of the listing"
    assert not imported
    assert arguments == ["a"]


def children() -> set[int]:
    """Processes that we have started."""
    files = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for file in files for pid in file.read_text().split()}


def wakeups(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_nobody_wakes_up_beside_a_program_that_waits_for_its_instant(tmp_path: Path) -> None:
    """And its limits hold from the instant on."""
    program = (
        "import os, time\nfor _ in range(3):\n    if not os.fork():\n"
        "        block = bytearray(60_000_000)\n        time.sleep(30)\ntime.sleep(30)\n"
    )
    others = children()
    runner = Runner(Settings(tmp_path, limits=Limits(memory_mb=100)))
    ends: list[RunEnd] = []
    try:
        prepared = prepare(runner, program)
        (server,) = children() - others
        when = instant(1_500_000_000)
        prepared.aim(when)
        thread = threading.Thread(target=lambda: ends.append(prepared.run()))
        thread.start()

        def pause(until: float) -> None:
            time.sleep(max(0.0, (when.raw_ns - raw_ns()) / 1e9 - until))

        pause(0.9)
        before = wakeups(server)
        pause(0.2)
        assert wakeups(server) == before, "it looks each 0.1 s at what runs"
        thread.join()
    finally:
        runner.close()
    assert (ends[0].outcome, ends[0].reason) == ("killed", "memory limit of 100 MB")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ahead": -WITHIN * 1000 - 1}, "its instant was past"),
        ({"fresh_until_ns": 1}, "last heard more than 10 s before"),
        ({"heard": False}, "had not been heard"),
        ({"bound_us": WITHIN + 1}, "was not known"),
        ({"asleep_us": -1_000_000}, "was suspended"),
    ],
)
def test_what_stands_against_it_at_the_instant(
    changes: dict[str, Any], why: str, runner: Runner, tmp_path: Path
) -> None:
    prepared = prepare(runner, RAN)
    prepared.aim(instant(**changes))
    with pytest.raises(CannotRun, match=why):
        prepared.run()
    assert not (tmp_path / "ran").exists()
    assert members(prepared.group.session, prepared.group.start_time) == []


def test_what_is_learnt_while_it_waits_counts(runner: Runner, tmp_path: Path) -> None:
    """The page is looked at once more at the instant, which itself may be known better by then."""
    prepared = prepare(runner, RAN)
    first = instant(LONG_NS, heard=False)
    prepared.aim(first)
    ends: list[Any] = []
    thread = threading.Thread(target=lambda: ends.append(prepared.run()))
    thread.start()
    prepared.aim(instant(3 * SOON))
    thread.join(START_PATIENCE)
    assert ends[0].outcome == "ok"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("start", Start)
def test_a_program_that_runs_goes_on_asking_what_time_it_is(start: Start, tmp_path: Path) -> None:
    program = (
        "from hwsync.lab_time import bound, now_us\n"
        "import os, time\n"
        "def say(): print(now_us(), time.clock_gettime_ns(4), bound(), flush=True)\n"
        "say()\ntime.sleep(0.5)\nsay()\n"
        "try: os.pwrite(int(os.environ['HWSYNC_LAB_PAGE']), b'x', 0)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    runner = Runner(Settings(tmp_path, start=start))
    try:
        when = instant()
        first = Known(AT + 5, when.raw_ns + 5_000, 500, 0)

        def on_output(_: Piece) -> None:
            later = Known(AT + 1_000_000, when.raw_ns, 7, 1_000)
            prepared.aim(replace(when, drift_ppb=0, known=later))

        job = Job(program, "", (), LONG)
        prepared = runner.prepare(job, on_output=on_output, stop=StopSwitch())
        prepared.aim(replace(when, drift_ppb=0, known=first))
        end = prepared.run()
    finally:
        runner.close()
    before, after, refused = end.response.splitlines()
    for line, ahead in ((before, 0), (after, 1_000_000)):
        lab, raw, _ = line.split()
        assert abs(int(lab) - AT - ahead - (int(raw) - when.raw_ns) // 1000) < 100_000
    assert float(before.split()[2]) == 501e-6
    assert float(after.split()[2]) == 8e-6
    assert refused == "Bad file descriptor"


LONG_NS = 600 * 10**9

ERASES = """
import contextlib, os
def erase(file):
    for at in range(0, 4096, 512):
        for _ in range(3):
            with contextlib.suppress(OSError):
                os.pwrite(file, bytes(512), at)
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
    for words in ((2, 3), (3, 0, 0, 0), (0,) * 5):
        with contextlib.suppress(OSError):
            os.write(file, b"".join(word.to_bytes(8, "little") for word in words))
page = os.environ.get("HWSYNC_LAB_PAGE", "0")
with contextlib.suppress(OSError):
    os.fchmod(int(page), 0o777)
for process in ("self", os.getppid()):
    with contextlib.suppress(OSError):
        for number in {*os.listdir(f"/proc/{process}/fd"), page} - {"1", "2"}:
            for flags in (os.O_RDWR, os.O_WRONLY):
                with contextlib.suppress(OSError):
                    erase(os.open(f"/proc/{process}/fd/{number}", flags | os.O_NONBLOCK))
for number in range(3, 256):
    erase(number)
open("ran", "w").close()
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_program_cannot_take_back_that_it_was_released(way: str, tmp_path: Path) -> None:
    """Its time is over before it is looked at for the first time."""
    if "bwrap" in way:
        require_program("bwrap", "bubblewrap")
    runner = Runner(Settings(tmp_path, **WAYS[way]))
    try:
        prepared = prepare(runner, ERASES)
        prepared.aim(instant())
        end = prepared.run()
    finally:
        runner.close()
    assert (tmp_path / "ran").exists()
    assert (end.outcome, end.began, end.stderr) == ("ok", True, "")
    assert end.lab_us is not None
    assert end.lab_us >= AT
    assert end.bound_us == 500


def test_it_is_taken_back_while_it_waits(runner: Runner, tmp_path: Path) -> None:
    prepared = prepare(runner, RAN)
    prepared.aim(instant(2 * SOON))
    thread = threading.Timer(SOON / 2e9, prepared.disarm)
    thread.start()
    with pytest.raises(CannotRun, match="taken back before its instant"):
        prepared.run()
    assert not (tmp_path / "ran").exists()


def test_it_was_taken_back_before_it_was_armed(runner: Runner, tmp_path: Path) -> None:
    prepared = prepare(runner, RAN)
    prepared.disarm()
    prepared.aim(instant())
    with pytest.raises(CannotRun, match="taken back before its instant"):
        prepared.run()
    assert not (tmp_path / "ran").exists()


def test_what_comes_after_the_release_does_not_take_it_back(runner: Runner) -> None:
    prepared = prepare(runner, "import time\nprint('here', flush=True)\ntime.sleep(0.5)\nprint(2)")
    prepared.aim(instant())
    threading.Timer(2 * SOON / 1e9, prepared.disarm).start()
    end = prepared.run()
    assert (end.outcome, end.response) == ("ok", "here\n2\n")


def test_a_stop_while_it_waits(runner: Runner, tmp_path: Path) -> None:
    stop = StopSwitch()
    prepared = prepare(runner, RAN, stop=stop)
    prepared.aim(instant(LONG_NS))
    threading.Timer(0.1, stop.set).start()
    end = prepared.run()
    assert (end.outcome, end.began, end.lab_us) == ("cancelled", False, None)
    assert not (tmp_path / "ran").exists()


def test_a_stop_after_the_release(runner: Runner) -> None:
    stop = StopSwitch()
    pieces: list[Piece] = []

    def on_output(piece: Piece) -> None:
        pieces.append(piece)
        stop.set()

    job = Job("import time\nprint(1, flush=True)\ntime.sleep(600)", "", (), LONG)
    prepared = runner.prepare(job, on_output=on_output, stop=stop)
    prepared.aim(instant())
    end = prepared.run()
    assert (end.outcome, end.began) == ("cancelled", True)
    assert end.lab_us is not None


def test_the_mark_comes_before_the_first_instruction(runner: Runner) -> None:
    prepared = prepare(runner, "import os\nos.kill(os.getpid(), 9)")
    prepared.aim(instant())
    end = prepared.run()
    assert (end.outcome, end.began) == ("killed", True)
    assert end.lab_us is not None
    assert end.lab_us >= AT


def test_who_is_killed_while_he_waits_has_not_begun(runner: Runner, tmp_path: Path) -> None:
    prepared = prepare(runner, RAN)
    prepared.aim(instant(LONG_NS))
    threading.Timer(0.1, lambda: os.kill(prepared.group.session, signal.SIGKILL)).start()
    with pytest.raises(CannotRun, match="did not begin: killed by SIGKILL"):
        prepared.run()
    assert not (tmp_path / "ran").exists()


def test_who_does_nothing_at_the_instant_is_ended(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwsync.runner.run.UNRELEASED_S", 0.2)
    prepared = prepare(runner, RAN)
    os.kill(prepared.group.session, signal.SIGSTOP)
    prepared.aim(instant(within_us=100_000))
    with pytest.raises(CannotRun, match="did nothing at its instant"):
        prepared.run()
    assert not (tmp_path / "ran").exists()


def test_a_program_that_does_not_compile_says_so_at_its_instant(runner: Runner) -> None:
    prepared = prepare(runner, "x = = 1")
    prepared.aim(instant())
    end = prepared.run()
    assert (end.outcome, end.exit_code, end.began) == ("error", 1, True)
    assert "SyntaxError" in end.stderr
    assert end.lab_us is not None
    assert end.lab_us >= AT


def test_the_time_limit_counts_from_the_release(runner: Runner) -> None:
    prepared = prepare(runner, "import time\ntime.sleep(600)", timeout=0.4)
    prepared.aim(instant(10 * SOON))
    before = time.monotonic()
    end = prepared.run()
    assert end.outcome == "timeout"
    assert time.monotonic() - before >= 10 * SOON / 1e9 + 0.4
    assert 0.4 <= end.duration < 10 * SOON / 1e9


def test_processor_time_counts_from_the_release(tmp_path: Path) -> None:
    runner = Runner(Settings(tmp_path, limits=Limits(cpu_s=1)))
    try:
        prepared = prepare(runner, "while True: pass")
        prepared.aim(instant())
        end = prepared.run()
    finally:
        runner.close()
    assert (end.outcome, end.reason.partition(";")[0]) == ("killed", "CPU time limit of 1 s")


def test_what_is_dropped_leaves_nothing(runner: Runner, tmp_path: Path) -> None:
    prepared = prepare(runner, RAN)
    assert members(prepared.group.session, prepared.group.start_time)
    prepared.drop()
    assert members(prepared.group.session, prepared.group.start_time) == []
    assert list(tmp_path.iterdir()) == []
    again = prepare(runner, RAN)
    again.aim(instant())
    assert again.run().outcome == "ok"


def test_what_cannot_be_prepared(tmp_path: Path) -> None:
    runner = Runner(Settings(tmp_path, interpreter=("/usr/bin/python3",)))
    try:
        with pytest.raises(CannotRun, match="NUL"):
            runner.prepare(
                Job("", "", ("\0",), 1.0), on_output=lambda piece: None, stop=StopSwitch()
            )
        stopped = StopSwitch()
        stopped.set()
        with pytest.raises(CannotRun, match="stopped"):
            prepare(runner, RAN, stop=stopped)
    finally:
        runner.close()
    assert list(tmp_path.iterdir()) == []


def test_an_interpreter_that_cannot_be_executed_ran_nothing(tmp_path: Path) -> None:
    runner = Runner(Settings(tmp_path, interpreter=("/nonexistent/lua",)))
    try:
        prepared = prepare(runner, RAN)
        prepared.aim(instant())
        with pytest.raises(CannotRun, match="/nonexistent/lua"):
            prepared.run()
    finally:
        runner.close()


def test_what_waits_ends_with_its_daemon(tmp_path: Path) -> None:
    daemon = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from pathlib import Path\n"
            "from hwsync.runner import *\n"
            f"runner = Runner(Settings(Path({str(tmp_path)!r})))\n"
            "job = Job('open(\"ran\", \"w\")', '', (), 60.0)\n"
            "one = runner.prepare(job, on_output=lambda piece: None, stop=StopSwitch())\n"
            "at = raw_ns() + 10**9\n"
            "one.aim(Instant(1, at, at + 10**10, True, 0, 10**7))\n"
            "print(one.group.session, one.group.start_time, flush=True)\n"
            "one.run()\n",
        ],
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath},
        text=True,
    )
    assert daemon.stdout is not None
    session, start_time = map(int, daemon.stdout.readline().split())
    assert members(session, start_time)
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    wait_until(lambda: not members(session, start_time), what="it outlived its daemon")
    assert not (tmp_path / "ran").exists()


def test_a_copy_of_the_page_is_of_one_writing(runner: Runner) -> None:
    """One thread writes as fast as it can; what the process took belongs together."""
    prepared = prepare(runner, "pass")
    when = instant(3 * SOON)
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number = (number + 1) % 1000
            prepared.aim(replace(when, start_at_us=AT + number, bound_us=number))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        end = prepared.run()
    finally:
        over.set()
        thread.join()
    assert end.lab_us is not None
    assert end.bound_us is not None
    assert end.raw_us is not None
    beyond = end.raw_us - when.raw_ns // 1000
    assert abs(end.lab_us - AT - end.bound_us - beyond) <= 1


def test_half_of_a_writing_is_not_believed(runner: Runner, tmp_path: Path) -> None:
    prepared = prepare(runner, RAN)
    when = instant(2 * SOON, heard=False)
    prepared.aim(when)

    def write_one_word() -> None:
        os.pwrite(prepared._page.descriptor, (1).to_bytes(8, sys.byteorder), 8 * 5)

    threading.Timer(SOON / 1e9, write_one_word).start()
    with pytest.raises(CannotRun, match="could not be read"):
        prepared.run()
    assert not (tmp_path / "ran").exists()


def test_what_is_taken_back_while_the_process_spins(runner: Runner, tmp_path: Path) -> None:
    """Where it was written before the instant, it counts."""
    in_time = 0
    for _ in range(20):
        (tmp_path / "ran").unlink(missing_ok=True)
        prepared = prepare(runner, RAN)
        when = instant()
        prepared.aim(when)
        written: list[int] = []

        def disarm(
            when: Instant = when, written: list[int] = written, prepared: Prepared = prepared
        ) -> None:
            time.sleep(max(0.0, (when.raw_ns - raw_ns()) / 1e9 - 0.003))
            while raw_ns() < when.raw_ns - 700_000:
                pass
            prepared.disarm()
            written.append(raw_ns())

        thread = threading.Thread(target=disarm)
        thread.start()
        with contextlib.suppress(CannotRun):
            prepared.run()
        thread.join()
        if written[0] < when.raw_ns:
            in_time += 1
            assert not (tmp_path / "ran").exists()
        if in_time == 3:
            return


def test_what_the_process_is_given_cannot_be_opened_anew_for_writing() -> None:
    page = Page(0)
    try:
        known, marks = page.theirs
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(known, b"x")
        for descriptor in (marks, page._marks.fileno()):
            with pytest.raises(OSError, match="No such device"):
                os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        mode = os.fstat(known).st_mode & 0o777
        assert mode == 0o444, "another account may only read it"
        if os.geteuid():
            with pytest.raises(PermissionError):
                os.open(f"/proc/self/fd/{known}", os.O_RDWR)
    finally:
        page.close()


def test_a_closed_page_keeps_what_was_read() -> None:
    page = Page(0)
    assert page.released is None
    assert page.refusal == ""
    page.close()
    page.disarm()
    page.close()
    assert page.released is None
