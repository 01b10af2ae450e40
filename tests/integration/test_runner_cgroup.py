"""The cgroup of a fork server: what is born in it, and that its end is everybody's end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.runner import (
    Isolation,
    Job,
    Limits,
    RunEnd,
    Runner,
    Settings,
    StopSwitch,
    cgroup,
    launcher,
)
from hwsync.runner.cgroup import Cgroup, own_cgroup
from tests.support.waiting import wait_until

# As tests/integration/test_hostile.py.
pytestmark = pytest.mark.starving

WHERE = "print(open('/proc/self/cgroup').read())"
ESCAPED = (
    "import os, time\n"
    "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    "        os.closerange(0, 20)\n        time.sleep(100)\n    os._exit(0)\nos.wait()\n"
)
KILL_SERVER = "os.kill(os.getppid(), 9)\ntime.sleep(100)"


class Own:
    """The test's own cgroup, and what was made below it since; others have some there too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = set(os.listdir(path))

    @property
    def new(self) -> list[Path]:
        """Of this process."""
        ours = f"hwsync-programs-{os.getpid()}-"
        names = set(os.listdir(self.path)) - self._before
        return [self.path / name for name in names if name.startswith(ours)]

    @property
    def members(self) -> list[str]:
        """Process numbers in these."""
        return [pid for path in self.new for pid in (path / "cgroup.procs").read_text().split()]


@pytest.fixture(autouse=True)
def own() -> Iterator[Own]:
    made = Cgroup.make()
    if made is None:
        pytest.skip("no cgroup (version 2) is writable here")
    made.remove()
    own = Own(made.path.parent)
    yield own
    assert own.new == []


def run(runner: Runner, program: str, timeout: float = 30.0) -> RunEnd:
    return runner.run(
        Job(program, "", (), timeout),
        on_started=lambda group: None,
        on_output=lambda piece: None,
        stop=StopSwitch(),
    )


def made(folder: Path, **settings: Any) -> Runner:
    return Runner(Settings(folder, **settings))


def test_a_program_is_born_in_its_servers_cgroup(own: Own, tmp_path: Path) -> None:
    runner = made(tmp_path)
    try:
        said = [run(runner, WHERE).response for _ in range(2)]
        assert own.members != []  # the server, ready for the next
    finally:
        runner.close()
    for text in said:
        assert f"/hwsync-programs-{os.getpid()}-" in text


def test_the_stroke_alone_ends_everything_and_the_server_comes_back(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "send(signals.SIGKILL, pids)" in launcher.SERVER
    harmless = launcher.SERVER.replace("send(signals.SIGKILL, pids)", "pass")
    monkeypatch.setattr(launcher, "SERVER", harmless)
    monkeypatch.setattr(launcher, "LOOKS", 1)
    runner = made(tmp_path)
    try:
        began = time.monotonic()
        end = run(runner, ESCAPED + "time.sleep(100)", 0.3)
        assert end.outcome == "timeout"
        assert time.monotonic() - began < 3.0  # a sweep would give up after KILL_LIMIT_S
        assert len(own.members) == 1
        assert "hwsync-programs-" in run(runner, "import os\n" + WHERE + "\nos.fork()").response
    finally:
        runner.close()


def test_what_escaped_from_a_server_that_was_killed_ends_with_its_cgroup(
    own: Own, tmp_path: Path
) -> None:
    runner = made(tmp_path)  # not alone: nobody here is a subreaper
    try:
        end = run(runner, ESCAPED + KILL_SERVER)
        assert end.outcome == "killed"  # with its server
        assert own.members == []
        assert run(runner, "print(1)").response == "1\n"
    finally:
        runner.close()


@pytest.mark.parametrize("account", ["nobody", None])
def test_a_fork_bomb_is_seen_and_ended_at_one_stroke(account: str | None, own: Own) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs programs as another account, and needs this most")
    bomb = (
        "import os\nwhile True:\n    try:\n        if os.fork() == 0:\n            os.setsid()\n"
        "    except OSError:\n        pass"
    )
    runner = made(Path("/"), run_as=account, limits=Limits(processes=100))
    try:
        end = run(runner, bomb, 20.0)
        assert (end.outcome, end.reason) == ("killed", "limit of 100 processes and threads")
        assert len(own.members) == 1
        assert run(runner, "print(1)").response == "1\n"
    finally:
        runner.close()


def test_a_server_that_cannot_be_made_leaves_no_cgroup(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for settings in ({"isolation": Isolation.BWRAP}, {"python": "/no/such"}):
        with pytest.raises(CannotRun):
            made(tmp_path, **settings).start()
        assert own.new == []


def test_what_a_dead_daemon_left_is_ended(own: Own) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = own.path / f"hwsync-programs-{dead.pid}-0"
    folder.mkdir()
    left = subprocess.Popen(["sleep", "100"])
    (folder / "cgroup.procs").write_text(str(left.pid))
    made = Cgroup.make()
    assert made is not None
    made.remove()
    wait_until(lambda: left.poll() is not None, 5.0)
    assert not folder.exists()


def test_no_cgroup_where_the_kernel_shows_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroup, "own_cgroup", lambda: None)
    runner = made(tmp_path)
    try:
        assert "hwsync-programs-" not in run(runner, WHERE).response
    finally:
        runner.close()


def test_own_cgroup_is_the_one_that_the_kernel_names(own: Own) -> None:
    found = own_cgroup()
    assert found == own.path
    assert str(os.getpid()) in (own.path / "cgroup.procs").read_text().split()
