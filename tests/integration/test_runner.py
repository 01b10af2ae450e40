"""Real runs: how each ends, what is left afterwards, and that no side can hold up the other."""

from __future__ import annotations

import atexit
import errno
import gc
import hashlib
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.protocol.limits import MAX_PROGRAM, MAX_RESPONSE, MAX_STDERR
from hwsync.runner import Group, Job, Piece, RunEnd, Runner, Settings, Start, StopSwitch, end_group
from hwsync.runner import run as run_module
from hwsync.runner.output import PIECES_AT_ONCE
from hwsync.runner.processes import members, read_process
from hwsync.runner.workplace import STAGED
from tests.support.processes import CHECKOUT, python
from tests.support.waiting import wait_until

LONG = 60.0  # seconds: a limit that no passing test reaches
# Seconds between the end of a program and the answer. Measured: 0.01; a busy machine takes longer.
PROMPT = 2.0


FOLDERS = Path(mkdtemp())  # of runners that name none
atexit.register(shutil.rmtree, FOLDERS)
numbers = itertools.count()


def made(directory: Path | None = None, **settings: Any) -> Runner:
    """Without a directory: one that is empty, and of this runner alone."""
    settings |= {} if directory else {"empty_directory": True}
    return Runner(Settings(directory or FOLDERS / f"work-{next(numbers)}", **settings))


@dataclass
class Run:
    """A run with everything it told: the arguments of ``Runner.run`` filled in."""

    runner: Runner = field(default_factory=lambda: made())
    stop: StopSwitch = field(default_factory=StopSwitch)
    groups: list[Group] = field(default_factory=list)
    pieces: list[tuple[int, str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    end: RunEnd | None = None

    def __call__(
        self,
        program: str,
        *,
        stdin: str = "",
        args: tuple[str, ...] = (),
        timeout: float = LONG,
        on_started: Callable[[Group], None] = lambda group: None,
        on_output: Callable[[Piece], None] = lambda piece: None,
    ) -> RunEnd:
        def started(group: Group) -> None:
            self.groups.append(group)
            on_started(group)

        def output(piece: Piece) -> None:
            self.pieces.append((piece.number, piece.stream, piece.text))
            self.times.append(time.monotonic())
            on_output(piece)

        try:
            self.end = self.runner.run(
                Job(program, stdin, args, timeout),
                on_started=started,
                on_output=output,
                stop=self.stop,
            )
        finally:
            self.runner.close()
        return self.end

    def shown(self, stream: str = "stdout") -> str:
        return "".join(text for _, name, text in self.pieces if name == stream)

    @property
    def left(self) -> int:
        """How many processes live in the run's session."""
        (group,) = self.groups
        return len(members(group.session, group.start_time))


@pytest.fixture(params=[Start.WARM, Start.COLD])
def run(request: pytest.FixtureRequest) -> Run:
    return Run(made(start=request.param))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def descriptors() -> set[str]:
    gc.collect()  # what other tests left must not go while this one counts
    return set(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        text = Path(f"/proc/self/task/{thread}/children").read_text()
        found.update(int(pid) for pid in text.split())
    return found


# -- how a run ends -------------------------------------------------------------------------------


def test_a_whole_account(run: Run) -> None:
    before = time.time()
    end = run("import sys\nprint(6*7)\nprint('no', file=sys.stderr)")
    assert (end.outcome, end.reason, end.exit_code) == ("ok", "", 0)
    assert (end.response, end.stderr, end.truncated) == ("42\n", "no\n", False)
    assert (end.sha256_stdout, end.sha256_stderr) == (sha256(b"42\n"), sha256(b"no\n"))
    assert before <= end.started <= time.time()
    assert 0 < end.duration < LONG
    assert end.began


def test_an_exit_code_is_an_error(run: Run) -> None:
    end = run("print('so far'); raise SystemExit(3)")
    assert (end.outcome, end.reason, end.exit_code) == ("error", "exit code 3", 3)
    assert end.response == "so far\n"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGTERM"])
def test_a_signal_killed_it(name: str, run: Run) -> None:
    number = signal.Signals[name]
    end = run(f"import os; os.kill(os.getpid(), {int(number)})")
    assert (end.outcome, end.reason) == ("killed", f"killed by {name}")
    assert end.exit_code == 128 + number


def test_a_signal_without_a_name_is_numbered(run: Run) -> None:
    end = run("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)")
    assert end.reason == f"killed by signal {signal.SIGRTMIN + 3}"


def test_the_time_limit_keeps_what_was_printed(run: Run) -> None:
    end = run("import time\nprint('so far', flush=True)\ntime.sleep(600)", timeout=1.5)
    assert (end.outcome, end.reason) == ("timeout", "time limit of 1.5 s")
    assert (end.response, end.exit_code) == ("so far\n", None)
    assert 1.5 <= end.duration < 2.9
    assert run.left == 0


def test_the_time_limit_counts_from_the_handing_over(run: Run) -> None:
    end = run("print('in time')", timeout=0.5, on_started=lambda group: time.sleep(0.6))
    assert (end.outcome, end.response) == ("ok", "in time\n")


def test_the_time_limit_ends_everybody(run: Run, tmp_path: Path) -> None:
    """Deaf to signals, in process groups of their own, and still making new ones."""
    end = run(
        """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setpgid(0, 0)
        while True:  # each follower forks the next and ends
            time.sleep(0.01)
            if os.fork():
                os._exit(0)
            os.setpgid(0, 0)
print("forked", flush=True)
time.sleep(600)
""",
        timeout=0.5,
    )
    assert (end.outcome, end.response) == ("timeout", "forked\n")
    assert run.left == 0


def test_the_switch_cancels(run: Run) -> None:
    def on_output(piece: Piece) -> None:
        threading.Thread(target=run.stop.set).start()

    end = run("import time\nprint(1, flush=True)\ntime.sleep(600)", on_output=on_output)
    assert (end.outcome, end.exit_code, end.response[:1]) == ("cancelled", None, "1")
    assert end.began
    assert end.duration < LONG / 2
    assert run.left == 0


def test_a_switch_set_before_starts_nothing() -> None:
    run = Run(made(python="/no/such/python"))
    run.stop.set()
    end = run("print(1)")
    assert (end.outcome, end.began, end.exit_code) == ("cancelled", False, None)
    assert end.reason == "cancelled before it began"
    assert run.groups == []


def test_a_switch_set_while_the_journal_is_written_runs_nothing(run: Run, tmp_path: Path) -> None:
    end = run(f"open({str(tmp_path / 'witness')!r}, 'w')", on_started=lambda group: run.stop.set())
    assert (end.outcome, end.began) == ("cancelled", False)
    assert list(tmp_path.iterdir()) == []
    assert run.left == 0


class LateStop(StopSwitch):
    """Set by another thread after the last look before the handing over, before a byte of it."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self._looks = 0

    @property
    def is_set(self) -> bool:
        self._looks += self.armed
        return self._looks > 1


def test_a_stop_before_the_program_was_handed_over_says_that_nothing_ran(run: Run) -> None:
    run.stop = stop = LateStop()
    end = run("import time\ntime.sleep(600)", on_started=lambda _: setattr(stop, "armed", True))
    assert (end.outcome, end.began) == ("cancelled", False)
    assert end.reason == "cancelled before it began"
    assert run.left == 0


def test_the_time_limit_does_not_count_before_the_handing_over(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = run_module.Run._send

    def held(*given: Any) -> None:
        time.sleep(0.5)  # as SIGSTOP does, or a machine that is short of everything
        send(*given)

    monkeypatch.setattr(run_module.Run, "_send", held)
    assert run("print(6*7)", timeout=0.5).response == "42\n"


@pytest.mark.parametrize("size", [0, MAX_PROGRAM - 1_000], ids=["fits the pipe", "larger"])
def test_what_did_not_begin_in_time_has_not_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    # The limit's timer is not what is tested: the second wait finds its deadline over.
    serve, calls = run_module.Run._serve, itertools.count()
    monkeypatch.setattr(
        run_module.Run,
        "_serve",
        lambda self, finished, deadline: serve(self, finished, deadline * (next(calls) == 0)),
    )
    witness = tmp_path / "witness"
    with pytest.raises(CannotRun, match=r"did not begin: time limit of 60 s"):
        run("#" * size + f"\nopen({str(witness)!r}, 'x')")
    assert not witness.exists()
    assert run.left == 0


def test_a_process_that_is_ended_before_the_program_has_not_run_it(run: Run) -> None:
    with pytest.raises(CannotRun, match="did not begin: killed by SIGKILL"):
        run("print(1)", on_started=lambda group: os.kill(group.session, signal.SIGKILL))
    assert run.left == 0


def test_a_program_that_is_cancelled_before_its_first_instruction_has_not_run(run: Run) -> None:
    def hold(group: Group) -> None:
        os.kill(group.session, signal.SIGSTOP)
        threading.Timer(0.2, run.stop.set).start()

    end = run("print(1, flush=True)", on_started=hold)
    assert (end.outcome, end.began, end.response) == ("cancelled", False, "")
    assert run.left == 0


def test_what_is_interrupted_as_it_begins_says_so_in_pythons_words(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT comes when it has just said that it begins: no frame of hwsync's is shown."""

    def begin(inner: run_module.Run, begun: bool) -> None:
        vars(inner)["begun"] = begun
        if begun:
            run.stop.set()

    begun = property(lambda inner: vars(inner)["begun"], begin)
    monkeypatch.setattr(run_module.Run, "_said_run", begun, raising=False)
    for _ in range(20):
        run.stop = StopSwitch()
        end = run("import time\ntime.sleep(600)")
        assert (end.outcome, end.began) == ("cancelled", True)
        assert end.stderr.splitlines()[-1] == "KeyboardInterrupt"
        assert "execute" not in end.stderr


def test_a_program_may_kill_its_parent(run: Run) -> None:
    end = run(
        "import os, signal, time\nprint(1, flush=True)\n"
        "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)"
    )
    assert (end.outcome, end.exit_code, end.response) == ("killed", None, "1\n")
    assert "parent" in end.reason
    assert run.left == 0


def test_a_program_may_stop_its_parent(run: Run) -> None:
    end = run("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)", timeout=1.0)
    assert end.outcome == "timeout"
    assert run.left == 0


def test_a_program_that_forges_its_end_is_ended(run: Run) -> None:
    """Programs of one account can write what the fork server says."""
    end = run(
        """
import os, time
import ctypes
server = os.pidfd_open(os.getppid())
PIDFD_GETFD = 438
for number in range(3, 50):
    stolen = ctypes.CDLL(None).syscall(PIDFD_GETFD, server, number, 0)
    if stolen >= 0 and os.readlink(f"/proc/self/fd/{stolen}").startswith("socket:"):
        try:
            os.write(stolen, b"exit 0 0.000\\n")
        except OSError:
            pass
time.sleep(600)
"""
    )
    assert (end.outcome, end.reason) == ("killed", "killed by SIGKILL")
    assert run.left == 0


def test_a_program_may_signal_its_whole_session(run: Run) -> None:
    """The parent is in another session: it lives to tell."""
    end = run("import os\nos.killpg(0, 9)")
    assert (end.reason, end.exit_code) == ("killed by SIGKILL", 137)


# -- before it runs -------------------------------------------------------------------------------


def test_the_session_exists_before_the_program_is_handed_over(run: Run, tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    def on_started(group: Group) -> None:
        process = read_process(group.session)
        assert process is not None
        assert (process.session, process.group) == (group.session, group.session)
        assert process.start_time == group.start_time
        assert group.session != os.getpid()
        assert group.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert not witness.exists()

    end = run(
        f"import os\nopen({str(witness)!r}, 'w').write(str(os.getpid()))", on_started=on_started
    )
    assert end.outcome == "ok"
    assert witness.read_text() == str(run.groups[0].session)


def test_when_the_journal_fails_nothing_runs(run: Run, tmp_path: Path) -> None:
    class DiskFull(Exception):
        pass

    def on_started(group: Group) -> None:
        raise DiskFull

    before = descriptors(), children()
    with pytest.raises(DiskFull):
        run(f"open({str(tmp_path / 'witness')!r}, 'w')", on_started=on_started)
    assert list(tmp_path.iterdir()) == []
    assert run.left == 0
    assert (descriptors(), children()) == before


DAEMON = """
import os, sys, time
from pathlib import Path
from hwsync.protocol.files import File
from hwsync.runner import Job, Runner, Settings, StopSwitch
from hwsync.runner import runner

class Cut(runner.Run):
    def _send(self, descriptor, data, then):
        if descriptor == self._program_pipe:  # only a part of it, then death
            os.write(descriptor, data[:int(sys.argv[1])])
            print("cut", flush=True)
            os._exit(9)
        super()._send(descriptor, data, then)

runner.Run = Cut
Runner(Settings(Path.cwd())).run(
    Job("open('witness', 'w')", "", (), 60.0, files=(File.of("a", b"123"),)),
    on_started=lambda group: print(group.session, group.start_time, group.boot_id, flush=True),
    on_output=lambda piece: None, stop=StopSwitch())
"""


@pytest.mark.parametrize("sent", [0, 5, 8, 27, 28, 36, 44, 45, 53, 55])
def test_a_program_that_did_not_come_whole_never_runs(sent: int, tmp_path: Path) -> None:
    daemon = python(DAEMON, str(sent), cwd=tmp_path)
    assert daemon.returncode == 9, daemon.stderr
    session, start_time, _, said = daemon.stdout.split()
    assert said == "cut"
    wait_until(lambda: not members(int(session), int(start_time)), what="it ends by itself")
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"program.py", ".hwsync-program.py", STAGED}
    assert not left or sent >= 28  # then the program is whole, and its files are not


LIVING = """
import sys
from pathlib import Path
from hwsync.runner import Job, Runner, Settings, StopSwitch
def show(group):
    print(group.session, group.start_time, group.boot_id, flush=True)
Runner(Settings(Path.cwd())).run(Job(sys.argv[1], "", (), 600.0), on_started=show,
    on_output=lambda piece: print(piece.text, flush=True), stop=StopSwitch())
"""


@pytest.mark.parametrize("server", ["lives", "is stopped"])
def test_the_leftovers_of_a_daemon_that_died_are_ended(server: str, tmp_path: Path) -> None:
    """By its fork server at once; where that was stopped, by the next life."""
    program = (
        "import os, subprocess, time\nsubprocess.Popen(['sleep', '600'])\n"
        "print(os.getppid(), flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", LIVING, program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        session, start_time, boot = process.stdout.readline().split()
        parent = int(process.stdout.readline())
        group = Group(int(session), int(start_time), boot)
        assert len(members(group.session, group.start_time)) == 2
        if server == "is stopped":
            process.send_signal(signal.SIGSTOP)  # first the daemon: it would see to its server
            os.kill(parent, signal.SIGSTOP)
        process.kill()
    if server == "is stopped":
        assert end_group(group) == 2
        os.kill(parent, signal.SIGKILL)
    wait_until(lambda: members(group.session, group.start_time) == [], what="they are ended")
    assert end_group(group) == 0


GIVING_UP = """
import logging, sys
from pathlib import Path
from hwsync.runner import Job, Runner, Settings, StopSwitch, cgroup, launcher, shared_memory
from hwsync.runner.processes import read_process
logging.basicConfig(format="%(message)s")
shared_memory.PLACE = Path("/no/such")  # other tests use it too
cgroup.own_cgroup = lambda: None  # it would end what is left in one stroke
launcher.KILL_LIMIT_S = -1.0  # over before the server has ended anything
runner = Runner(Settings(Path.cwd()), alone=True)
for program in sys.argv[1:]:
    end = runner.run(Job(program, "", (), 60.0), on_started=lambda group: None,
                     on_output=lambda piece: None, stop=StopSwitch())
    left = read_process(int(end.response))
    print(end.outcome, end.exit_code, left is not None and left.alive)
runner.close()
"""


def test_what_a_fork_server_cannot_end_the_daemon_ends(tmp_path: Path) -> None:
    program = (
        "import subprocess\nprint(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    )
    done = python(GIVING_UP, program, program, cwd=tmp_path)
    assert done.stdout == "ok 0 False\n" * 2, done.stderr
    said = [
        "the fork server could not end what a program left",
        "the fork server was ended, stopped or failed; the next run starts another",
    ]
    assert done.stderr.splitlines() == said * 2


@pytest.mark.parametrize("where", ["drain", "read"])
def test_a_failure_after_the_handing_over_is_interrupted_never_not_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    witness = tmp_path / "witness"

    def fail(*_: object) -> int:
        monkeypatch.undo()
        raise OSError(errno.ENFILE, "Too many open files in system")

    if where == "drain":
        monkeypatch.setattr(run_module.Run, "_drain", fail)
    else:
        monkeypatch.setattr(run_module.Run, "_read", lambda *_: fail())
    end = run(f"open({str(witness)!r}, 'w').close(); print(1, flush=True)")
    assert (end.outcome, end.began, end.exit_code) == ("interrupted", True, None)
    assert "Too many open files" in end.reason
    if where == "drain":
        assert witness.exists()


@pytest.mark.parametrize(
    ("runner", "job", "said"),
    [
        (made(python="/no/such/python"), Job("", "", (), 1.0), "/no/such/python"),
        (made(python="/bin/false"), Job("", "", (), 1.0), "cannot be used: it said nothing"),
        (made(python="/bin/ls"), Job("", "", (), 1.0), "ls"),
        (made(Path("/no/such")), Job("", "", (), 1.0), "/no/such does not exist"),
        (made(environment={"A": "\0"}), Job("", "", (), 1.0), "null byte"),
        (made(), Job("", "", ("a", "b\0c"), 1.0), "argument 2 holds a NUL"),
        (made(), Job("", "", ("\ud800",), 1.0), "argument 1 is no valid Unicode"),
        (made(), Job("x = '\ud800'", "", (), 1.0), "the program is no valid Unicode"),
        (made(), Job("", "\ud800", (), 1.0), "the standard input is no valid"),
        (made(), Job("", "", ("x" * 2**22,), 1.0), "too long"),
    ],
)
def test_what_cannot_start_is_said_and_leaves_nothing(runner: Runner, job: Job, said: str) -> None:
    before = descriptors(), children()
    groups: list[Group] = []
    with pytest.raises(CannotRun, match=said):
        runner.run(
            job,
            on_started=groups.append,
            on_output=lambda piece: None,
            stop=StopSwitch(),
        )
    assert groups == []
    assert (descriptors(), children()) == before


def test_directory_and_environment_are_the_configured_ones(tmp_path: Path) -> None:
    run = Run(made(tmp_path, environment={"ONLY": "this"}))
    end = run("import os\nprint(os.getcwd(), sorted(set(os.environ) - {'LC_CTYPE'}))")
    assert end.response == f"{tmp_path} ['ONLY']\n"


# -- the streams ----------------------------------------------------------------------------------


def test_standard_input_is_the_jobs(run: Run) -> None:
    end = run("import sys\nprint(ascii(sys.stdin.read()), sys.argv)", stdin="é\n", args=("-c",))
    assert end.response == "'\\xe9\\n' ['program.py', '-c']\n"


def test_a_large_input_arrives_whole_through_a_slow_reader(run: Run) -> None:
    stdin = "0123456789" * 100_000
    end = run(
        "import os\nn = 0\nwhile d := os.read(0, 999):\n    n += len(d)\nprint(n)", stdin=stdin
    )
    assert end.response == "1000000\n"


def test_an_input_that_nobody_reads_holds_up_nothing(run: Run) -> None:
    end = run("print('done')", stdin="x" * 1_000_000)
    assert (end.outcome, end.response) == ("ok", "done\n")
    end = Run()("import os\nos.close(0)\nprint('done')", stdin="x" * 1_000_000)
    assert (end.outcome, end.response) == ("ok", "done\n")


def test_a_reader_that_stops_half_way_holds_up_nothing(run: Run) -> None:
    end = run(
        "import os, time\nprint(len(os.read(0, 8192)), flush=True)\ntime.sleep(600)",
        stdin="x" * 1_000_000,
        timeout=0.5,
    )
    assert (end.outcome, end.response) == ("timeout", "8192\n")


def test_a_program_larger_than_a_pipe_arrives_whole(run: Run) -> None:
    filling = "# " + "x" * 200_000 + "\n"
    assert run(filling + "print('end')\n" + filling).response == "end\n"


def test_both_streams_are_cut_and_hashed_whole(run: Run) -> None:
    end = run(
        "import sys\nsys.stdout.write('é' * 300_000)\nsys.stderr.write('e' * 100_000)\n"
        "sys.stdout.flush()\nsys.exit(2)"
    )
    assert end.exit_code == 2
    for text, most in ((end.response, MAX_RESPONSE), (end.stderr, MAX_STDERR)):
        assert most - 40 < len(text.encode()) <= most
    assert end.truncated
    left_out = 600_000 - 2 * end.response.count("é")
    assert f"é\n[hwsync: {left_out:,} bytes left out, within a line]\né" in end.response
    assert end.sha256_stdout == sha256("é".encode() * 300_000)
    assert end.sha256_stderr == sha256(b"e" * 100_000)
    assert run.shown("stderr").startswith("e" * MAX_STDERR)


def test_what_waits_in_the_pipe_at_the_end_is_taken(run: Run) -> None:
    """The program is gone before the second look at a pipe that holds more than one read takes."""

    def on_output(piece: Piece) -> None:
        if piece.number == 0:
            (group,) = run.groups
            wait_until(lambda: not members(group.session, group.start_time))

    end = run(
        "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 2**20)\n"
        "os.write(1, b'first')\nos.write(1, b'x' * 200_000)",
        on_output=on_output,
    )
    assert (end.outcome, len(end.response)) == ("ok", 200_005)
    assert run.shown() == end.response


def test_bad_bytes_are_replaced_and_hashed_as_they_were(run: Run) -> None:
    end = run("import os\nos.write(1, b'a\\xffb\\xe2\\x82')")
    assert end.response == "a\ufffdb\ufffd"
    assert end.sha256_stdout == sha256(b"a\xffb\xe2\x82")
    assert run.shown() == end.response


def test_much_output_takes_no_memory(run: Run) -> None:
    size = 300 * 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end = run(
        f"import os\nblock = b'x' * 2**20\nfor _ in range({size >> 20}):\n    os.write(1, block)"
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert (end.outcome, end.truncated) == ("ok", True)
    assert MAX_RESPONSE - 40 < len(end.response) <= MAX_RESPONSE
    whole = hashlib.sha256()
    for _ in range(size >> 20):
        whole.update(b"x" * 2**20)
    assert end.sha256_stdout == whole.hexdigest()
    assert grown < 20 * 1024


def test_pieces_come_live_numbered_and_not_too_many(run: Run) -> None:
    end = run(
        "import sys, time\nstop = time.monotonic() + 1\nwhile time.monotonic() < stop:\n"
        "    print('o', flush=True)\n    print('e', file=sys.stderr, flush=True)\n"
        "    time.sleep(0.005)"
    )
    assert [number for number, _, _ in run.pieces] == list(range(len(run.pieces)))
    assert run.shown() == end.response
    assert run.shown("stderr") == end.stderr
    # What comes at one moment is one look at what waits.
    moments = [list(some) for _, some in itertools.groupby(run.times, lambda at: at // 0.05)]
    assert 8 <= len(moments) <= 12
    assert max(map(len, moments)) <= PIECES_AT_ONCE


def test_the_first_piece_comes_while_the_program_runs(run: Run, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def on_output(piece: Piece) -> None:
        go.touch()

    end = run(
        f"import os, time\nprint('waiting', flush=True)\n"
        f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\nprint('went')",
        on_output=on_output,
    )
    assert end.response == "waiting\nwent\n"
    assert run.pieces[0][2].startswith("waiting")
    assert "went" not in run.pieces[0][2]
    assert run.shown() == end.response


def test_a_failing_callback_does_not_touch_the_run(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def on_output(piece: Piece) -> None:
        raise OSError("no network")

    end = run("print(1, flush=True)\nprint(2)", on_output=on_output)
    assert (end.outcome, end.response) == ("ok", "1\n2\n")
    assert "no network" in caplog.text


# -- what is left ---------------------------------------------------------------------------------


@pytest.mark.parametrize("escape", ["", "os.setpgid(0, 0)", "os.setsid()"])
def test_a_grandchild_with_the_pipes_delays_nothing(escape: str, run: Run) -> None:
    """Nor does one that left the session live on."""
    end = run(
        f"""
import os, time
if os.fork() == 0:
    {escape or "pass"}
    print("grandchild", os.getpid(), flush=True)
    os.kill(os.getppid(), 10)
    while True:
        time.sleep(0.001)
        os.write(2, b"x" * 4096)
import signal
signal.sigwait([10])
print("done")
""".replace("import os, time\n", "import os, time, signal\nsignal.pthread_sigmask(0, [10])\n")
    )
    try:
        assert (end.outcome, end.exit_code) == ("ok", 0)
        assert end.response.endswith("done\n")
        assert end.duration < PROMPT
        assert run.left == 0
    finally:
        pid = int(end.response.split()[1])
        process = read_process(pid)
        assert process is None or not process.alive


def test_the_parent_does_not_hold_the_streams(run: Run) -> None:
    end = run(
        "import os\npath = f'/proc/{os.getppid()}/fd'\n"
        "def held():\n    for name in os.listdir(path):\n        try:\n"
        "            yield os.readlink(f'{path}/{name}')\n        except OSError:\n"
        "            pass\n"
        "mine = {os.readlink(f'/proc/self/fd/{number}') for number in (0, 1, 2)}\n"
        "while mine & set(held()):\n    pass\nprint('free')",
        timeout=10.0,
    )
    assert end.response == "free\n"


def test_nothing_is_left_after_many_runs(run: Run) -> None:
    run("print(1)")
    before = descriptors(), children(), threading.active_count()
    programs = [
        "print(1)",
        "import time; time.sleep(600)",
        "import os; os.kill(os.getppid(), 9)",
        "import os\nif os.fork() == 0:\n    import time; time.sleep(600)",
    ]
    for number in range(20):
        Run()(programs[number % 4], timeout=0.2, stdin="x" * 100_000)
    assert (descriptors(), children(), threading.active_count()) == before


def test_many_at_once_do_not_mix(run: Run) -> None:
    before = descriptors(), children()
    runs = [Run() for _ in range(8)]

    def work(number: int) -> None:
        for _ in range(3):
            runs[number](
                f"import sys\nassert sys.stdin.read() == '{number}' * 100_000\n"
                f"print(sys.argv[1] * 1000, end='')\nsys.exit({number})",
                stdin=str(number) * 100_000,
                args=(str(number),),
            )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    for number, one in enumerate(runs):
        assert one.end is not None
        assert (one.end.exit_code, one.end.response) == (number, str(number) * 1000)
        assert one.end.stderr == ""
    assert len({group for one in runs for group in one.groups}) == 3 * len(runs)
    assert (descriptors(), children()) == before


def test_the_runner_loads_little() -> None:
    done = python("import hwsync.runner, sys; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not loaded & {"asyncio", "multiprocessing", "paho", "peewee", "click", "concurrent"}
