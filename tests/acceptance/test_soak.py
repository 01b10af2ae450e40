"""A short soak of each broker, as a person starts it; ``scripts/soak`` says what a long one is.

The script's Python side is started, in this interpreter: its shell side makes ``.venv``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import CHECKOUT, Process
from tests.support.programs import require_program
from tests.support.waiting import wait_until

SOAK = [sys.executable, CHECKOUT / "scripts" / "soak_lab.py"]
SEED = "28"  # it kills each kind of part, and plans no long calm
SECONDS = 150.0  # for what takes twenty: a rest that does not come in 90 is told


@pytest.fixture
def soak(start: Callable[..., Process], tmp_path: Path) -> Callable[..., Process]:
    """Starts one with these options; its lab is in the folder ``lab``."""
    options = ["--seed", SEED, "--devices", "2", "--keep", tmp_path / "lab", "--json"]

    def start_one(*more: str) -> Process:
        variables = {"PYTHONPATH": str(CHECKOUT)}
        return start([*SOAK, *options, *more], name="soak", variables=variables)

    return start_one


def figures(process: Process) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(process.stdout)
    assert said["violations"] == [], process.account()
    assert process.exit_code == 0, process.account()
    return said


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
def test_kills_and_a_bad_network_break_no_promise(
    soak: Callable[..., Process], broker: str
) -> None:
    if broker == "mosquitto":
        require_program("mosquitto", "mosquitto")
    process = soak("--broker", broker, "--kills", "6")
    process.wait(SECONDS)
    said = figures(process)
    assert said["kills"] == 6
    assert sum(count for kind, count in said["faults"].items() if kind.startswith("kill")) == 6
    assert any(kind.startswith("aimed before an instant") for kind in said["faults"])
    assert said["commands"] >= said["acknowledged"] >= 3
    assert said["ran"]["yes"] >= 6
    assert said["batches"] >= 2
    assert said["released"] >= 3  # the last ones
    assert said["files that were to come back"]["whole, ran yes"] >= 2
    assert said["asked for an analyser"]["the analyser"] >= 2
    assert "None" not in said["ended"]


@pytest.mark.slow
def test_an_interrupted_soak_ends_what_it_started_and_checks_what_it_saw(
    soak: Callable[..., Process], tmp_path: Path
) -> None:
    process = soak("--broker", "amqtt", "--minutes", "5")
    witness = tmp_path / "lab" / "witness"
    wait_until(lambda: witness.exists() and "ended" in witness.read_text(), 60, "a run")
    assert left_running(tmp_path)
    process.interrupt()
    process.wait(SECONDS)
    said = figures(process)
    assert said["interrupted"]
    assert said["commands"] >= 1
    wait_until(lambda: not left_running(tmp_path), what=lambda: f"{left_running(tmp_path)} end")


def left_running(folder: Path) -> list[str]:
    """The commands that name the lab's folder, the soak's own among them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/" in command:
            found.append(command)
    return found
