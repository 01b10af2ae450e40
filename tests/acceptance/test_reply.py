"""mosquitto_rr, as a person types it: it prints how the run ended, whatever happens meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import Broker, MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.programs import require_program


class Asking(Lab):
    """A lab in which somebody asks with MQTT 5."""

    def rr(self, program: str, topic: str = "replies/me") -> Process:
        command = [require_program("mosquitto_rr", "mosquitto-clients"), "-V", "5", "-q", "1"]
        command += ["-h", "127.0.0.1", "-p", str(self.broker.port), "-t", "hw/pi1/request"]
        return self.start([*command, "-e", topic, "-m", program], name="rr")


@pytest.fixture
def lab(mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path) -> Asking:
    lab = Asking(mosquitto, start, tmp_path)
    lab.coordinator("--settle", "0", "--analysis", "outcome")
    return lab


def reply(process: Process) -> dict[str, Any]:
    assert process.wait(30) == 0, process.account()
    fields: dict[str, Any] = json.loads(process.stdout)
    return fields


def test_mosquitto_rr_prints_the_final_status(lab: Asking) -> None:
    lab.device()
    end = reply(lab.rr("print(6*7)"))
    assert (end["state"], end["hw_response"], end["ran"]) == (3, "42\n", "yes")
    assert end["user"] == "pi1"
    told = lab.cli("history", "pi1", "--log", "--db", str(lab.db))
    assert told.wait(20) == 0, told.account()
    assert "who asked (reply topic): me  [print(6*7)]" in told.stdout


def test_a_coordinator_that_is_killed_in_between_replies_all_the_same(
    lab: Asking, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(lab.broker, "hw/pi1/status")
    device = lab.device()
    asked = lab.rr("import time; time.sleep(1); print(6*7)")
    watcher.wait_for_state("pi1", 2)
    lab.processes["coordinator"].kill()
    lab.coordinator("--settle", "0", "--analysis", "outcome")
    assert reply(asked)["hw_response"] == "42\n"
    assert device.running


def test_a_refusal_and_an_expiry_are_printed_too(lab: Asking) -> None:
    lab.pub("request", "print(1)")
    assert reply(lab.rr("print(2)"))["error"] == "busy"
    lab.pub("cancel")
    assert reply(lab.rr('{"program":"print(3)","expires":1}'))["outcome"] == "expired"


def test_nobody_is_written_to_under_the_root(lab: Asking, watch: Callable[..., Watcher]) -> None:
    watcher = watch(lab.broker)
    asked = lab.rr("print(1)", topic="hw/pi2/command")
    error = watcher.wait_for(lambda message: True, topic="hw/pi1/error", what="the refusal").json
    assert error["error"] == "not_allowed"
    assert "response topic" in error["message"]
    assert watcher.messages("hw/pi2/command") == []
    asked.terminate()


def test_without_mqtt_5_nothing_changes(
    broker: Broker, start: Callable[..., Process], tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    lab = Lab(broker, start, tmp_path)
    lab.coordinator()
    lab.device()
    watcher = watch(broker, "#")
    lab.pub("request", "print(6*7)")
    watcher.wait_for_state("pi1", 3)
    assert all(message.topic.startswith("hw/") for message in watcher.messages())
