"""Real brokers on a loopback port of their own, which they keep through kills and restarts.

A started broker has answered a CONNECT: what a test publishes next is not lost.
"""

from __future__ import annotations

import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.support.certificates import Certificate
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process
from tests.support.programs import require_program
from tests.support.waiting import START_PATIENCE, wait_until

PROBE_TIMEOUT = 1.0  # seconds for one CONNACK
# MQTT 3.1.1, clean session, keepalive 60 s, client id "hwsync-test-probe"; and DISCONNECT.
CONNECT = b"\x10\x1d\x00\x04MQTT\x04\x02\x00\x3c\x00\x11hwsync-test-probe"
DISCONNECT = b"\xe0\x00"
CONNACK = 0x20


class Broker(ABC):
    """One broker on one port, its files in ``directory``. ``extra``: more configuration lines."""

    name: ClassVar[str]
    speaks_v5: ClassVar[bool]  # MQTT 5
    remembers: ClassVar[bool]  # sessions, queues and retained messages outlive a restart

    def __init__(self, directory: Path, *, extra: Sequence[str] = (), port: int = 0) -> None:
        self.directory = directory
        self.port = port or free_port()
        self._extra = tuple(extra)
        self._starts = 0
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"

    @property
    def process(self) -> Process:
        """The present process (the last one, after a kill)."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def log(self) -> str:
        """What the present process has logged."""
        return self.process.stdout + self.process.stderr

    def account(self) -> str:
        """Command, exit code and output of the present process, for a failure's message."""
        return self._process.account() if self._process else f"--- {self.name} was never started"

    def start(self) -> None:
        """Start on the same port, and return when the broker answers a CONNECT."""
        assert self._process is None or not self._process.running, f"{self.name} is running"
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "broker.conf"
        configuration.write_text("\n".join([*self.configuration(), *self._extra, ""]))
        self._starts += 1
        self._process = Process(
            self.command(configuration),
            directory=self.directory,
            name=f"{self.name}-{self._starts}",
        )
        wait_until(
            self._answers_or_ended,
            START_PATIENCE,
            lambda: f"{self.name} answers on port {self.port}\n{self.account()}",
        )
        assert self._process.running, self.account()

    def kill(self) -> None:
        """kill -9: what it did not save is gone."""
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM: it saves, and ends. Nothing happens where it has ended already."""
        if self._process is not None:
            self._process.stop()

    def restart(self) -> None:
        """Start again on the same port; stops it first where it is running."""
        self.stop()
        self.start()

    @abstractmethod
    def configuration(self) -> list[str]:
        """The lines of broker.conf."""

    @abstractmethod
    def command(self, configuration: Path) -> list[str]:
        """What starts it."""

    def _answers_or_ended(self) -> bool:
        return not self.process.running or answers(self.port)


class MosquittoBroker(Broker):
    """mosquitto, set up as hwsync wants a broker: at most the last second is lost by a kill -9."""

    name = "mosquitto"
    speaks_v5 = True
    remembers = True

    def configuration(self) -> list[str]:
        state = self.directory / "state"
        state.mkdir(exist_ok=True)
        lines = [
            f"listener {self.port} {LOOPBACK}",
            "allow_anonymous true",
            "set_tcp_nodelay true",
            "max_queued_messages 100000",
            "persistence true",
            f"persistence_location {state}/",
            "autosave_interval 1",
        ]
        if os.geteuid() == 0:
            # Otherwise it becomes the user "mosquitto", which may not write here, and only says so.
            lines.append("user root")
        return lines

    def command(self, configuration: Path) -> list[str]:
        return [require_program("mosquitto", "mosquitto"), "-c", str(configuration)]


class ForgetfulMosquittoBroker(MosquittoBroker):
    """mosquitto without persistence: it forgets everything when it ends."""

    name = "mosquitto-memory"
    remembers = False

    def configuration(self) -> list[str]:
        kept = ("persistence", "autosave")
        return [line for line in super().configuration() if not line.startswith(kept)]


class SmallMosquittoBroker(MosquittoBroker):
    """mosquitto that takes no message above 128 KiB, and closes the connection of who sends one."""

    name = "mosquitto-small"

    def configuration(self) -> list[str]:
        return [*super().configuration(), "max_packet_size 131072"]


class AmqttBroker(Broker):
    """``hwsync broker``: amqtt in a process of its own. It forgets everything when it ends."""

    name = "amqtt"
    speaks_v5 = False
    remembers = False

    def configuration(self) -> list[str]:
        return [f"listener {self.port} {LOOPBACK}", "allow_anonymous true", "set_tcp_nodelay true"]

    def command(self, configuration: Path) -> list[str]:
        return [sys.executable, "-m", "hwsync.cli", "broker", str(configuration)]


def encrypted(
    port: int,
    server: Certificate,
    *,
    clients: Path | None = None,
    websockets: bool = False,
    more: Sequence[str] = (),
) -> list[str]:
    """The lines of a listener with TLS. ``clients``: the authority whose certificate each needs."""
    lines = [f"listener {port} {LOOPBACK}", "allow_anonymous true"]
    lines += ["protocol websockets"] if websockets else []
    lines += [f"certfile {server.certificate}", f"keyfile {server.key}"]
    lines += [f"cafile {clients}", "require_certificate true"] if clients else []
    return [*lines, *more]


def answers(port: int) -> bool:
    """Whether an MQTT broker on this loopback port answers a CONNECT, be it with a refusal."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=PROBE_TIMEOUT) as connection:
            connection.sendall(CONNECT)
            answer = connection.recv(4)
            connection.sendall(DISCONNECT)
    except OSError:
        return False
    return bool(answer) and answer[0] == CONNACK
