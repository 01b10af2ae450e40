"""A board's daemon under an account that may do little, for programs that mean no good.

As root (CI) that is a number that no account has, with the system's Python and copies of what the
daemon needs, since root's own files are closed to it; else it is whoever runs the tests. Whatever
of that account lives at the end is killed by its number, and fails the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import paho
import pytest

from hwsync.runner.processes import read_process
from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import CHECKOUT, Process
from tests.support.programs import require_program
from tests.support.waiting import START_PATIENCE, wait_until

SYSTEM_PYTHON: Final = "/usr/bin/python3"
NUMBERS: Final = range(62_000, 63_000)  # no distribution gives these to an account
SHOWN: Final = 200  # characters of a command line


class Account:
    """``folder`` is its own, in a place that it can reach; so is everything below."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"HW_ACCOUNT={folder}"
        self.python = sys.executable
        self.user: int | None = None  # None: oneself
        paths = [str(CHECKOUT)]
        if os.geteuid() == 0:
            self.user = NUMBERS[os.getpid() % len(NUMBERS)]
            self.python = _system_python()
            code = folder / "code"
            for package in (CHECKOUT / "hwsync", Path(paho.__path__[0])):
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(package, code / package.name, ignore=ignore)
            paths = [str(code)]
            os.chown(folder, self.user, self.user)
            folder.chmod(0o755)
        name, _, value = self.mark.partition("=")
        self.variables = {"PYTHONPATH": os.pathsep.join(paths), name: value}

    def start(self, arguments: list[str], name: str, **variables: str) -> Process:
        """A Python of this account with these arguments."""
        return Process(
            [self.python, *arguments],
            directory=self.folder,
            name=name,
            variables=self.variables | variables,
            user=self.user,
        )

    def living(self) -> list[int]:
        """Its processes; where it is oneself, those with the mark in their environment."""
        found = []
        for name in os.listdir("/proc"):
            process = read_process(int(name)) if name.isdecimal() else None
            if process is not None and process.alive and self._owns(process.pid):
                found.append(process.pid)
        return found

    def _owns(self, pid: int) -> bool:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if self.user is None:
                return f"{self.mark}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
            # Not the owner of the files in /proc: that is root where nobody may look into it.
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("Uid:"):
                    return str(self.user) in line.split()
        return False

    def end_all(self) -> list[str]:
        """Kill what lives, until nothing does; what each was."""
        ended: dict[int, str] = {}

        def none_lives() -> bool:
            living = self.living()
            for pid in living:
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                    ended.setdefault(pid, f"{pid}: {line.decode(errors='replace')[:SHOWN]}")
                    os.kill(pid, signal.SIGKILL)
            return not living

        wait_until(none_lives, what="the end of everything that was left over")
        return list(ended.values())


def _system_python() -> str:
    path = require_program(SYSTEM_PYTHON, "python3")
    new = subprocess.run([path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"])
    if new.returncode:
        pytest.skip(f"{path} is older than 3.11, and root's own Python is closed to others")
    return path


@contextmanager
def unprivileged() -> Iterator[Account]:
    """An account for one test, of which nothing may be left at the end."""
    with tempfile.TemporaryDirectory(prefix="hwsync-account-") as folder:
        account = Account(Path(folder))
        try:
            yield account
        except BaseException:
            account.end_all()  # what failed first is what counts
            raise
        left = account.end_all()
        assert not left, f"left over: {left}"


class HostileLab(Lab):
    """A coordinator, and the daemon of ``pi1`` under an account, configured by TOML text."""

    def __init__(
        self,
        account: Account,
        configuration: str,
        watcher: Watcher,
        broker: MosquittoBroker,
        start: Callable[..., Process],
        folder: Path,
    ) -> None:
        super().__init__(broker, start, folder)
        self.account, self.watcher = account, watcher
        self._runs = 0
        self.coordinator("--settle", "0")
        file = account.folder / "device.toml"
        file.write_text(configuration)
        self.daemon = account.start(
            ["-m", "hwsync.device.service", "--config", str(file), "--user", "pi1",
             "--broker", self.url, "--state-dir", str(account.folder / "state")],
            "device",
        )  # fmt: skip
        self.daemon.wait_for_log("connected to", START_PATIENCE)

    def run(self, program: str, **keys: object) -> dict[str, Any]:
        """The status at the end of that program; ``keys`` are the request's."""
        self._runs += 1
        id = f"run-{self._runs}"
        said = {"id": id, "program": program, "analysis": "outcome"} | keys
        self.pub("request", json.dumps(said))
        # Its result may wait for the end of a timeout, and for all that it left.
        patience = 20.0 + float(str(said.get("timeout", 10)))
        return self.watcher.wait_for_state("pi1", 0, patience, id=id)

    def assert_nothing_left(self) -> None:
        """But the daemon and the fork server that it keeps."""

        def strangers() -> list[int]:
            ours = {self.daemon.pid, *_children(self.daemon.pid)}
            return [pid for pid in self.account.living() if pid not in ours]

        wait_until(lambda: not strangers(), what=lambda: f"the end of {strangers()}")

    def assert_next_is_normal(self) -> None:
        end = self.run("print(6*7)")
        assert (end["outcome"], end["ran"], end["hw_response"]) == ("ok", "yes", "42\n"), end

    def stop(self) -> None:
        """Ends the daemon, which must live until then."""
        assert self.daemon.running, self.daemon.account()
        assert self.daemon.stop() == 0, self.daemon.account()
        assert "Traceback" not in self.daemon.stderr, self.daemon.account()


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(n) for task in tasks.iterdir() for n in (task / "children").read_text().split()]
