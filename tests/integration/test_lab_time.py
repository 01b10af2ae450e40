"""Lab time on a real board: what its daemon says of it, beside what the coordinator's file says.

Board and coordinator share this machine's raw clock, so that the true offset is known.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync import raw_clock
from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.mqtt import Message, Watcher
from tests.support.processes import Process

PROGRAM = "import time; print(time.clock_gettime(time.CLOCK_MONOTONIC_RAW))"


@pytest.fixture
def lab(broker: Broker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    return Lab(broker, start, tmp_path)


def offset_of(lab: Lab) -> tuple[str, float]:
    """The life that the coordinator has stored last, and its lab time less the raw clock."""
    with closing(sqlite3.connect(lab.db)) as db:
        name, wall, raw = db.execute(
            "SELECT name, wall_us, raw_us FROM lives ORDER BY row DESC LIMIT 1"
        ).fetchone()
    return name, (wall - raw) / 1e6


def knows_the_time(message: Message) -> bool:
    return isinstance(message.json, dict) and bool(message.json.get("clock"))


def test_a_board_knows_lab_time_within_its_bound_and_says_when_a_program_began(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(lab.broker)
    lab.coordinator()
    lab.device()
    said: Any = watcher.wait_for(knows_the_time, topic="hw/pi1/heartbeat").json
    clock = said["clock"]
    life, offset = offset_of(lab)
    assert clock["life"] == life
    assert abs(clock["offset"] - offset) <= clock["bound"] < 0.5
    assert (clock["samples"], clock["age"] < 30) == (8, True)
    # Lab time, computed from what was said, is the coordinator's.
    now = raw_clock.raw_us() / 1e6 + clock["offset"]
    assert abs(now - time.time()) < 1.0

    run = lab.cli("run", "pi1", "-c", PROGRAM)
    assert run.wait() == 0
    began = float(run.stdout) + offset
    end = watcher.statuses("pi1")[-1]
    assert end["clock_bound"] is not None
    assert end["start_error"] is None
    assert began - 5.0 < end["started"] <= began + end["clock_bound"]


def test_a_restarted_coordinator_goes_on_with_its_life(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    watcher = watch(lab.broker)
    lab.coordinator().stop()
    before = offset_of(lab)
    lab.coordinator()
    lab.device()
    said: Any = watcher.wait_for(knows_the_time, topic="hw/pi1/heartbeat").json
    assert offset_of(lab) == before
    assert said["clock"]["life"] == before[0]
