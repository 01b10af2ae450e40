"""Programs that mean no good, each run as an unprivileged account, without and with isolation.

Of each: the stated outcome, nothing of it is left when the answer is there, and the next program
runs as if nothing had been. As root (CI) they run under an account of their own, by the system's
Python, which others may read; else as whoever runs the tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import require_program

# Fork bombs and busy loops: one at a time, also for the sake of the tests beside them.
pytestmark = pytest.mark.starving

CHECKOUT = Path(__file__).resolve().parents[2]
ACCOUNT = 61_000 + os.getpid() % 1_000  # a number that nobody has
SYSTEM_PYTHON = "/usr/bin/python3"
LIMITS = {
    # 10,000 files need a third of a second for themselves, and one beside other tests.
    **{"cpu_s": 3, "memory_mb": 200, "processes": 64, "open_files": 100},
    **{"file_size_mb": 20, "output_mb": 50},
}
# Seconds from the end of a program, or its limit, to the answer, at most. Alone a fork bomb takes
# 2 to 8, anything else less than 1.
PROMPT = 15.0


@dataclass(frozen=True)
class Case:
    """A program and how it must end."""

    program: str
    outcome: str  # a regular expression for the whole, as the reason
    reason: str = ""  # a regular expression for the whole
    timeout: float = 2.0


ANY_KILL = "(limit of 64 processes and threads|memory limit of 200 MB)"

# Of a hundred, not of all that the account may have: without a cgroup each session has as much of
# the processor as the fork server, and one look at 260 of them was seen to take a minute.
SESSIONS = """
import os, resource
resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""

CASES = {
    # Its first process may itself meet the kernel's limit, before the next look, and end of it.
    "fork bomb": Case(
        "import os\nwhile True:\n    os.fork()", "killed|error", f"{ANY_KILL}|exit code 1.*"
    ),
    "fork bomb that passes over errors": Case(
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        "killed",
        ANY_KILL,
    ),
    "fork bomb in new sessions": Case(SESSIONS, "killed", ANY_KILL, timeout=20.0),
    "threads without end": Case(
        "import threading, time\nthreading.stack_size(32768)\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(100,)).start()",
        "killed",
        "limit of 64 processes and threads",
    ),
    "memory hog": Case(
        "x = bytearray(1 << 30)", "error", r"exit code 1 \(MemoryError; memory_mb = 200\)"
    ),
    "memory hog, slowly": Case(
        "x = []\nwhile True:\n    x.append(b'x' * 100_000)", "error", r"exit code 1 \(MemoryError.*"
    ),
    "memory hog in many processes": Case(
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        x = b'x' * (40 << 20)\n        time.sleep(100)\ntime.sleep(100)",
        "killed",
        "memory limit of 200 MB",
    ),
    "busy loop that ignores every signal": Case(
        "import signal\nfor n in signal.valid_signals():\n    try:\n"
        "        signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError):\n"
        "        pass\nwhile True:\n    pass",
        "timeout",
        "time limit of 1 s; it did not end by itself within 2.5 s",
        timeout=1.0,
    ),
    "busy loop": Case(
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass",
        "killed",
        "CPU time limit of 3 s",
        timeout=20.0,
    ),
    "stops itself": Case(
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "timeout",
        "time limit of 1 s",
        timeout=1.0,
    ),
    "kills its group": Case("import os\nos.killpg(0, 9)", "killed", "killed by SIGKILL"),
    "a gigabyte of output": Case(
        "import os\nwhile True:\n    os.write(1, b'x' * 65536)",
        "killed",
        "output limit of 50 MB;.*",
    ),
    "a gigabyte of errors": Case(
        "import os\nwhile True:\n    os.write(2, b'\\xff' * 65536)",
        "killed",
        "output limit of 50 MB; stderr cut: .* bytes",
    ),
    "daemon": Case(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        time.sleep(1000)\n    os._exit(0)",
        "ok",
    ),
    "daemon that prints for ever": Case(
        "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        while True:\n            os.write(1, b'late')\n    os._exit(0)",
        "ok",
        "(stdout cut: [0-9,]+ bytes)?",  # for the moment that it may go on
    ),
    "closes its streams": Case(
        "import os, time\nfor n in range(100):\n    try:\n        os.close(n)\n"
        "    except OSError:\n        pass\ntime.sleep(1000)",
        "timeout",
        "time limit of 1 s",
        timeout=1.0,
    ),
    "removes its folder": Case("import os\nos.remove(__file__)\nos.rmdir(os.getcwd())", "ok"),
    "locks its folder": Case(
        "import os\nos.mkdir('a')\nopen('a/b', 'w').close()\nos.chmod('a', 0)\nos.chmod('.', 0)",
        "ok",
    ),
    "folders 3,000 deep": Case(
        "import os\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')", "ok", timeout=20.0
    ),
    "2,000 files": Case(
        "for n in range(2_000):\n    open(str(n), 'w').close()", "ok", timeout=20.0
    ),
    "names that look like options": Case(
        "for n in ('-rf', '--help', 'a b', '*'):\n    open(n, 'w').close()", "ok"
    ),
    "a link out of its folder": Case("import os\nos.symlink('/', 'root')", "ok"),
    "a file without end": Case(
        "f = open('big', 'wb')\nwhile True:\n    f.write(b'x' * 1_000_000)",
        "error",
        r"exit code 1 \(File too large; file_size_mb = 20\)",
    ),
    "open files without end": Case(
        "x = []\nwhile True:\n    x.append(open('/dev/null'))",
        "error",
        r"exit code 1 \(Too many open files; open_files = 100\)",
    ),
    "zombies": Case(
        "import os\nfor _ in range(40):\n    if os.fork() == 0:\n        os._exit(0)", "ok"
    ),
    "a pipe that nobody writes": Case(
        "import os\nos.mkfifo('f')\nopen('f').read()", "timeout", "time limit of 1 s", timeout=1.0
    ),
    "becomes another program": Case(
        "import os\nos.execv('/bin/sleep', ['sleep', '1000'])",
        "timeout",
        "time limit of 1 s",
        timeout=1.0,
    ),
    "crashes": Case("import ctypes\nctypes.string_at(0)", "killed", "killed by SIGSEGV.*"),
}

# A process of another session has the status socket, which it took from the fork server.
STATUS_PIPE = """
import ctypes, os, signal, socket, time
PIDFD_GETFD = 438
server = os.getppid()
handle = os.pidfd_open(server)
for number in range(3, 64):
    taken = ctypes.CDLL(None).syscall(PIDFD_GETFD, handle, number, 0)
    if taken >= 0 and os.readlink(f"/proc/self/fd/{taken}").startswith("socket:"):
        with socket.socket(fileno=os.dup(taken)) as one:
            if one.type == socket.SOCK_STREAM:
                status = taken
status
if os.fork() == 0:
    os.setsid()
    time.sleep(100)
"""

# What a program can do only where there is no isolation.
WITHOUT = {
    "stops its fork server": Case(
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(100)",
        "timeout",
        "time limit of 1 s",
        timeout=1.0,
    ),
    "kills its fork server": Case(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(100)\n"
        "time.sleep(0.1)\nos.kill(os.getppid(), 9)\ntime.sleep(100)",
        "killed",
        "its parent process was ended, and so it was",
    ),
    "kills its fork server, and is a fork bomb in new sessions": Case(
        "import os, time\nserver = os.getppid()\nif os.fork():\n    time.sleep(0.05)\n"
        f"    os.kill(server, 9)\n    time.sleep(100)\n{SESSIONS}",
        "killed",
        f"{ANY_KILL}|its parent process was ended, and so it was",
        timeout=20.0,
    ),
    # Its end is then not heard by the end of its pipe: the time limit is the last resort.
    "kills its fork server, whose status pipe lives on": Case(
        STATUS_PIPE + "os.kill(server, 9)\ntime.sleep(100)", "timeout", "time limit of 1 s", 1.0
    ),
    "kills its fork server, whose status pipe never ends": Case(
        # Much at once: whoever reads it never comes to its end.
        STATUS_PIPE.replace(
            "time.sleep(100)", "while True:\n        os.write(status, b'x\\n' * 100_000)"
        )
        + "time.sleep(0.3)\nos.kill(server, 9)\ntime.sleep(100)",
        "timeout",
        "time limit of 1 s",
        1.0,
    ),
    "stops its fork server, whose status pipe never ends": Case(
        STATUS_PIPE.replace("time.sleep(100)", "while True:\n        os.write(status, b'x' * 4096)")
        + "os.kill(server, signal.SIGSTOP)\ntime.sleep(100)",
        "timeout",
        "time limit of 1 s",
        1.0,
    ),
    "writes nonsense to its status pipe": Case(
        STATUS_PIPE.replace(
            "time.sleep(100)", "while True:\n        os.write(status, b'\\nend 1 1.2.3 x\\n')"
        )
        + "time.sleep(0.2)",
        "ok",
    ),
}


def refused(program: str) -> Case:
    """What must fail, and say so."""
    lines = "".join(f"    {line}\n" for line in program.splitlines())
    text = f"import os, socket\ntry:\n{lines}except OSError as error:\n    raise SystemExit(42)\n"
    return Case(text, "error", "exit code 42")


# What only isolation prevents; {…} is filled in by the test.
INSIDE = {
    "kills the daemon": refused("os.kill({daemon}, 9)"),
    "looks for other processes": Case(
        "import os\nassert {daemon} not in [int(n) for n in os.listdir('/proc') if n.isdecimal()]\n"
        "assert len([n for n in os.listdir('/proc') if n.isdecimal()]) <= 3",
        "ok",
    ),
    "kills everybody": refused("os.kill(-1, 9)"),
    "reads the journal": refused("open('{folder}/journal.db')"),
    "reads credentials": refused("open('/etc/hwsync/device.toml')"),
    "looks at the daemon's folder": Case(
        "import os\nassert os.listdir('{folder}') == ['work'], os.listdir('{folder}')", "ok"
    ),
    "reads the home folders": refused("os.listdir('/home'), os.listdir('/root')"),
    "opens a connection": refused("socket.create_connection(('127.0.0.1', {port}), 5)"),
    "writes to the system": refused("open('/usr/x', 'w')"),
    "writes to /etc": refused("open('/etc/passwd', 'a')"),
    "writes beside its folder": refused(
        "open('{folder}/lost', 'x').close()\nos.stat('/proc/1/root/{folder}/journal.db')"
    ),
    "fills /tmp": refused(
        "f = open('/tmp/big', 'wb')\nfor n in range(19):\n    f.write(b'x' * 10**6)\n"
        "for m in range(9):\n    g = open(f'/tmp/{m}', 'wb')\n"
        "    for n in range(19):\n        g.write(b'x' * 10**6)"
    ),
    "opens a device": refused("open('/dev/kmsg')"),
}


class Host:
    """One driver process."""

    def __init__(self, folder: Path, isolation: str, **settings: Any) -> None:
        self.folder = folder
        given = {"limits": LIMITS, "isolation": isolation, **settings}
        python, path, who = sys.executable, str(CHECKOUT), {}
        driver = str(CHECKOUT / "tests/support/hostile_driver.py")
        if os.geteuid() == 0:
            python, path = SYSTEM_PYTHON, str(folder / "code")
            shutil.copytree(CHECKOUT / "hwsync", folder / "code/hwsync")
            driver = shutil.copy(driver, folder / "code")
            who = {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []}
        self.state = folder / "state"
        self.state.mkdir()
        (self.state / "journal.db").write_text("secret")
        if who:
            for one in (self.state, self.state / "journal.db"):
                os.chown(one, ACCOUNT, ACCOUNT)
        self.process = subprocess.Popen(
            [python, driver, str(self.state), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "MARK": str(folder)},
            **who,  # type: ignore[arg-type]
        )

    def run(self, program: str, timeout: float) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"program": program, "timeout": timeout}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the daemon did not live to tell"
        said: dict[str, Any] = json.loads(line)
        return said

    def check(self, case: Case, program: str) -> None:
        said = self.run(program, case.timeout)
        assert re.fullmatch(case.outcome, said["outcome"]), said
        assert re.fullmatch(case.reason, said["reason"]), said
        assert said["left"] == []
        assert (said["next"]["outcome"], said["next"]["response"]) == ("ok", "42\n"), said["next"]
        assert said["took"] < case.timeout + PROMPT

    def close(self) -> None:
        with self.process as process:
            process.communicate(timeout=20)
        assert self.process.returncode == 0


def host(isolation: str) -> Iterator[Host]:
    if os.geteuid() == 0:
        require_program("python3", "python3")
    # Not below pytest's own folder: any pytest that starts meanwhile closes that to others.
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        one = Host(Path(name), isolation)
        yield one
        one.close()


@pytest.fixture(scope="module")
def bare() -> Iterator[Host]:
    yield from host("none")


@pytest.fixture(scope="module")
def isolated() -> Iterator[Host]:
    require_program("bwrap", "bubblewrap")
    yield from host("bwrap")


@pytest.mark.parametrize("name", [*CASES, *WITHOUT])
def test_a_hostile_program_without_isolation(name: str, bare: Host) -> None:
    case = {**CASES, **WITHOUT}[name]
    bare.check(case, case.program)


# What bubblewrap's own limits or process tree change is not run twice.
@pytest.mark.parametrize("name", [name for name in CASES if "fork bomb" not in name])
def test_a_hostile_program_with_isolation(name: str, isolated: Host) -> None:
    case = CASES[name]
    if name == "kills its group":
        case = Case(case.program, "killed", "killed by SIGKILL.*")
    elif name == "removes its folder":  # a mount: it cannot
        case = Case(case.program, "error", "exit code 1")
    isolated.check(case, case.program)


@pytest.mark.parametrize("name", INSIDE)
def test_isolation_keeps_from_a_program_what_is_not_its_own(name: str, isolated: Host) -> None:
    case = INSIDE[name]
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = case.program
        for word, value in (
            ("daemon", isolated.process.pid),
            ("folder", isolated.state),
            ("port", server.getsockname()[1]),
        ):
            program = program.replace(f"{{{word}}}", str(value))
        isolated.check(case, program)


def test_isolation_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Never run without."""
    from hwsync.protocol.errors import CannotRun
    from hwsync.runner import Isolation, Runner, Settings

    runner = Runner(Settings(tmp_path, isolation=Isolation.BWRAP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(CannotRun, match="bubblewrap is not installed"):
            runner.start()
