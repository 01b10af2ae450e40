"""A group over real brokers and processes: what is asked of it runs on all of its boards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher, publish
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

BOARDS = ("pi1", "pi2", "pi3")

# Notes when it begins and ends, in a file that all boards share here.
NOTING = """
import fcntl, os, time
def note(what):
    with open({path!r}, "a") as file:
        file.write(what + "\\n")
note("begin")
time.sleep(0.2)
note("end")
"""


class Class(Lab):
    """Three boards of the group ``lab1``, and somebody who sees every message."""

    def __init__(self, watcher: Watcher, *parts: Any) -> None:
        super().__init__(*parts)
        self.watcher = watcher
        self.groups = self.folder / "groups.toml"
        self.groups.write_text(f"lab1 = {list(BOARDS)}\n")
        self.master = self.begin()
        for user in BOARDS:
            self.device(user, user)
        wait_until(
            lambda: all(watcher.messages(f"hw/{user}/heartbeat") for user in BOARDS),
            START_PATIENCE,
            what="three heartbeats",
        )

    def begin(self) -> Process:
        return self.coordinator("--groups", str(self.groups), "--settle", "0")

    def ask(self, kind: str, payload: str = "", group: str = "@lab1") -> None:
        publish(self.broker, f"hw/{group}/{kind}", payload)

    def batch(self, holds: Callable[[dict[str, Any]], object], group: str = "@lab1") -> Any:
        topic = f"hw/{group}/status"
        return self.watcher.wait_for(
            lambda message: message.json and holds(message.json), topic=topic
        ).json


@pytest.fixture
def lab(broker: Broker, start: Callable[..., Process], tmp_path: Path,
        watch: Callable[..., Watcher]) -> Class:  # fmt: skip
    return Class(watch(broker), broker, start, tmp_path)


def test_a_text_on_the_groups_topic_runs_on_all_and_its_status_says_so(lab: Class) -> None:
    lab.ask("request", "print(6*7)")
    said = lab.batch(lambda one: one["state"] == "ended")
    assert said["counts"] == {"members": 3, "waiting": 0, "running": 0, "refused": 0, "ok": 3}
    for user in BOARDS:
        assert (said["members"][user]["outcome"], said["members"][user]["exit_code"]) == ("ok", 0)
        assert lab.watcher.wait_for_state(user, 0, id=said["id"])["hw_response"] == "42\n"
    members = lab.watcher.wait_for(
        lambda message: message.json and all(message.json["members"].values()),
        topic="hw/@lab1/members",
    )
    assert set(members.json["members"]) == set(BOARDS)


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_no_two_run_at_a_time_though_the_coordinator_is_killed_in_between(lab: Class) -> None:
    path = lab.folder / "noted"
    path.touch()
    program = NOTING.format(path=str(path))
    lab.ask("request", json.dumps({"program": program, "id": "b1", "parallel": 1}))
    wait_until(lambda: "end" in path.read_text(), what="the end of the first")
    lab.master.kill()
    lab.master.wait()
    lab.begin()
    said = lab.batch(lambda one: one["state"] == "ended")
    assert said["counts"]["ok"] == 3
    assert path.read_text().split() == ["begin", "end"] * 3


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_stop_all_ends_what_runs_and_begins_nothing(lab: Class) -> None:
    program = "import time\nprint('begun', flush=True)\ntime.sleep(100)"
    lab.ask("request", json.dumps({"program": program, "id": "b1", "parallel": 2, "timeout": 200}))
    for user in BOARDS[:2]:
        lab.watcher.wait_for_state(user, 2, id="b1")
    lab.ask("reset")
    said = lab.batch(lambda one: one["state"] == "ended")
    assert said["members"]["pi3"]["ran"] == "no"
    for user in BOARDS[:2]:  # the devices end what runs, and say so
        lab.watcher.wait_for_status(user, lambda one: one["outcome"] == "cancelled")
    assert lab.watcher.messages("hw/pi3/command") == []
    lab.batch(lambda one: one["counts"].get("cancelled") == 3)


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_a_reply_over_mqtt_5_is_the_batch_at_its_end(lab: Class) -> None:
    publish(
        lab.broker, "hw/@lab1/request", "print(1)",
        options=["-V", "5", "-D", "publish", "response-topic", "replies/me"],
    )  # fmt: skip
    watcher = Watcher(lab.broker, "replies/#")
    try:
        reply = watcher.wait_for(lambda message: message.json, topic="replies/me").json
    finally:
        watcher.close()
    assert (reply["counts"]["ok"], reply["members"]) == (3, {})
