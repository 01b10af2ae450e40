"""Clocks that are years wrong, and a coordinator that is switched off all the time: a real lab."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsync.store.backups import KEPT, scheduled
from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import CHECKOUT, Process
from tests.support.waiting import START_PATIENCE, wait_until

YEARS = 20 * 365 * 86_400
LAUNCHER = CHECKOUT / "tests" / "support" / "another_time.py"

pytestmark = pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)


@pytest.fixture
def lab(broker: Broker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    return Lab(broker, start, tmp_path)


def coordinator_at(lab: Lab, wrong: float, *options: str) -> Process:
    """A coordinator whose wall clock is wrong by so many seconds."""
    process = lab.start(
        [sys.executable, LAUNCHER, str(wrong), "hwsync.cli", "coordinator", "--broker", lab.url,
         "--db", str(lab.db), *options],
        name="coordinator",
    )  # fmt: skip
    process.wait_for_log(r"\bready\b", START_PATIENCE)
    return process


def test_a_coordinator_whose_clock_is_years_behind_is_heard(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    """With a new database it meets statuses of today: its own must not be older than these."""
    watcher = watch(lab.broker)
    first = lab.coordinator()
    lab.device()
    assert lab.cli("run", "pi1", "-c", "print(1)").wait() == 0
    backup = lab.folder / "backup.db"
    assert lab.cli("backup", "--db", str(lab.db), str(backup)).wait() == 0
    first.stop()
    # From here on the epoch is a time of today.
    assert lab.cli("restore", "--db", str(lab.db), str(backup)).wait() == 0
    lab.coordinator().stop()
    today = watcher.statuses("pi1")[-1]["epoch"]
    assert today > 1_700_000_000
    for suffix in ("", "-wal", "-shm"):
        lab.db.with_name(lab.db.name + suffix).unlink(missing_ok=True)
    behind = coordinator_at(lab, -YEARS)
    said = lab.cli("run", "pi1", "--timeout", "20", "-c", "print(6*7)")
    assert (said.wait(), said.stdout) == (0, "42\n")
    assert watcher.statuses("pi1")[-1]["epoch"] == today + 1
    behind.wait_for_log(r"ERROR.*this machine's clock is behind, it says 20\d\d-.*timedatectl")


def test_what_is_wrong_with_the_coordinators_clock_is_told_to_the_doctor(lab: Lab) -> None:
    first = lab.coordinator()
    assert lab.cli("send", "pi1", "--wait-for-board", "-c", "print(1)").wait() == 0
    first.stop()
    behind = coordinator_at(lab, -YEARS)
    behind.wait_for_log(r"ERROR.*this machine's clock is wrong: it says 20\d\d-")
    doctor = lab.cli("doctor", "--db", str(lab.db), "--json")
    assert doctor.wait() == 1
    findings = [json.loads(line) for line in doctor.stdout.splitlines()]
    errors = [one["found"] for one in findings if one["result"] == "error"]
    assert [text for text in errors if "the database was changed at" in text], findings
    behind.stop()
    right = lab.coordinator()
    assert "clock is wrong" not in right.stderr


def test_a_clock_that_was_ahead_once_costs_no_backup_and_no_text(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    folder = lab.folder / "backups"
    options = ("--backup-dir", str(folder), "--backup-every", "1", "--keep-days", "30")
    request = json.dumps({"id": "c1", "program": "print(6*7)"})
    watcher = watch(lab.broker)
    right = lab.coordinator(*options)
    lab.pub("request", request)
    lab.pub("cancel", '{"id": "c1"}')
    lab.pub("request", json.dumps({"id": "c2", "program": "1"}))
    watcher.wait_for_status("pi1", lambda status: status["id"] == "c2")
    wait_until(lambda: scheduled(folder), what="a backup")
    right.stop()
    ahead = coordinator_at(lab, YEARS, *options)
    wait_until(lambda: sum("-204" in path.name for _, path in scheduled(folder)) >= 2,
               what="two backups of the wrong time")  # fmt: skip
    ahead.stop()
    last = scheduled(folder)[-1][0]
    right = lab.coordinator(*options)
    wait_until(lambda: scheduled(folder)[-1][0] >= last + KEPT, what="ten more backups", timeout=60)
    right.stop()
    kept = scheduled(folder)
    assert [number for number, _ in kept] == list(range(kept[-1][0] - KEPT + 1, kept[-1][0] + 1))
    assert not [path for _, path in kept if "-204" in path.name]
    shown = lab.cli("show", "pi1", "c1", "--db", str(lab.db), "--json")
    assert shown.wait() == 0
    told: dict[str, Any] = json.loads(shown.stdout)
    assert (told["hw_command"], told["pruned"]) == ("print(6*7)", False)


def left(lab: Lab) -> float | None:
    """Seconds of the present state, as the next life will read it."""
    with closing(sqlite3.connect(f"file:{lab.db}?mode=ro", uri=True)) as connection:
        (seconds,) = connection.execute("SELECT remaining FROM hw_status").fetchone()
    return None if seconds is None else float(seconds)


def test_what_waits_ends_though_the_coordinator_is_killed_again_and_again(
    lab: Lab, watch: Callable[..., Watcher]
) -> None:
    """As in a room that is switched off every night: each life counts, also one of two seconds."""
    watcher = watch(lab.broker)
    coordinator = lab.coordinator("--settle", "0")
    lab.pub("request", json.dumps({"id": "c1", "program": "1", "expires": 5}))
    watcher.wait_for_status("pi1", lambda status: status["state"] == 1)
    lives = 0
    while (before := left(lab)) is not None:
        wait_until(lambda before=before: left(lab) != before, what="time that is written down")  # type: ignore[misc]
        coordinator.kill()
        coordinator = lab.coordinator("--settle", "0")
        lives += 1
        assert lives <= 8
    end = watcher.wait_for_status("pi1", lambda status: status["state"] == 0)
    assert (end["outcome"], end["ran"]) == ("expired", "no")
    assert lives >= 2
