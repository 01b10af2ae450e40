"""A database that was put back by copying, while requests wait at the broker.

What mosquitto sends first is what waited in the coordinator's session: more than its window of
unacknowledged messages. Nothing of it may be decided before the kept status is heard.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process

WAITING = 30  # above mosquitto's window of 20


def request(id: str) -> str:
    return json.dumps({"id": id, "program": "print(6*7)"})


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_nothing_is_decided_before_the_kept_status_is_heard(
    broker: Broker, start: Callable[..., Process], tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    lab = Lab(broker, start, tmp_path)
    watcher = watch(broker, "hw/pi1/#")
    lab.coordinator().stop()
    old = tmp_path / "old.db"
    shutil.copy(lab.db, old)
    coordinator = lab.coordinator()
    lab.pub("request", request("c1"))
    lab.pub("collected", json.dumps({"id": "c1", "journal": "j1", "boot": 1}))
    said = {"id": "c1", "journal": "j1", "boot": 1, "outcome": "ok", "response": "42\n"}
    lab.pub("response", json.dumps(said))
    lab.pub("analysis", "good")
    watcher.wait_for_status("pi1", lambda status: status["server_analysis"] == "good")
    coordinator.stop()
    for suffix in ("-wal", "-shm"):
        lab.db.with_name(lab.db.name + suffix).unlink(missing_ok=True)
    shutil.copy(old, lab.db)
    # The sender repeats a request of before, and takes it back.
    lab.pub("request", request("c1"))
    lab.pub("cancel", '{"id":"c1"}')
    for _ in range(WAITING):
        lab.pub("query")
    before = watcher.mark()
    lab.coordinator()
    end: dict[str, Any] = watcher.wait_for_status(
        "pi1", lambda status: status["outcome"] == "cancelled", after=before
    )
    assert end["epoch"] > 0
    assert not [one for one in watcher.statuses("pi1") if one["ran"] == "no"]
    assert end["ran"] == "maybe"
