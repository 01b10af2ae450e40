"""A program's life on a board: seen while it runs, ended gently, nothing lost, nothing left.

Each way of running programs (warm, cold, bubblewrap) where it makes a difference.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.protocol.limits import MAX_RESPONSE, MAX_STDERR, TIMEOUT_S
from hwsync.runner import Job, Limits, Piece, Runner, Settings, StopSwitch, shared_memory
from hwsync.runner.output import THIN_BYTES
from hwsync.runner.processes import members
from tests.support.programs import require_program
from tests.support.runs import WAYS, OneRun

# -- output is live, and kept ---------------------------------------------------------------------

BLINK = """
import time
n = 0
while True:
    print("LED on", n)
    n += 1
    time.sleep(0.05)
"""


def test_output_is_live_and_kept_at_the_limit(one_run: OneRun) -> None:
    end = one_run(BLINK, timeout=1.0)
    assert (end.outcome, end.reason) == ("timeout", "time limit of 1 s")
    lines = end.response.splitlines()
    assert len(lines) >= 5
    assert lines == [f"LED on {n}" for n in range(len(lines))]
    assert one_run.shown() == end.response
    assert len(one_run.pieces) >= 4, "it came while the program ran"


def test_a_run_may_take_thirty_days(one_run: OneRun) -> None:
    assert one_run("print(1)", timeout=TIMEOUT_S[1]).response == "1\n"
    assert TIMEOUT_S[1] == 30 * 24 * 3600


def test_a_line_is_seen_before_the_program_goes_on(one_run: OneRun) -> None:
    program = (
        "import os, time\nprint('waiting')\n"
        "while not os.path.exists('go'):\n    time.sleep(0.01)\nprint('went')"
    )

    def go(piece: Piece) -> None:
        (one_run.folder / "go").touch()

    assert one_run(program, on_output=go).response == "waiting\nwent\n"
    assert one_run.pieces[0].text == "waiting\n"


@pytest.mark.parametrize(
    ("crash", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "killed by SIGTERM"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
        ("os.abort()", "killed by SIGABRT"),
        ("os._exit(3)", "exit code 3"),
    ],
)
def test_a_line_is_kept_whatever_ends_the_program(crash: str, reason: str, one_run: OneRun) -> None:
    end = one_run(f"import os, signal\nprint('a line')\n{crash}")
    assert (end.reason, end.response) == (reason, "a line\n")


def test_a_line_is_kept_at_a_limit_that_the_kernel_keeps(one_run: OneRun) -> None:
    one_run.settings |= {"limits": Limits(cpu_s=1)}
    end = one_run("print('a line')\nwhile True:\n    pass")
    assert (end.outcome, end.reason) == ("killed", "CPU time limit of 1 s")
    assert end.response == "a line\n"


# -- ended gently ---------------------------------------------------------------------------------

HOLDS = """
import atexit, time
atexit.register(print, "atexit")
try:
    print("begun")
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted")
finally:
    time.sleep(0.3)  # longer than any signal takes
    print("put back", end="")
"""
PUT_BACK = "begun\ninterrupted\nput backatexit\n"


def stop_at_first_output(run: OneRun) -> Callable[[Piece], None]:
    def stop(piece: Piece) -> None:
        if piece.number == 0:
            threading.Thread(target=run.stop.set).start()

    return stop


def test_at_its_limit_a_program_puts_back_what_it_holds(one_run: OneRun) -> None:
    end = one_run(HOLDS, timeout=1.0)
    assert (end.outcome, end.exit_code, end.response) == ("timeout", None, PUT_BACK)
    assert one_run.shown() == PUT_BACK
    assert 1.0 <= end.duration < 2.9


def test_at_a_cancel_a_program_puts_back_what_it_holds(one_run: OneRun) -> None:
    end = one_run(HOLDS, on_output=stop_at_first_output(one_run))
    assert (end.outcome, end.response) == ("cancelled", PUT_BACK)
    assert end.began


def test_an_exit_code_at_the_end_changes_no_outcome(one_run: OneRun) -> None:
    program = "import sys, time\ntry:\n    time.sleep(600)\nfinally:\n    sys.exit(0)"
    end = one_run(program, timeout=0.5)
    assert (end.outcome, end.reason, end.exit_code) == ("timeout", "time limit of 0.5 s", None)


DEAF = """
import signal, sys, time
begin = time.monotonic()
def say(number, frame):
    print(signal.Signals(number).name)
signal.signal(signal.SIGINT, say)
signal.signal(signal.SIGTERM, say)
print("ready")
while True:
    time.sleep(0.01)
"""


def test_one_that_does_not_heed_it_is_terminated_and_then_killed(one_run: OneRun) -> None:
    one_run.settings |= {"end_grace_s": 0.5}
    end = one_run(DEAF, timeout=1.0)
    assert (end.outcome, end.response) == ("timeout", "ready\nSIGINT\nSIGTERM\n")
    assert end.reason == "time limit of 1 s; it did not end by itself within 1 s"
    assert 2.0 <= end.duration < 4.0
    (group,) = one_run.groups
    assert members(group.session, group.start_time) == []


def test_the_end_takes_at_most_half_of_the_grace(one_run: OneRun) -> None:
    one_run.settings |= {"end_grace_s": 60.0}
    end = one_run(DEAF, timeout=1.0, grace=2.0)
    assert (end.outcome, end.response) == ("timeout", "ready\nSIGINT\nSIGTERM\n")
    assert 2.0 <= end.duration < 4.0


def test_without_a_grace_it_is_ended_at_once(one_run: OneRun) -> None:
    one_run.settings |= {"end_grace_s": 0.0}
    end = one_run(HOLDS, timeout=1.0)
    assert (end.outcome, end.response) == ("timeout", "begun\n")


def test_threads_that_are_waited_for_are_interrupted_in_pythons_words(one_run: OneRun) -> None:
    program = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
print("the main thread is done")
"""
    one_run.settings |= {"end_grace_s": 1.0}
    end = one_run(program, timeout=1.0)
    assert end.outcome == "timeout"
    assert end.stderr.startswith("Exception ignored in: <module 'threading' from ")
    assert end.stderr.rstrip().rstrip(":").endswith("KeyboardInterrupt")
    assert "<string>" not in end.stderr


def test_the_whole_group_is_interrupted_and_who_left_it_is_not(one_run: OneRun) -> None:
    """As by Ctrl-C in a terminal."""
    end = one_run(
        """
import os, signal, subprocess, sys, time
child = '''
import time
try:
    print('up', flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print('child', flush=True)
'''
both = [subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True,
                         process_group=group) for group in (None, 0)]
for one in both:
    one.stdout.readline()
print("ready")
try:
    time.sleep(600)
except KeyboardInterrupt:
    print(repr(both[0].communicate()[0]), both[1].poll())
""",
        timeout=2.0,
    )
    assert end.response == "ready\n'child\\n' None\n", end
    (group,) = one_run.groups
    assert members(group.session, group.start_time) == []


def test_what_it_prints_at_its_end_is_bounded_too(one_run: OneRun) -> None:
    one_run.settings |= {"limits": Limits(output_mb=1), "end_grace_s": 30.0}
    end = one_run(
        """
import time
try:
    time.sleep(600)
finally:
    while True:
        print("x" * 9999)
""",
        timeout=1.0,
        grace=600.0,
    )
    assert end.outcome == "timeout"
    assert end.reason.startswith("time limit of 1 s; stdout cut: ")
    assert end.duration < 20


def test_one_that_ended_in_time_is_no_timeout_whatever_it_leaves(one_run: OneRun) -> None:
    """What it leaves has a moment of its own, in which the time limit may pass."""
    program = (
        "import subprocess, time\nsubprocess.Popen(['sleep', '600'])\n"
        "time.sleep(max(0, float(__import__('sys').argv[1]) - time.time()))"
    )
    runner_limit = 1.0
    end = one_run(program, args=(str(time.time() + 0.95),), timeout=runner_limit)
    if end.duration < runner_limit:  # a slow start may make it late
        assert (end.outcome, end.exit_code) == ("ok", 0)
    else:
        assert end.outcome == "timeout"


# -- what ends by itself may ----------------------------------------------------------------------

LEAKS = """
import os, sys, time
from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=100_000)
print(block.name)
{then}
"""


@pytest.mark.parametrize("then", ["", "time.sleep(600)"], ids=["ends", "at its limit"])
def test_python_removes_shared_memory_that_nobody_unlinked(then: str, one_run: OneRun) -> None:
    end = one_run(LEAKS.format(then=then), timeout=2.0 if then else 60.0)
    name = end.response.split()[0]
    assert not Path("/dev/shm", name).exists()


FILE = "import os\nopen('/dev/shm/hwsync-test-{0}', 'w').write('x' * 100)\nprint(os.getuid())"


@pytest.mark.parametrize("kept", [True, False], ids=["a person's account", "the runs' own"])
def test_what_stays_in_shared_memory_is_named_or_removed(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not kept:
        monkeypatch.setattr(shared_memory, "DYNAMIC", {os.geteuid()})
    path = Path(f"/dev/shm/hwsync-test-{os.getpid()}")
    earlier = Path(f"/dev/shm/hwsync-earlier-{os.getpid()}")
    earlier.touch()
    caplog.set_level("INFO", "hwsync.runner")
    try:
        assert OneRun(tmp_path / "work", {})(FILE.format(os.getpid())).outcome == "ok"
        assert path.exists() is kept
        assert path.name in caplog.text
        assert earlier.exists()
        assert earlier.name not in caplog.text
    finally:
        path.unlink(missing_ok=True)
        earlier.unlink()


def test_in_bubblewrap_shared_memory_is_its_own(tmp_path: Path) -> None:
    require_program("bwrap", "bubblewrap")
    run = OneRun(tmp_path / "work", dict(WAYS["bwrap"]))
    assert run(FILE.format("inside")).outcome == "ok"
    assert not Path("/dev/shm/hwsync-test-inside").exists()


SHARED = """
import mmap, time
block = mmap.mmap(-1, {megabytes} * 1_000_000)
for at in range(0, len(block), 4096):
    block[at] = 1
{then}
print("not ended")
time.sleep(600)
"""


def test_shared_memory_counts(one_run: OneRun) -> None:
    one_run.settings |= {"limits": Limits(memory_mb=100)}
    end = one_run(SHARED.format(megabytes=300, then=""))
    assert (end.outcome, end.reason) == ("killed", "memory limit of 100 MB")


def test_what_several_share_counts_once(one_run: OneRun) -> None:
    one_run.settings |= {"limits": Limits(memory_mb=200)}
    then = """
import os
for _ in range(5):
    if os.fork() == 0:
        sum(block[at] for at in range(0, len(block), 4096))
        time.sleep(600)
"""
    end = one_run(SHARED.format(megabytes=80, then=then), timeout=3.0)
    assert (end.outcome, end.response) == ("timeout", "not ended\n"), end.reason


# -- long output ----------------------------------------------------------------------------------


def test_of_long_output_the_end_is_kept(one_run: OneRun) -> None:
    end = one_run(
        "import sys\nfor n in range(40_000):\n    print('line', n)\n    "
        "print('progress', n, end='\\r', file=sys.stderr)\nprint('RESULT 42')\n{}['why']"
    )
    assert end.exit_code == 1
    lines = end.response.splitlines()
    assert (lines[0], lines[-2:]) == ("line 0", ["line 39999", "RESULT 42"])
    gap = next(at for at, line in enumerate(lines) if line.startswith("[hwsync: "))
    before, after = int(lines[gap - 1].split()[1]), int(lines[gap + 1].split()[1])
    missing = "".join(f"line {n}\n" for n in range(before + 1, after))
    assert lines[gap] == f"[hwsync: {len(missing):,} bytes left out]"
    assert MAX_RESPONSE * 0.99 < len(end.response) <= MAX_RESPONSE
    assert len(end.stderr) <= MAX_STDERR
    assert end.stderr.endswith("KeyError: 'why'\n")
    assert end.truncated
    assert "stdout cut: " in end.reason


def test_live_output_goes_on_past_the_limit_and_says_what_it_skips(one_run: OneRun) -> None:
    end = one_run(
        "import time\nfor n in range(60):\n    print(('x' * 99 + '\\n') * 400, end='')\n"
        "    time.sleep(0.02)\nprint('the end')"
    )
    assert end.truncated
    assert [piece.number for piece in one_run.pieces] == list(range(len(one_run.pieces)))
    place = 0
    for piece in one_run.pieces:
        assert piece.at == place + piece.skipped
        place = piece.at + len(piece.text)
    assert place == 60 * 40_000 + 8
    assert one_run.pieces[-1].text.endswith("the end\n")
    past = [piece for piece in one_run.pieces if piece.at > 2 * MAX_RESPONSE]
    assert len(past) > 3
    assert max(len(piece.text) for piece in past) <= THIN_BYTES
    assert sum(piece.skipped for piece in past) > 0


def test_the_order_of_the_streams_is_kept(one_run: OneRun) -> None:
    program = """
import sys, time
for n in range(3):
    print("out", n)
    time.sleep(0.1)
    print("err", n, file=sys.stderr)
    time.sleep(0.1)
"""
    end = one_run(program)
    assert end.order == (("stdout", 6), ("stderr", 6)) * 3
    assert "".join(piece.text for piece in one_run.pieces) == "".join(
        f"out {n}\nerr {n}\n" for n in range(3)
    )


# -- preloading -----------------------------------------------------------------------------------


def preloading(tmp_path: Path, name: str, text: str) -> OneRun:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / f"{name}.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(modules)}
    return OneRun(tmp_path / "work", {"environment": environment, "preload": (name,)})


def test_generators_that_a_preloaded_module_made_draw_anew(tmp_path: Path) -> None:
    run = preloading(
        tmp_path,
        "lab",
        "import random\nclass Own(random.Random):\n    pass\n"
        "dice = [random.Random(), Own(), random.Random(7), random.SystemRandom()]\n",
    )
    runner = Runner(Settings(run.folder, empty_directory=True, **run.settings))
    drawn = []
    try:
        for _ in range(3):
            end = runner.run(
                Job("import lab, random\nprint([d.random() for d in [*lab.dice, random]])",
                    "", (), 60.0),
                on_started=lambda group: None, on_output=lambda piece: None, stop=StopSwitch(),
            )  # fmt: skip
            assert end.stderr == ""
            drawn.append(json.loads(end.response))
    finally:
        runner.close()
    assert [len(set(numbers)) for numbers in zip(*drawn, strict=True)] == [3] * 5


def test_a_module_that_leaves_threads_is_refused_by_name(tmp_path: Path) -> None:
    run = preloading(
        tmp_path,
        "busy",
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), name='blinker').start()\n",
    )
    with pytest.raises(CannotRun, match=r"the module busy leaves threads running \(blinker\)"):
        run("print(1)")


def test_a_module_whose_thread_has_ended_may_be_preloaded(tmp_path: Path) -> None:
    run = preloading(
        tmp_path, "quick", "import threading\nthreading.Thread(target=lambda: None).start()\n"
    )
    assert run("import quick\nprint(1)").response == "1\n"


# -- exit codes, and what is in bubblewrap --------------------------------------------------------


@pytest.mark.parametrize("code", [1, 125, 128 + signal.SIGTERM, 128 + signal.SIGKILL, 255])
def test_an_exit_code_is_an_exit_code(code: int, one_run: OneRun) -> None:
    end = one_run(f"import sys; sys.exit({code})")
    assert (end.outcome, end.reason, end.exit_code) == ("error", f"exit code {code}", code)


def test_localhost_is_there_without_a_network(one_run: OneRun) -> None:
    program = """
import socket, threading
server = socket.create_server(("localhost", 0))
with socket.create_connection(("localhost", server.getsockname()[1])) as client:
    server.accept()[0].sendall(b"heard")
    print(client.recv(9))
"""
    assert one_run(program).response == "b'heard'\n"


def test_fontconfig_finds_its_configuration(one_run: OneRun) -> None:
    if not Path("/etc/fonts/fonts.conf").exists():
        program = "import os; print(os.path.exists('/etc/fonts'))"
        assert one_run(program).response == f"{Path('/etc/fonts').exists()}\n"
    else:
        assert one_run("print(len(open('/etc/fonts/fonts.conf').read()) > 0)").response == "True\n"


# -- the file -------------------------------------------------------------------------------------


def test_the_file_has_the_requests_name(one_run: OneRun) -> None:
    program = "import os, sys\nprint(os.path.basename(__file__), sys.argv, os.listdir())"
    end = one_run(program, name="blink.py", args=("-c",))
    assert end.response == "blink.py ['blink.py', '-c'] ['blink.py']\n"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "-c", "x" * 65, "é.py", "a b"])
def test_another_name_is_refused(name: str, one_run: OneRun) -> None:
    with pytest.raises(CannotRun, match="is no name for a program's file"):
        one_run("print(1)", name=name)


def test_another_interpreter_gets_a_file_with_the_name(one_run: OneRun) -> None:
    one_run.settings |= {"interpreter": (require_program("bash", "bash"),)}
    end = one_run('echo "$0 $1"; cat; exit 143', name="hello.sh", args=("one",), stdin="given")
    assert (end.response, end.reason) == ("hello.sh one\ngiven", "exit code 143")
    end = OneRun(one_run.folder, one_run.settings)("kill -TERM $$")
    assert (end.outcome, end.reason) == ("killed", "killed by SIGTERM")


def test_a_program_of_another_language_is_told_so(one_run: OneRun) -> None:
    end = one_run("#!/bin/bash\nfor x in 1 2; do echo $x; done\n")
    assert end.reason == (
        "exit code 1 (its first line asks for /bin/bash, and this board runs Python)"
    )
    assert one_run("#!/usr/bin/env python3\nx = (\n").reason == "exit code 1"


def test_a_folder_in_which_the_account_may_not_write(one_run: OneRun, open_folder: Path) -> None:
    """The program's file stands beside it then, and what lies in it can be imported."""
    one_run.folder = open_folder / "work"
    one_run.folder.mkdir()
    (one_run.folder / "helper.py").write_text("name = 'helper'\n")
    one_run.settings |= {"empty_directory": False}
    one_run.folder.chmod(0o555)
    program = (
        "import helper, os, sys\nprint(helper.name, os.getcwd())\n"
        "print(__file__ == sys.argv[0], sys.path[0] == os.path.dirname(__file__), sys.path[1])\n"
        "print(__file__)\n1 / 0"
    )
    if os.geteuid() == 0:
        one_run.settings |= {"run_as": "nobody", "python": "/usr/bin/python3"}
    end = one_run(program, name="blink.py")
    where, how, path = end.response.splitlines()
    assert where == f"helper {one_run.folder}"
    assert how == f"True True {one_run.folder}"
    assert end.stderr.splitlines()[1:3] == [f'  File "{path}", line 5, in <module>', "    1 / 0"]
    assert not Path(path).parent.exists()
    assert os.listdir(one_run.folder) == ["helper.py"]


def test_beside_a_folder_that_is_kept_nothing_stays(
    one_run: OneRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_run.folder.mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    one_run.settings |= {"empty_directory": False}
    assert one_run("print(1)").outcome == "ok"
    assert os.listdir(tmp_path / "temporary") == []
    assert os.listdir(one_run.folder) == []


def test_of_many_lines_none_is_lost(one_run: OneRun) -> None:
    """How long they take is benchmarks/runner.py's."""
    end = one_run("for n in range(100_000):\n    print(n)")
    assert (end.outcome, end.reason) == ("ok", "stdout cut: 588,890 bytes")
    assert end.response.startswith("0\n1\n2\n")
    assert end.response.endswith("\n99999\n")


# -- programs that go out of their way ------------------------------------------------------------


@pytest.mark.parametrize("name", ["resource.py", "signal.py", "time.py", "_ctypes.py", "site.py"])
def test_a_program_with_a_modules_name_runs_once(name: str, one_run: OneRun) -> None:
    end = one_run("import os\nos.write(1, b'ran\\n')", name=name)
    assert (end.outcome, end.exit_code, end.response) == ("ok", 0, "ran\n")


def test_a_program_that_reads_its_own_output_has_run(one_run: OneRun) -> None:
    """What is taken from under the daemon is no failure of the daemon."""
    program = """
import os, time
mine = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
until = time.monotonic() + 1
while time.monotonic() < until:
    os.write(1, b"x")
    try:
        os.read(mine, 1)
    except BlockingIOError:
        pass
os.write(1, b"the end\\n")
"""
    end = one_run(program)
    assert (end.outcome, end.exit_code) == ("ok", 0)
    assert end.response.endswith("the end\n")


def test_nobody_opens_what_says_how_a_program_ends(one_run: OneRun) -> None:
    program = """
import os
for number in (1, os.getppid()):
    try:
        names = os.listdir(f"/proc/{number}/fd")
    except PermissionError:
        continue
    for name in names:
        path = f"/proc/{number}/fd/{name}"
        try:
            if os.readlink(path).startswith("socket:"):
                os.open(path, os.O_WRONLY)
                print("opened", path)
        except OSError:
            pass
print("done")
"""
    assert one_run(program).response == "done\n"


def test_who_left_the_group_in_bubblewrap_is_asked_to_end(tmp_path: Path) -> None:
    """There the program itself can: it does not lead its session."""
    require_program("bwrap", "bubblewrap")
    run = OneRun(tmp_path / "work", dict(WAYS["bwrap"]))
    end = run(f"import os\nos.setsid()\n{HOLDS}", timeout=1.0)
    assert (end.outcome, end.response) == ("timeout", PUT_BACK)


def test_one_that_is_stopped_goes_on_to_end(one_run: OneRun) -> None:
    program = (
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "finally:\n    print('off')"
    )
    end = one_run(program, timeout=1.0)
    assert (end.outcome, end.reason, end.response) == ("timeout", "time limit of 1 s", "off\n")


def test_a_program_may_take_its_folder_away(one_run: OneRun) -> None:
    if "isolation" in one_run.settings:
        program = "print('it is a mount there')"
    else:
        program = (
            "import os, time\nos.remove(__file__)\nos.rmdir(os.getcwd())\ntime.sleep(0.5)\n"
            "print('it is a mount there')"
        )
    one_run.settings |= {"limits": Limits(free_disk_mb=1, memory_mb=500)}
    assert one_run(program).response == "it is a mount there\n"
    assert one_run("print(1)").response == "1\n"


def test_a_deep_tree_beside_a_folder_is_no_failure_of_the_run(
    one_run: OneRun, open_folder: Path
) -> None:
    one_run.folder = open_folder / "work"
    one_run.folder.mkdir(mode=0o555)
    one_run.settings |= {"empty_directory": False}
    if os.geteuid() == 0:
        one_run.settings |= {"run_as": "nobody", "python": "/usr/bin/python3"}
    program = (
        "import os\nos.chdir(os.path.dirname(__file__))\nfor _ in range(1500):\n"
        "    os.mkdir('d')\n    os.chdir('d')\nos.chmod('.', 0)\nprint('deep')"
    )
    end = one_run(program)
    assert (end.outcome, end.response) == ("ok", "deep\n")
    assert list(Path(tempfile.gettempdir()).glob(f"hwsync-program-{os.getpid()}-*")) == []


def test_what_a_preloaded_module_prints_is_not_the_programs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = preloading(
        tmp_path,
        "loud",
        "import signal\nprint('welcome')\nprint('x' * 200_000)\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n",
    )
    end = run("print(1)")
    assert (end.outcome, end.exit_code, end.response) == ("ok", 0, "1\n")
    assert "welcome" in caplog.text


def test_a_daemon_that_was_held_up_still_sees_what_ended_in_time(
    one_run: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a machine that was asleep: the limit is over, and so is the program."""

    def sleep(piece: Piece) -> None:
        time.sleep(1.5)

    end = one_run("print('here', flush=True)\nraise SystemExit(3)", timeout=1.0, on_output=sleep)
    assert (end.outcome, end.exit_code) == ("error", 3)
