"""What a configuration says of programs: other interpreters, accounts, modules, disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.runner import Isolation, Job, Limits, RunEnd, Runner, Settings, Start, StopSwitch
from hwsync.runner.launcher import Launcher
from tests.support.programs import require_program


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that others may enter: any pytest that starts closes its own to them."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def run(folder: Path, program: str, *, stdin: str = "", **settings: Any) -> RunEnd:
    runner = Runner(Settings(folder, **settings))
    try:
        return runner.run(
            Job(program, stdin, ("a", "b c"), 30.0),
            on_started=lambda group: None,
            on_output=lambda number, stream, text: None,
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
    with pytest.raises(CannotRun, match="did not begin: No such file"):
        run(tmp_path, "x", interpreter=("/no/such",))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has accounts to give")
@pytest.mark.parametrize("start", Start)
def test_programs_of_another_account(start: Start, open_folder: Path) -> None:
    secret = open_folder / "journal.db"
    secret.touch(0o600)
    program = f"import os\nprint(os.getresuid(), os.environ['USER'])\nopen({str(secret)!r})"
    python = require_program("python3", "python3") if start is Start.WARM else "/usr/bin/python3"
    end = run(open_folder, program, start=start, run_as="nobody", python=python)
    assert end.response == "(65534, 65534, 65534) nobody\n"
    assert "PermissionError" in end.stderr


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


def test_random_numbers_differ_from_run_to_run(tmp_path: Path) -> None:
    runner = Runner(Settings(tmp_path, preload=("random",)))
    job = Job("import random\nprint(random.random())", "", (), 30.0)
    ends = [
        runner.run(
            job,
            on_started=lambda group: None,
            on_output=lambda number, stream, text: None,
            stop=StopSwitch(),
        )
        for _ in range(3)
    ]
    runner.close()
    assert len({end.response for end in ends}) == 3
