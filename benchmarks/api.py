"""What ``lab.run`` costs beside the raw messages, on a warm connection.

The law: both ask the same board of the same coordinator over the same broker, one after the other
and in turns, so that a slow moment of the machine slows both. The board is pretended and answers at
once, in a process of its own: what is measured are the messages, not a program.

- raw: publish the request with paho, and wait until the status at rest names its id;
- api: ``lab.run``, to the same end.

    python benchmarks/api.py --rounds 15 --runs 40
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

import hwsync
from tests.support.brokers import MosquittoBroker
from tests.support.lab import HWSYNC
from tests.support.ports import LOOPBACK
from tests.support.processes import CHECKOUT, Process
from tests.support.waiting import START_PATIENCE

BOARD: Final = "pi1"
PROGRAM: Final = "print 42"  # as tests.support.fake_boards reads it
PATIENCE_S: Final = 30.0
WARM: Final = 20  # runs of each side before anything is measured
BOARDS: Final = """
import sys, threading
from tests.support.fake_boards import FakeBoards
boards = FakeBoards(int(sys.argv[1]), ["pi1"])
boards.start()
print("ready", flush=True)
threading.Event().wait()
"""


class Raw:
    """The least that can be done: paho in its own thread, and nothing looked at but the end."""

    def __init__(self, port: int) -> None:
        self._ended = threading.Event()
        self._subscribed = threading.Event()
        self._id = ""
        self._client = Client(CallbackAPIVersion.VERSION2, "raw")
        self._client.on_socket_open = lambda _, __, sock: sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._heard
        self._client.connect(LOOPBACK, port)
        self._client.subscribe(f"hw/{BOARD}/status", 1)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)

    def run(self) -> str:
        """Its output."""
        self._id = f"raw-{secrets.token_hex(8)}"
        self._ended.clear()
        request = {"program": PROGRAM, "id": self._id, "analysis": "outcome", "args": []}
        self._client.publish(f"hw/{BOARD}/request", json.dumps(request), 1)
        assert self._ended.wait(PATIENCE_S)
        return self._output

    def _heard(self, _: Client, __: Any, message: MQTTMessage) -> None:
        status = json.loads(message.payload)
        if status["id"] == self._id and status["state"] == 0:
            self._output: str = status["hw_response"]
            self._ended.set()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def timed(run: Callable[[], str], runs: int) -> list[float]:
    """Seconds of each."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        assert run() == "42\n"
        found.append(time.perf_counter() - began)
    return found


def measure(rounds: int, runs: int) -> tuple[list[float], list[float]]:
    """The medians of each round, raw and api."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        broker = MosquittoBroker(folder / "broker")
        broker.start()
        url = f"mqtt://{LOOPBACK}:{broker.port}"
        command = [*HWSYNC, "coordinator", "--broker", url, "--db", str(folder / "hwsync.db")]
        coordinator = Process([*command, "--settle", "0"], directory=folder, name="coordinator")
        boards = subprocess.Popen(
            [sys.executable, "-c", BOARDS, str(broker.port)], cwd=CHECKOUT, stdout=subprocess.PIPE
        )
        try:
            coordinator.wait_for_log(r"\bready\b", START_PATIENCE)
            assert boards.stdout is not None
            assert boards.stdout.readline() == b"ready\n"
            raw = Raw(broker.port)
            medians: tuple[list[float], list[float]] = [], []
            with hwsync.connect(url) as lab:
                sides = (raw.run, lambda: lab.run(BOARD, PROGRAM).stdout)
                for side in sides:
                    timed(side, WARM)
                for _ in range(rounds):
                    for side, into in zip(sides, medians, strict=True):
                        into.append(statistics.median(timed(side, runs)))
            raw.close()
            return medians
        finally:
            boards.kill()
            boards.wait()
            coordinator.stop()
            broker.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=40, help="of each side in a round")
    given = parser.parse_args()
    raw, api = measure(given.rounds, given.runs)
    ratios = [one / other for one, other in zip(api, raw, strict=True)]
    print(f"{given.rounds} rounds of {given.runs} runs each, in turns; medians of each round")
    for name, medians in (("raw", raw), ("api", api)):
        print(f"{name}        {said([1e3 * one for one in medians])} ms")
    print(f"api / raw  {said(ratios)}")


def said(values: list[float]) -> str:
    """The middle one, and from where to where they go."""
    return f"{statistics.median(values):.2f}  ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
