"""What the broker refuses ends nothing but that message: real mosquitto with small limits.

Its two limits behave differently: above ``max_packet_size`` it closes the connection (and MQTT 5
says the limit), above ``message_size_limit`` it drops the message: under MQTT 5 with an answer that
paho takes for a broken broker, under 3.1.1, which devices speak, without a word.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.ports import LOOPBACK
from tests.support.processes import Process
from tests.support.programs import require_program
from tests.support.waiting import START_PATIENCE, wait_until

KIB = 1024
WAYS = ("max_packet_size", "message_size_limit")
# What was allowed before topics had a limit of their own.
WITHOUT_LIMIT = (
    "import sys, hwsync.protocol.topics as topics; topics.MAX_TOPIC_LEVELS = 1000; "
    "from hwsync.cli import main; main()"
)


def limited(start: Callable[..., MosquittoBroker], way: str, limit: int) -> MosquittoBroker:
    return start(extra=[f"{way} {limit}"])


def ended(process: Process, code: int = 0) -> dict[str, Any]:
    """The JSON that a command printed last."""
    assert process.wait(120.0) == code, process.account()
    lines = process.stdout.splitlines()
    fields: dict[str, Any] = json.loads(lines[-1])
    return fields


def ask(broker: MosquittoBroker, id: str, response_topic: str) -> None:
    """A request under MQTT 5 that wants its answer there."""
    command = [
        *(require_program("mosquitto_pub", "mosquitto-clients"), "-V", "5", "-q", "1"),
        *("-h", LOOPBACK, "-p", str(broker.port), "-t", "hw/pi1/request"),
        *("-D", "publish", "response-topic", response_topic),
        *("-m", json.dumps({"program": "print(1)", "id": id, "analysis": "outcome"})),
    ]
    subprocess.run(command, check=True, timeout=30)


def health(lab: Lab, watch: Callable[..., Watcher]) -> dict[str, Any]:
    watcher = watch(lab.broker, "hw/@hwsync/health")
    lab.pub("query", user="@hwsync")
    message = watcher.wait_for(lambda one: not one.retain, what="a health of now")
    fields: dict[str, Any] = message.json
    return fields


@pytest.mark.parametrize("way", WAYS)
def test_a_request_that_the_broker_cannot_carry_is_refused_with_its_size(
    way: str,
    start_mosquitto: Callable[..., MosquittoBroker],
    start: Callable[..., Process],
    watch: Callable[..., Watcher],
    tmp_path: Path,
) -> None:
    lab = Lab(limited(start_mosquitto, way, 128 * KIB), start, tmp_path)
    lab.coordinator("--settle", "0", "--max-message", str(128 * KIB))
    program = tmp_path / "large.py"
    program.write_text("#" * 200_000)
    process = lab.cli("send", "--wait-for-board", "pi1", str(program))
    assert process.wait(60.0) != 0
    assert "broker" in process.stderr
    assert "200" in process.stderr, process.stderr
    assert "Traceback" not in process.stderr
    # A request that fits, whose envelope, which says more, does not.
    errors = watch(lab.broker, "hw/pi1/error")
    lab.pub("request", json.dumps({"program": "#" * (128 * KIB - 100), "id": "c1"}))
    error = errors.wait_for(lambda one: True, what="the error").json
    assert (error["error"], error["id"]) == ("too_large", "c1")
    assert "the broker takes at most" in error["message"]
    if way == WAYS[0]:
        lab.device()
        run = lab.cli("run", "pi1", "--id", "c2", "-c", "print('x' * 1_000_000)")
        assert run.wait(60.0) == 0, run.account()
        show = lab.cli("show", "pi1", "c2", "--db", str(lab.db))
        assert show.wait(60.0) == 0, show.account()
        for one in (run, show):
            assert "the broker takes messages of at most 1" in one.stderr, one.account()


@pytest.mark.parametrize("lines", [[], *([f"{way} {128 * KIB}"] for way in WAYS)])
def test_doctor_measures_what_the_broker_carries(
    lines: list[str],
    start_mosquitto: Callable[..., MosquittoBroker],
    start: Callable[..., Process],
    tmp_path: Path,
) -> None:
    lab = Lab(start_mosquitto(extra=lines), start, tmp_path)
    process = lab.cli("doctor", "--json")
    process.wait(60.0)
    found = [json.loads(line) for line in process.stdout.splitlines()]
    (sizes,) = [one for one in found if one["check"] == "sizes"]
    expected = ("warning", "128,960 bytes") if lines else ("ok", "4,194,304 bytes")
    assert (sizes["result"], expected[1] in sizes["found"]) == (expected[0], True), sizes


def test_a_response_topic_that_the_broker_hangs_up_on_is_given_up(
    start_mosquitto: Callable[..., MosquittoBroker],
    start: Callable[..., Process],
    watch: Callable[..., Watcher],
    tmp_path: Path,
) -> None:
    """A coordinator of before owes a reply on 250 levels: mosquitto cuts who publishes there."""
    deep = "/".join("d" * 250)
    lab = Lab(start_mosquitto(), start, tmp_path)
    coordinator = start(
        [sys.executable, "-c", WITHOUT_LIMIT, "coordinator", "--broker", lab.url, "--db",
         str(lab.db), "--settle", "0"], name="before",
    )  # fmt: skip
    coordinator.wait_for_log(r"\bready\b", START_PATIENCE)
    lab.device()
    replies = watch(lab.broker, "replies/#")
    ask(lab.broker, "deep", deep)
    coordinator.wait_for_log("GIVEN UP", START_PATIENCE)
    assert "ANOTHER CLIENT" not in coordinator.stderr
    told = ended(lab.cli("run", "pi1", "-c", "print(6*7)", "--json"))
    assert told["hw_response"] == "42\n"
    ask(lab.broker, "shallow", "replies/me")
    replies.wait_for(lambda one: one.json["id"] == "shallow", what="the other reply")
    said = health(lab, watch)
    assert said["given_up"] == 1
    assert said["given_up_last"].startswith("d/d/d/")
    assert said["max_message"] == 4096 * KIB


def test_a_reply_that_an_older_version_stored_on_a_deep_topic_is_never_sent(
    start_mosquitto: Callable[..., MosquittoBroker],
    start: Callable[..., Process],
    watch: Callable[..., Watcher],
    tmp_path: Path,
) -> None:
    lab = Lab(start_mosquitto(), start, tmp_path)
    coordinator = lab.coordinator("--settle", "0")
    lab.device()
    ask(lab.broker, "c1", "replies/me")
    wait_until(lambda: "replies" not in owed(lab.db), what="the reply arrived")
    coordinator.stop()
    with closing(sqlite3.connect(lab.db)) as db, db:
        db.execute("update commands set replies = ?", [json.dumps([["/".join("d" * 250), ""]])])
    coordinator = lab.coordinator("--settle", "0")
    coordinator.wait_for_log("GIVEN UP", START_PATIENCE)
    wait_until(lambda: "d/d" not in owed(lab.db), what="it is owed no more")
    assert "lost the connection" not in coordinator.stderr
    assert health(lab, watch)["given_up"] == 1


def owed(db: Path) -> str:
    with closing(sqlite3.connect(db)) as connection:
        return str(connection.execute("select replies from commands").fetchall())


def test_a_deep_response_topic_is_refused_at_once(
    start_mosquitto: Callable[..., MosquittoBroker],
    start: Callable[..., Process],
    watch: Callable[..., Watcher],
    tmp_path: Path,
) -> None:
    lab = Lab(start_mosquitto(), start, tmp_path)
    coordinator = lab.coordinator("--settle", "0")
    errors = watch(lab.broker, "hw/pi1/error")
    ask(lab.broker, "c1", "/".join("d" * 250))
    error = errors.wait_for(lambda one: True, what="the error").json
    assert error["error"] == "bad_payload"
    assert "32 levels" in error["hint"]
    assert "lost the connection" not in coordinator.stderr
