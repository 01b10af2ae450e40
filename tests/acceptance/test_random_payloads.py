"""20,000 random payloads over all topics: no process stops, and the next cycle is a normal one."""

from __future__ import annotations

import json
import os
import queue
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.address import BrokerUrl
from hwsync.protocol.topics import Kind
from hwsync.transport import Subscribed, Transport
from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.waiting import wait_until

COUNT = 20_000
SEED = int(os.environ.get("HWSYNC_SEED", str(random.randrange(10**6))))
KINDS = [str(kind) for kind in Kind if kind is not Kind.RESULT] + ["result/x", "nothing", ""]
USERS = ["pi1"] * 8 + ["pi2", "@all", "-bad", "ü", ""]
WORDS = [
    "id", "journal", "boot", "outcome", "ran", "program", "timeout", "v", "analysis", "queue",
    "start", "ok", "lost", "yes", "no", "c1", "j1", "", "\ud83d\ude00", "\0", "x" * 300, "online",
]  # fmt: skip
VALID = [
    {"program": "print(1)", "id": "c1", "expires": 1}, {"id": "c1"},
    {"id": "c1", "journal": "j1", "boot": 1},
    {"id": "c1", "journal": "j1", "boot": 1, "outcome": "ok", "ran": "yes", "response": "x"},
    {"analysis": {"points": 1}, "id": "c1"}, {"online": True, "journal": "j1", "boot": 1},
    {"v": 1, "id": "c1", "user": "pi1", "epoch": 0, "seq": 1, "program": "1", "timeout": 1,
     "stdin": "", "args": []},
]  # fmt: skip


def value(dice: random.Random, depth: int = 0) -> object:
    choice = dice.randrange(9 if depth < 3 else 6)
    plain: list[object] = [
        dice.choice(WORDS), dice.randrange(-5, 10**6), dice.random() * 1e9, None, True, 10**400,
    ]  # fmt: skip
    if choice < len(plain):
        return plain[choice]
    if choice == 6:
        return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(WORDS): value(dice, depth + 1) for _ in range(dice.randrange(6))}


def payload(dice: random.Random) -> bytes:
    choice = dice.randrange(5)
    if choice == 0:
        return dice.randbytes(dice.randrange(200))
    if choice == 1:
        return json.dumps(value(dice)).encode()
    fields = dict(dice.choice(VALID))
    for _ in range(dice.randrange(3)):
        fields[dice.choice([*fields, *WORDS])] = value(dice)  # type: ignore[assignment]
    text = json.dumps(fields).encode()
    if choice == 2:
        at = dice.randrange(len(text))
        return text[:at] + dice.randbytes(dice.randrange(4)) + text[at + 1 :]
    return text if choice == 3 else dice.choice([b"", b"print(6*7)", b"{", b"null", text])


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_random_payloads_stop_no_process(
    broker: Broker, start: Callable[..., Process], tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    lab = Lab(broker, start, tmp_path)
    parts = [lab.coordinator("--settle", "1"), lab.device()]
    dice = random.Random(SEED)
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    sender = Transport(
        BrokerUrl.parse(lab.url), "random", on_signal=inbox.put, subscriptions=[], takeover_hint=""
    )
    sender.start()
    while not isinstance(inbox.get(timeout=10), Subscribed):
        pass
    for number in range(COUNT):
        topic = f"hw/{dice.choice(USERS)}/{dice.choice(KINDS)}"
        # A retained status is the coordinator's to write; a stranger's would only be a lie.
        retain = dice.random() < 0.02 and not topic.endswith(("status", "heartbeat"))
        sender.publish(topic, payload(dice), retain=retain)
        if number % 500 == 499:
            assert sender.flush(30), f"seed {SEED}"
            assert all(part.running for part in parts), f"seed {SEED}"
    sender.stop()
    watcher = watch(broker, "hw/pi1/#")
    lab.pub("reset")

    def settled() -> bool:
        lab.pub("query", '{"id":"final"}')
        errors = [message.json for message in watcher.messages("hw/pi1/error")]
        return any(isinstance(error, dict) and error.get("id") == "final" for error in errors)

    wait_until(settled, 60, f"an answer after {COUNT} random payloads, seed {SEED}")
    lab.pub("reset")
    lab.pub("request", '{"program":"print(6*7)","id":"final","analysis":"outcome"}')
    end = watcher.wait_for_status(
        "pi1", lambda status: status.get("id") == "final" and status.get("state") == 0, 60
    )
    assert (end["hw_response"], end["outcome"]) == ("42\n", "ok"), f"seed {SEED}"
    assert all(part.running for part in parts)
    for part in parts:
        assert "Traceback" not in part.stderr, f"seed {SEED}"
