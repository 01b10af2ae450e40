"""What a configuration says of programs: other interpreters, accounts, modules, disk."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.runner import (
    Group,
    Isolation,
    Job,
    Limits,
    RunEnd,
    Runner,
    Settings,
    Start,
    StopSwitch,
    launcher,
)
from hwsync.runner.launcher import Launcher
from hwsync.runner.processes import members, read_process
from tests.support.programs import require_program

SYSTEM_PYTHON = "/usr/bin/python3"  # root's own may lie where others cannot reach it

# The kernel counts an account's processes, and a limit leaves room for those that the account has
# already: no other test has programs of this account, as many have of nobody's.
COUNTED = "games"
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has accounts to give")


def run(
    folder: Path,
    program: str,
    *,
    stdin: str = "",
    timeout: float = 30.0,
    on_started: Callable[[Group], None] = lambda group: None,
    **settings: Any,
) -> RunEnd:
    runner = Runner(Settings(folder, **settings))
    try:
        return runner.run(
            Job(program, stdin, ("a", "b c"), timeout),
            on_started=on_started,
            on_output=lambda piece: None,
            stop=StopSwitch(),
        )
    finally:
        runner.close()


@pytest.mark.parametrize("isolation", Isolation)
def test_another_interpreter_gets_the_program_as_a_file(
    isolation: Isolation, tmp_path: Path
) -> None:
    if isolation is Isolation.BWRAP:
        require_program("bwrap", "bubblewrap")
    program = 'echo "$1, $2"; cat; exit 3'
    bash = (require_program("bash", "bash"),)
    end = run(tmp_path, program, stdin="given", interpreter=bash, isolation=isolation)
    assert (end.response, end.exit_code, end.reason) == ("a, b c\ngiven", 3, "exit code 3")


def test_isolation_does_not_hide_an_interpreter_in_tmp(tmp_path: Path) -> None:
    require_program("bwrap", "bubblewrap")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        venv.create(name, symlinks=True)
        python = f"{name}/bin/python"
        program = "import sys\nprint(sys.prefix)"
        end = run(tmp_path, program, isolation=Isolation.BWRAP, python=python,
                  readable=(sys.base_prefix,))  # fmt: skip
    assert end.response == f"{name}\n"


@pytest.mark.parametrize("isolation", Isolation)
def test_a_relative_directory_is_that_of_the_caller(
    isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isolation is Isolation.BWRAP:
        require_program("bwrap", "bubblewrap")
    (tmp_path / "state/work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    end = run(Path("state/work"), "import os\nprint(os.getcwd())", isolation=isolation)
    assert end.response == f"{tmp_path / 'state/work'}\n"


def test_an_interpreter_that_is_missing_has_run_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="did not begin: /no/such: No such file"):
        run(tmp_path, "x", interpreter=("/no/such",))


@only_root
@pytest.mark.parametrize("start", Start)
def test_programs_of_another_account(start: Start, open_folder: Path) -> None:
    secret = open_folder / "journal.db"
    secret.touch(0o600)
    program = f"import os\nprint(os.getresuid(), os.environ['USER'])\nopen({str(secret)!r})"
    python = require_program("python3", "python3") if start is Start.WARM else "/usr/bin/python3"
    end = run(open_folder, program, start=start, run_as="nobody", python=python)
    assert end.response == "(65534, 65534, 65534) nobody\n"
    assert "PermissionError" in end.stderr


@dataclass(frozen=True)
class Exceeding:
    """A program that exceeds a limit, and how it then must end.

    What it prints are the numbers of processes that must have ended by then.
    """

    limits: Limits
    program: str
    outcome: str
    reason: str
    timeout: float = 30.0


MANY = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        {each}
        time.sleep(600)
time.sleep(600)
"""

EXCEEDING = {
    "wall time": Exceeding(
        Limits(),
        # Of another session, and deaf: root must end it nevertheless.
        "import os, signal, time\nif os.fork():\n    time.sleep(600)\nos.setsid()\n"
        "print(os.getpid(), flush=True)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True:\n    pass",
        "timeout",
        "time limit of 0.3 s",
        0.3,
    ),
    "processor time": Exceeding(
        Limits(cpu_s=1), "while True:\n    pass", "killed", "CPU time limit of 1 s"
    ),
    "memory of one process": Exceeding(
        Limits(memory_mb=200),
        "x = bytearray(1 << 30)",
        "error",
        "exit code 1 (MemoryError; memory_mb = 200)",
    ),
    "memory of all": Exceeding(
        Limits(memory_mb=100),
        MANY.format(each="x = b'x' * 10_000_000"),
        "killed",
        "memory limit of 100 MB",
    ),
    "processes": Exceeding(
        Limits(processes=10),
        MANY.format(each="pass"),
        "killed",
        "limit of 10 processes and threads",
    ),
    "open files": Exceeding(
        Limits(open_files=20),
        "x = []\nwhile True:\n    x.append(open('/dev/null'))",
        "error",
        "exit code 1 (Too many open files; open_files = 20)",
    ),
    "file size": Exceeding(
        Limits(file_size_mb=1),
        "with open('big', 'wb', buffering=0) as file:\n    while True:\n"
        "        file.write(bytes(100_000))",
        "error",
        "exit code 1 (File too large; file_size_mb = 1)",
    ),
}


@only_root
@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("name", EXCEEDING)
def test_limits_hold_for_another_account(name: str, start: Start, open_folder: Path) -> None:
    case, groups = EXCEEDING[name], list[Group]()
    # What may fail only after the account has become the program's: not as root.
    program = f"import os\nassert os.getresuid() == (65534,) * 3\n{case.program}"
    end = run(open_folder / "work", program, start=start, run_as="nobody", limits=case.limits,
              python=require_program(SYSTEM_PYTHON, "python3"), empty_directory=True,
              timeout=case.timeout, on_started=groups.append)  # fmt: skip
    assert (end.outcome, end.reason) == (case.outcome, case.reason), end
    (group,) = groups
    assert members(group.session, group.start_time) == []
    assert [pid for pid in end.response.split() if read_process(int(pid)) is not None] == []
    assert list((open_folder / "work").iterdir()) == []


@only_root
@pytest.mark.parametrize("start", Start)
def test_the_kernel_counts_another_accounts_processes(
    start: Start, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it never does for root; without a look and without room for others it is alone."""
    monkeypatch.setattr(launcher, "LOOK_S", 600.0)
    monkeypatch.setattr(launcher, "OTHERS", 0)
    limits = Limits(processes=4)
    end = run(open_folder / "work", MANY.format(each="pass"), start=start, run_as=COUNTED,
              python=require_program(SYSTEM_PYTHON, "python3"), empty_directory=True,
              limits=limits)  # fmt: skip
    assert (end.outcome, end.exit_code) == ("error", 1), end
    assert end.reason == "exit code 1 (Resource temporarily unavailable; processes = 4)"


@only_root
@pytest.mark.parametrize("start", Start)
def test_a_folder_that_is_emptied_is_the_accounts(start: Start, open_folder: Path) -> None:
    folder = open_folder / "work"
    folder.mkdir()
    (folder / "left").touch()
    program = "import os\nprint(os.listdir('.'))\nopen(os.path.abspath('new'), 'w').close()"
    end = run(folder, program, start=start, run_as="nobody", empty_directory=True,
              python=require_program(SYSTEM_PYTHON, "python3"))  # fmt: skip
    assert (end.response, end.stderr) == ("['program.py']\n", "")
    assert list(folder.iterdir()) == []
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (65534, 0o700)


@only_root
@pytest.mark.parametrize("start", Start)
def test_a_folder_that_the_account_cannot_reach_is_named(start: Start, open_folder: Path) -> None:
    (open_folder / "closed").mkdir(mode=0o700)
    folder = open_folder / "closed/work"
    with pytest.raises(CannotRun, match=rf"{folder} cannot be entered: Permission denied$"):
        run(folder, "print(1)", start=start, run_as="nobody", empty_directory=True)


# Modules that a fork server imports, of its own or because Python does at its start.
TAKEN = ("_ctypes", "_socket", "resource", "select", "time", "sitecustomize", "usercustomize")


@only_root
@pytest.mark.parametrize("where", ["the working directory", "the home"])
def test_nothing_that_an_account_left_runs_as_root(
    where: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork server is root's, and lives where the account may write."""
    python = require_program(SYSTEM_PYTHON, "python3")
    work, home = open_folder / "work", open_folder / "home"
    work.mkdir()
    nobody = pwd.getpwnam("nobody")
    given = pwd.struct_passwd([*nobody[:5], str(home), nobody[6]])
    monkeypatch.setattr(pwd, "getpwnam", {"nobody": given}.__getitem__)
    ask = "import site; print(site.getusersitepackages())"
    home_is = {**os.environ, "HOME": str(home)}
    packages = subprocess.run([python, "-c", ask], env=home_is, capture_output=True, text=True)
    folder = work if where == "the working directory" else Path(packages.stdout.strip())
    folder.mkdir(parents=True, exist_ok=True)
    witness = open_folder / "witness"
    for name in TAKEN:
        (folder / f"{name}.py").write_text(
            f"import posix\nif posix.getuid() == 0:\n    open({str(witness)!r}, 'w')\n"
        )
    (folder / "its_own.py").touch()
    program = "import importlib.util as u\nprint(u.find_spec('its_own') is not None)"
    end = run(work, program, run_as="nobody", python=python)
    # A fork of the server finds nothing in the home either: it has no such place in its path.
    assert end.response == f"{where == 'the working directory'}\n", end
    assert not witness.exists()


def test_an_account_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="no account no-such"):
        run(tmp_path, "print(1)", run_as="no-such")


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"preload no_such_module .*ModuleNotFoundError"):
        run(tmp_path, "print(1)", preload=("no_such_module",))


def test_a_preloaded_module_is_ready_and_not_taken_from_the_working_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "tomllib.py").write_text("raise SystemExit('taken from the wrong place')")
    end = run(tmp_path, "import sys\nprint('tomllib' in sys.modules)", preload=("tomllib",))
    assert end.response == "True\n"


def anonymous(pid: int) -> int:
    """Kilobytes that the process does not share with a file."""
    found = re.search(r"Anonymous: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert found is not None
    return int(found[1])


def test_a_fork_server_is_hardly_larger_than_an_idle_interpreter(tmp_path: Path) -> None:
    """Its own modules are 0.3 MB; were its text compiled in its own process, 1.8 MB."""
    idle = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    launcher = Launcher(Settings(tmp_path))
    try:
        assert idle.stdout is not None
        idle.stdout.readline()
        assert anonymous(launcher.pid) - anonymous(idle.pid) < 900
    finally:
        launcher.close()
        idle.communicate()


def test_a_disk_that_is_too_full_is_refused(tmp_path: Path) -> None:
    limits = Limits(free_disk_mb=10**9)
    with pytest.raises(CannotRun, match="MB are free in"):
        run(tmp_path, "print(1)", limits=limits)


# -- the folder -----------------------------------------------------------------------------------


def test_in_a_folder_that_is_kept_only_the_program_goes(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1\n")
    program = "import os\nprint(sorted(os.listdir()))\nopen('new', 'w').close()"
    end = run(tmp_path, program)
    assert end.response == "['.hwsync-program.py', 'data.csv', 'program.py']\n"
    assert sorted(os.listdir(tmp_path)) == ["data.csv", "new"]


def test_a_file_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    """And a program of that name runs all the same, beside the folder."""
    (tmp_path / "program.py").write_text("print('a person wrote this')\n")
    (tmp_path / "helper.py").write_text("name = 'helper'\n")
    end = run(tmp_path, "import helper, os\nprint(helper.name, os.getcwd(), __file__)")
    name, folder, file = end.response.split()
    assert (name, folder) == ("helper", str(tmp_path))
    assert not file.startswith(folder)
    assert (tmp_path / "program.py").read_text() == "print('a person wrote this')\n"
    assert set(os.listdir(tmp_path)) - {"__pycache__"} == {"helper.py", "program.py"}


@pytest.mark.parametrize("left", ["os.mkdir(__file__)", "os.symlink('/etc/passwd', __file__)"])
def test_what_a_program_puts_in_its_own_place_stops_no_later_one(left: str, tmp_path: Path) -> None:
    assert run(tmp_path, f"import os\nos.remove(__file__)\n{left}").outcome == "ok"
    assert run(tmp_path, "print(1)").response == "1\n"
    assert os.listdir(tmp_path) == ["program.py"]


def test_what_a_power_cut_left_of_a_program_goes_before_the_next(tmp_path: Path) -> None:
    for name in (".hwsync-blink.py", ".hwsync-half.py", ".hwsync-saved.py", "saved.py", "kept.py",
                 ".hwsync-a b"):  # fmt: skip
        (tmp_path / name).touch()
    os.link(tmp_path / ".hwsync-blink.py", tmp_path / "blink.py")
    os.mkfifo(tmp_path / ".hwsync-fifo.py")
    (tmp_path / ".hwsync-folder.py/deep").mkdir(parents=True)
    assert run(tmp_path, "print(1)").response == "1\n"
    assert sorted(os.listdir(tmp_path)) == [".hwsync-a b", "kept.py", "saved.py"]


def test_a_file_that_a_person_saved_meanwhile_stays(tmp_path: Path) -> None:
    program = "import os\nopen('new', 'w').write('saved')\nos.replace('new', __file__)"
    assert run(tmp_path, program).outcome == "ok"
    assert (tmp_path / "program.py").read_text() == "saved"
    assert os.listdir(tmp_path) == ["program.py"]


def test_two_boards_in_one_folder_do_not_run_at_once(tmp_path: Path) -> None:
    other = Runner(Settings(tmp_path))
    refused: list[str] = []

    def run_another(_: Group) -> None:
        with pytest.raises(CannotRun) as error:
            run(tmp_path, "print(1)")
        refused.append(error.value.message)

    try:
        end = other.run(
            Job("print(open(__file__).read())", "", (), 30.0),
            on_started=run_another, on_output=lambda piece: None, stop=StopSwitch(),
        )  # fmt: skip
    finally:
        other.close()
    assert end.outcome == "ok"
    assert refused[0].startswith(f"another board runs a program in {tmp_path}")
    assert run(tmp_path, "print(1)").response == "1\n"


@only_root
def test_nobody_elses_file_goes_whatever_names_it_has(open_folder: Path) -> None:
    folder = open_folder / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "results.csv").write_text("1\n")
    program = "import os\nopen('.hwsync-results.csv', 'w').close()\nprint(len(os.listdir()))"
    assert run(folder, program, run_as="nobody", python=SYSTEM_PYTHON).outcome == "ok"
    assert os.listdir(folder) == ["results.csv"]


def test_a_folder_that_was_swapped_for_a_link_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (tmp_path / "work").symlink_to("precious")
    with pytest.raises(CannotRun, match=r"work cannot be used: it is a link"):
        run(tmp_path / "work", "print(1)", empty_directory=True)
    assert (tmp_path / "precious/file").exists()


def test_a_program_that_swaps_its_folder_gets_nothing_emptied(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    program = "import os\nos.rename('../work', '../old')\nos.symlink('precious', '../work')"
    runner = Runner(Settings(tmp_path / "work", empty_directory=True))
    job = Job(program, "", (), 30.0)
    options: dict[str, Any] = {"on_started": lambda group: None, "on_output": lambda piece: None}
    try:
        assert runner.run(job, stop=StopSwitch(), **options).outcome == "ok"
        assert "it is a link" in runner.refusal
        with pytest.raises(CannotRun, match="it is a link"):
            runner.run(job, stop=StopSwitch(), **options)
        assert (tmp_path / "precious/file").exists()
        (tmp_path / "work").unlink()
        (tmp_path / "work").mkdir()
        assert runner.refusal == ""
        job = Job("print(1)", "", (), 30.0)
        assert runner.run(job, stop=StopSwitch(), **options).outcome == "ok"
    finally:
        runner.close()


@only_root
def test_a_folder_of_somebody_else_is_not_emptied(open_folder: Path) -> None:
    folder = open_folder / "work"
    folder.mkdir()
    (folder / "file").touch()
    os.chown(folder, 61_000, 61_000)
    with pytest.raises(CannotRun, match=r"belongs to account 61000, so it is not emptied"):
        run(folder, "print(1)", run_as="nobody", empty_directory=True)
    assert (folder / "file").exists()


@only_root
@pytest.mark.parametrize(
    ("owner", "mode", "refused"),
    [
        (65534, 0o755, True),
        (0, 0o757, True),
        (0, 0o775, True),  # its group is the account's
        (0, 0o1777, True),  # there the owner of a folder may rename it
        (0, 0o755, False),
        (0, 0o711, False),
    ],
)
def test_a_folder_that_the_account_could_replace_is_refused(
    owner: int, mode: int, refused: bool, open_folder: Path
) -> None:
    above = open_folder / "above"
    above.mkdir()
    os.chown(above, owner, 65534 if mode == 0o775 else 0)
    above.chmod(mode)
    (above / "work").mkdir()
    (above / "work/file").touch()
    given: dict[str, Any] = {"run_as": "nobody", "python": SYSTEM_PYTHON, "empty_directory": True}
    if refused:
        with pytest.raises(CannotRun, match=rf"nobody may write {above}: a program could put"):
            run(above / "work", "print(1)", **given)
        assert (above / "work/file").exists()
        assert (above / "work").stat().st_uid == 0, "nor is it given away"
    else:
        assert run(above / "work", "print(1)", **given).outcome == "ok"


@only_root
def test_a_home_that_is_kept_may_be_the_accounts(open_folder: Path) -> None:
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    end = run(home, "print(__file__)", run_as="nobody", python=SYSTEM_PYTHON)
    assert end.response == f"{home}/program.py\n"
    assert os.listdir(home) == []


def test_what_cannot_be_removed_is_named_and_programs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an rm that cannot remove it, as on a card that fails."""
    bin = tmp_path / "bin"
    bin.mkdir()
    rm = bin / "rm"
    rm.write_text(
        "#!/bin/bash\nif [ -e locked/file ]; then\n"
        "  echo \"rm: cannot remove './locked/file': Read-only file system\" >&2; exit 1\nfi\n"
        f'exec {shutil.which("rm")} "$@"\n'
    )
    rm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    work = tmp_path / "work"
    (work / "locked").mkdir(parents=True)
    (work / "locked/file").touch()
    runner = Runner(Settings(work, empty_directory=True))
    said = f"{work} cannot be emptied: locked/file: Read-only file system"
    try:
        with pytest.raises(CannotRun) as error:
            runner.start()
        assert error.value.message == runner.refusal == said
        (work / "locked/file").unlink()
        assert runner.refusal == said, "looked at, not touched"
        (work / "locked").rmdir()
        assert runner.refusal == ""
    finally:
        runner.close()


@pytest.mark.parametrize("settings", [{"isolation": Isolation.BWRAP}, {"python": "/no/such"}])
def test_a_server_that_cannot_be_started_leaves_no_folder(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, places = tmp_path / "commands", tmp_path / "places"
    for folder in (commands, places, tmp_path / "work"):
        folder.mkdir()
    (commands / "rm").symlink_to(str(shutil.which("rm")))  # and no bubblewrap
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.setattr(tempfile, "tempdir", str(places))
    with pytest.raises(CannotRun, match=r"not installed|cannot be started"):
        run(tmp_path / "work", "print(1)", **settings)
    assert os.listdir(places) == []


def test_what_a_dead_daemon_left_beside_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "work").mkdir()
    living, dead = f"hwsync-program-{os.getpid()}-a", "hwsync-program-999999999-b"
    for name in (living, f"{dead}/program/deep", "hwsync-program-c"):
        (tmp_path / name).mkdir(parents=True)
    assert run(tmp_path / "work", "print(1)").response == "1\n"
    assert sorted(os.listdir(tmp_path)) == sorted([living, "hwsync-program-c", "work"])
