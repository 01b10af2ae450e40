"""The parts of a lab as a person starts them: a broker, a coordinator, devices, the commands."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hwsync import logs
from hwsync.cli import app, say
from tests.support.brokers import Broker, MosquittoBroker
from tests.support.mqtt import publish
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE

HWSYNC = [sys.executable, "-m", "hwsync.cli"]
DEVICE = [sys.executable, "-m", "hwsync.device.service"]
AS_ROOT = ["--allow-root"] if os.geteuid() == 0 else []


class Lab:
    """A broker, a coordinator, and a device where asked for."""

    def __init__(self, broker: Broker, start: Callable[..., Process], folder: Path) -> None:
        self.broker, self.start, self.folder = broker, start, folder
        self.url = f"mqtt://127.0.0.1:{broker.port}"
        self.db = folder / "hwsync.db"
        self.processes: dict[str, Process] = {}  # the last of each name
        self._seen: list[Process] = []  # devices that are connected

    def coordinator(self, *options: str, variables: dict[str, str] | None = None) -> Process:
        clean = [] if self.broker.remembers else ["--clean-session"]
        process = self.start(
            [*HWSYNC, "coordinator", "--broker", self.url, "--db", str(self.db), *clean, *options],
            name="coordinator",
            variables=variables,
        )
        process.wait_for_log(r"\bready\b", START_PATIENCE)
        self.processes["coordinator"] = process
        return process

    def device(self, user: str = "pi1", folder: str = "device",
               variables: dict[str, str] | None = None) -> Process:  # fmt: skip
        file = self.folder / f"{Path(folder).name}.toml"
        if not file.exists():  # a test's disk may be as small as it likes
            file.write_text("[limits]\nfree_disk_mb = 0\n")
        process = self.start(
            [*DEVICE, "--config", str(file), "--user", user, "--broker", self.url, "--state-dir",
             str(self.folder / folder), *AS_ROOT],
            name=Path(folder).name,
            variables=variables,
        )  # fmt: skip
        self.processes[Path(folder).name] = process
        return process

    def pub(self, kind: str, payload: str | bytes = "", *, retain: bool = False,
            user: str = "pi1") -> None:  # fmt: skip
        publish(self.broker, f"hw/{user}/{kind}", payload, retain=retain)

    def cli(self, *arguments: str) -> Process:
        """A program goes to boards that were seen only: of those that were started, wait for it."""
        if {"run", "send"} & set(arguments):
            for process in self.processes.values():
                if process.running and process not in self._seen and "--user" in process.command:
                    process.wait_for_log(r"\bconnected to\b", START_PATIENCE)
                    self._seen.append(process)
        return self.start([*HWSYNC, *arguments], variables={"HWSYNC_BROKER": self.url}, name="cli")


@contextmanager
def standing(folder: Path, groups: str) -> Iterator[Lab]:
    """A lab on mosquitto for all tests of a module, with a file of groups; no device yet."""
    broker, started = MosquittoBroker(folder / "broker"), list[Process]()
    broker.start()

    def start(command: list[str], **options: Any) -> Process:
        started.append(Process(command, directory=folder, **options))
        return started[-1]

    try:
        lab = Lab(broker, start, folder)
        (folder / "groups.toml").write_text(groups)
        lab.coordinator("--settle", "0", "--groups", str(folder / "groups.toml"))
        yield lab
    finally:
        for process in reversed(started):
            process.stop()
            print(process.account())
        broker.stop()


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    exit_code: object
    stdout: str
    stderr: str


def here(*words: str, **variables: str) -> Said:
    """One command in this process, which spares a start of Python; ``variables``: of hwsync's.

    For what a command says; its process, streams and signals are ``Lab.cli``'s.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["hwsync", *words])
        patched.setattr(logs, "setup", lambda *_, **__: None)
        patched.setattr(say, "quiet", False)
        for name in [name for name in os.environ if name.startswith("HWSYNC_")]:
            patched.delenv(name)
        for name, value in variables.items():
            patched.setenv(name, value)
        code: object = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                app.start()
            except SystemExit as ended:
                code = ended.code
    assert "Traceback" not in err.getvalue()
    assert "this is a bug" not in err.getvalue()
    return Said(code, out.getvalue(), err.getvalue())
