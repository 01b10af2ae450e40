"""Accounts that do their worst for some seconds, as a person starts it; ``scripts/fill`` is longer.

The script's Python side is started, in this interpreter: its shell side makes ``.venv``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from hwsync.protocol import limits
from tests.support.processes import CHECKOUT, Process
from tests.support.programs import require_program

FILL = [sys.executable, CHECKOUT / "scripts" / "fill_lab.py"]
SECONDS = 110.0  # for what takes thirty
MB = 1_000_000


@pytest.mark.slow
def test_every_kind_of_row_has_an_allowance_and_others_are_served(
    start: Callable[..., Process],
) -> None:
    require_program("mosquitto", "mosquitto")
    # What the broker keeps is tests/security/test_filling.py's.
    options = ["--minutes", "0.2", "--without", "retained", "--without", "sessions", "--json"]
    variables = {"PYTHONPATH": str(CHECKOUT)}
    process = start([*FILL, *options], name="fill", variables=variables)
    process.wait(SECONDS)
    assert process.stdout, process.account()
    said: dict[str, Any] = json.loads(process.stdout)
    assert said["wrong"] == [], process.account()
    assert process.exit_code == 0
    assert said["messages"] > 1_000
    assert said["database, MB"] - said["of it in queues, MB"] < 20.0
    assert said["rows"]["refused"] <= 2 * limits.REFUSED_ROWS
    assert said["rows"]["packets"] <= limits.PACKETS
    assert said["rows"]["commands"] + said["rows"]["transitions"] < 3 * limits.MAX_IDLE / 1_024
