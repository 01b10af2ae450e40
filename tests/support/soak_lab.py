"""The parts of a soak: real processes, each of which can be killed, stopped and cut off.

The law: a part is up, paused or down, and only this file moves it; when it did is kept, because a
verdict depends on it. A part that ends by itself is never started again in silence: it is a fault
of hwsync's. Coordinator, devices and analysts each reach the broker through a proxy of their own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from hwsync.protocol.jsons import dumps
from tests.support.brokers import (
    AmqttBroker,
    Broker,
    ForgetfulMosquittoBroker,
    MosquittoBroker,
    SmallMosquittoBroker,
)
from tests.support.processes import CHECKOUT, Process
from tests.support.proxy import Proxy
from tests.support.soak_analysts import ANALYSTS, write_analyser

BROKERS: Final[dict[str, type[Broker]]] = {
    kind.name: kind
    for kind in (MosquittoBroker, ForgetfulMosquittoBroker, SmallMosquittoBroker, AmqttBroker)
}
SETTLE_S: Final = 1  # of the coordinator
GROUP: Final = "lab"
LAUNCHER: Final = CHECKOUT / "tests" / "support" / "another_time.py"
AS_ROOT: Final = ["--allow-root"] if os.geteuid() == 0 else []


class Part(ABC):
    """One process of the lab, in all its lives. ``kind``: as faults are counted."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.up = False
        self.paused_at: float | None = None
        self.starts: list[float] = []  # seconds, monotonic, like the others
        self.kills: list[float] = []
        self.pauses: list[tuple[float, float]] = []  # those that are over
        self.spoilt_at: float | None = None  # its connection
        self.spoilt: list[tuple[float, float]] = []

    @property
    @abstractmethod
    def process(self) -> Process: ...

    @abstractmethod
    def _start(self) -> None: ...

    @property
    def steady(self) -> bool:
        """Whether it runs, and nobody holds it."""
        return self.up and self.paused_at is None

    def start(self) -> None:
        """Begin its next life."""
        self._start()
        self.starts.append(time.monotonic())
        self.up = True

    def kill(self) -> None:
        """kill -9."""
        self.kills.append(time.monotonic())
        self.process.kill()
        self.resume()
        self.up = False

    def pause(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        self.paused_at = time.monotonic()
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT; nothing where it is not paused."""
        if self.paused_at is not None:
            if self.process.running:
                self.process.send_signal(signal.SIGCONT)
            self.pauses.append((self.paused_at, time.monotonic()))
            self.paused_at = None

    def stop(self) -> None:
        """SIGTERM, in the end."""
        self.resume()
        if self.up:
            self.process.stop()
        self.up = False

    def ended_by_itself(self) -> str:
        """An account of a death that was nobody's order; empty: there was none."""
        if not self.up or self.process.running:
            return ""
        self.up = False
        return self.process.account()

    def undisturbed(self, since: float, until: float) -> bool:
        """Whether it was neither killed nor held at any time between."""
        killed = any(since <= at <= until for at in self.kills)
        held = any(begun <= until and over >= since for begun, over in self.pauses)
        return not killed and not held and (self.paused_at is None or self.paused_at > until)

    def connected(self, since: float, until: float) -> bool:
        """Whether it was up, and nothing happened to it or its connection, at any time between."""
        began = any(since <= at <= until for at in self.starts)
        spoilt = any(begun <= until and over >= since for begun, over in self.spoilt)
        spoilt |= self.spoilt_at is not None and self.spoilt_at <= until
        return self.undisturbed(since, until) and not began and not spoilt


class BrokerPart(Part):
    """The broker; it returns from ``start`` when it answers."""

    def __init__(self, broker: Broker) -> None:
        super().__init__("broker", "broker")
        self.broker = broker

    @property
    def process(self) -> Process:
        return self.broker.process

    def _start(self) -> None:
        self.broker.start()


class ProgramPart(Part):
    """A coordinator, a device or an analyst."""

    def __init__(self, name: str, kind: str, command: Sequence[str], folder: Path) -> None:
        super().__init__(name, kind)
        self._command, self._folder = command, folder
        self.wrong_clock = 0.0  # seconds by which its wall clock is wrong in its next life
        self.was_wrong = False  # in any life
        self._process: Process | None = None
        self._lives = 0

    @property
    def process(self) -> Process:
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    def _start(self) -> None:
        self._lives += 1
        self.was_wrong |= self.wrong_clock != 0.0
        python = [sys.executable, str(LAUNCHER), str(self.wrong_clock)]
        self._process = Process(
            [*python, *self._command], directory=self._folder, name=f"{self.name}-{self._lives}"
        )


class SoakLab:
    """A broker, a coordinator, devices ``pi1`` to ``piN``, analysts; everything is in ``folder``.

    The devices are the group ``GROUP``.
    """

    def __init__(self, folder: Path, broker: str, devices: int) -> None:
        self.folder = folder
        self.users = [f"pi{number}" for number in range(1, devices + 1)]
        self.db = folder / "hwsync.db"
        self.witness = folder / "witness"
        self.broker = BROKERS[broker](folder / "broker")
        self.proxies = {
            name: Proxy(self.broker, remember=False)
            for name in ("coordinator", *self.users, *ANALYSTS)
        }
        self.parts: dict[str, Part] = {"broker": BrokerPart(self.broker)}
        self.groups = folder / "groups.toml"
        self._add("coordinator", "coordinator", "hwsync.cli", "coordinator", "--db", str(self.db),
                  "--settle", str(SETTLE_S), "--analysis", "outcome",
                  "--groups", str(self.groups))  # fmt: skip
        for user in self.users:
            self._add(user, "device", "hwsync.device.service", "--user", user, *AS_ROOT,
                      "--state-dir", str(folder / f"device-{user}"))  # fmt: skip
        self.analysers = folder / "analysers"
        for name in ANALYSTS:
            self._add(name, "analyst", "hwsync.cli", "analyst", "--dir", str(self.analysers),
                      "--name", name, "--at-once", "1")  # fmt: skip
        self._stack = ExitStack()

    def _add(self, name: str, kind: str, module: str, *options: str) -> None:
        url = f"mqtt://127.0.0.1:{self.proxies[name].port}"
        command = [module, *options, "--broker", url]
        self.parts[name] = ProgramPart(name, kind, command, self.folder)

    def start(self) -> None:
        """Everything, the broker first."""
        self.witness.touch()
        write_analyser(self.analysers, 1)
        self.groups.write_text(f"{GROUP} = {dumps(self.users)}\n")
        for proxy in self.proxies.values():
            proxy.start()
            self._stack.callback(proxy.stop)
        for part in self.parts.values():
            self._stack.callback(part.stop)
            part.start()

    def heal(self) -> None:
        """Everything runs and everything passes."""
        for part in self.parts.values():
            part.resume()
            if not part.up:
                part.start()
        for proxy in self.proxies.values():
            heal(proxy)

    def stop(self) -> None:
        """End what was started, the last first."""
        self._stack.close()


def heal(proxy: Proxy) -> None:
    """Everything passes from now on; a connection that lost a packet has been cut before."""
    proxy.forget_rules()
    proxy.delay(0.0)
    proxy.release()
    proxy.accept()
