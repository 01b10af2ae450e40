"""What was acknowledged while the coordinator was away is heard, in a lab of ``hwsync init``.

The broker renames each connection of the coordinator's account to the account: whatever it opens
there, be it for a moment, has the session in which all of that waits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from hwsync.lab.accounts import Operator
from tests.support.account_lab import AccountLab, folder_for_broker
from tests.support.lab import HWSYNC
from tests.support.packets import Told
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE

BROKERS: Final = ("mosquitto", "amqtt")
BOARDS: Final = ("pi1", "pi2", "pi3")


@pytest.fixture(params=BROKERS)
def lab(request: pytest.FixtureRequest) -> Iterator[AccountLab]:
    with folder_for_broker() as path:
        made = AccountLab(request.param, path, BOARDS, {"teacher": Operator(None)})
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
def coordinator(
    lab: AccountLab, start: Callable[..., Process], tmp_path: Path
) -> Callable[[], Process]:
    """Starts it with its file; returns when it hears."""

    def begin() -> Process:
        own = ["--config", str(lab.path / "lab/coordinator.toml"), "--db", str(tmp_path / "db")]
        process = start([*HWSYNC, "coordinator", *own], name="coordinator")
        process.wait_for_log(r"\bready\b", START_PATIENCE)
        return process

    return begin


def test_a_request_that_is_published_while_the_coordinator_is_away_is_heard(
    lab: AccountLab, coordinator: Callable[[], Process]
) -> None:
    teacher = lab.come_in("teacher")
    teacher.subscribe(["hw/+/status"])
    coordinator().stop()
    for board in BOARDS:  # a session that was kept is kept again
        request = json.dumps({"program": "print(6*7)", "id": f"for-{board}"})
        teacher.publish([Told(f"hw/{board}/request", request)])
        again = coordinator()
        teacher.until(lambda one, id=f"for-{board}": id in one.text, f"a status of {board}")
        again.stop()
