"""kill -9 of every part during cycles: all commands end, none runs twice, none is told wrongly.

The witness is a file outside hwsync: each program writes one line of it. ``HWSYNC_KILLS`` is the
number of kills for each broker (two of five hit the coordinator, two the device, one the broker).
"""

from __future__ import annotations

import json
import os
import queue
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.address import BrokerUrl
from hwsync.protocol.wire import encode_id, encode_request, read_object
from hwsync.transport import Delivery, Signal, Subscription, Transport
from tests.support.brokers import Broker
from tests.support.processes import Process

KILLS = int(os.environ.get("HWSYNC_KILLS", "10"))
SEED = int(os.environ.get("HWSYNC_SEED", str(random.randrange(10**6))))
AS_ROOT = ["--allow-root"] if os.geteuid() == 0 else []
END_S = 60.0  # every command must have ended by then: timeout, grace, settle and restarts included
REPEAT_S = 0.5


class Operator:
    """Asks with an id, and repeats until it is answered; knows every command's last end."""

    def __init__(self, broker: Broker) -> None:
        self.inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self.ends: dict[str, dict[str, Any]] = {}
        self.acknowledged: set[str] = set()
        self.transport = Transport(
            BrokerUrl.parse(f"mqtt://127.0.0.1:{broker.port}"),
            f"operator-{os.getpid()}",
            on_signal=self.inbox.put,
            subscriptions=[Subscription("hw/pi1/status"), Subscription("hw/pi1/result/+")],
        )
        self.transport.start()

    def listen(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            try:
                signal = self.inbox.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(signal, Delivery):
                self.transport.acknowledge(signal)
                said = read_object(signal.payload) or {}
                if "outcome" not in said:
                    continue  # amqtt also sends what others have subscribed to
                self.acknowledged.add(said["id"])
                if said["outcome"] is not None and said["state"] == 0:
                    self.ends[said["id"]] = said

    def ask(self, id: str, program: str) -> None:
        """The request until it is acknowledged, then the question how it ended."""
        if id in self.acknowledged:
            self.transport.publish("hw/pi1/query", encode_id(id))
        else:
            keys = {"timeout": 2, "grace": 2, "expires": 20, "analysis": "outcome"}
            self.transport.publish("hw/pi1/request", encode_request(program, id=id, **keys))


class Lab:
    """The three parts, each to be killed and started again."""

    def __init__(self, broker: Broker, start: Callable[..., Process], folder: Path) -> None:
        self.broker, self.start, self.folder = broker, start, folder
        self.parts = {"coordinator": self.coordinator(), "device": self.device()}

    def coordinator(self) -> Process:
        clean = [] if self.broker.remembers else ["--clean-session"]
        return self.start(
            [sys.executable, "-m", "hwsync.cli", "coordinator", "--settle", "1", *clean,
             "--broker", f"mqtt://127.0.0.1:{self.broker.port}", "--db", str(self.folder / "db")],
            name="coordinator",
        )  # fmt: skip

    def device(self) -> Process:
        return self.start(
            [sys.executable, "-m", "hwsync.device.service", "--user", "pi1", *AS_ROOT,
             "--broker", f"mqtt://127.0.0.1:{self.broker.port}",
             "--state-dir", str(self.folder / "device")],
            name="device",
        )  # fmt: skip

    def kill(self, part: str) -> None:
        if part == "broker":
            self.broker.kill()
            self.broker.restart()
            return
        self.parts[part].kill()
        self.parts[part] = getattr(self, part)()


@pytest.fixture
def operator(broker: Broker) -> Iterator[Operator]:
    one = Operator(broker)
    yield one
    one.transport.stop()


@pytest.mark.timeout(1_800)
@pytest.mark.slow
def test_kills_lose_nothing_run_nothing_twice_and_report_nothing_wrongly(
    broker: Broker, operator: Operator, start: Callable[..., Process], tmp_path: Path
) -> None:
    dice = random.Random(SEED)
    lab = Lab(broker, start, tmp_path)
    witness = tmp_path / "witness"
    witness.touch()
    plan = ["coordinator", "coordinator", "device", "device", "broker"] * (KILLS // 5)
    dice.shuffle(plan)
    for number, victim in enumerate(plan):
        id = f"c{number}"
        program = (
            f"import os, time\nf = os.open({str(witness)!r}, os.O_WRONLY | os.O_APPEND)\n"
            f"os.write(f, b'{id}\\n')\ntime.sleep({dice.uniform(0, 0.3):.2f})\nprint({number})\n"
        )
        kill_at = time.monotonic() + dice.uniform(0.0, 0.5)
        limit = kill_at + END_S
        killed = False
        while id not in operator.ends or not killed:
            assert time.monotonic() < limit, f"{id} did not end, seed {SEED}, {victim} was killed"
            operator.ask(id, program)
            pause = REPEAT_S if killed else max(min(kill_at - time.monotonic(), REPEAT_S), 0.0)
            operator.listen(min(pause, 0.1) if id in operator.ends else pause)
            if not killed and time.monotonic() >= kill_at:
                lab.kill(victim)
                killed = True
    ran = Counter(witness.read_text().split())
    for number, victim in enumerate(plan):
        id = f"c{number}"
        # A late truth may have corrected what was said first: what counts is the last word.
        operator.ends.pop(id)
        limit = time.monotonic() + END_S
        while id not in operator.ends:
            assert time.monotonic() < limit, f"{id} is not answered any more, seed {SEED}"
            operator.ask(id, "")
            operator.listen(REPEAT_S if id not in operator.ends else 0.0)
        end = operator.ends[id]
        account = json.dumps({key: end[key] for key in ("id", "outcome", "ran", "reason")})
        where = f"{account}, ran {ran[id]} times, {victim} was killed, seed {SEED}"
        assert ran[id] <= 1, where
        assert end["ran"] != "no" or ran[id] == 0, where
        assert end["ran"] != "yes" or ran[id] == 1, where
        if end["outcome"] == "ok":
            assert end["hw_response"] == f"{number}\n", where
    print(Counter(operator.ends[f"c{n}"]["outcome"] for n in range(len(plan))))
