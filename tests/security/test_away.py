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

from hwsync.lab.accounts import OperatorRights
from tests.support.account_lab import AccountLab, account_lab
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC
from tests.support.packets import Told
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE

BROKERS: Final = ("mosquitto", "amqtt")
TAKEN: Final = "takes us for"  # for somebody whose session it keeps
BOARDS: Final = ("pi1", "pi2", "pi3")


@pytest.fixture(params=BROKERS)
def lab(request: pytest.FixtureRequest) -> Iterator[AccountLab]:
    with account_lab(request.param, BOARDS, {"teacher": OperatorRights(None)}) as made:
        yield made


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
        teacher.publish([Told(f"hw/{board}/request", f"print('for {board}')")])
        again = coordinator()
        teacher.until(lambda one, board=board: f"'for {board}'" in one.text, f"status of {board}")
        again.stop()


def test_what_is_typed_with_the_coordinators_file_ends_no_session(
    lab: AccountLab,
    coordinator: Callable[[], Process],
    start: Callable[..., Process],
    tmp_path: Path,
) -> None:
    """As one does when it is away: what is wrong?"""
    teacher = lab.come_in("teacher")
    teacher.subscribe(["hw/+/status"])
    coordinator().stop()
    request = json.dumps({"program": "print(6*7)", "id": "waits"})
    teacher.publish([Told("hw/pi1/request", request)])
    own = ["--config", str(lab.path / "lab/coordinator.toml")]
    for typed in (["doctor", "--db", str(tmp_path / "db")], ["status"], ["status", "pi1"]):
        process = start([*HWSYNC, *typed, *own], name=typed[0])
        assert process.wait(START_PATIENCE) in (1, 125), process.account()
        assert TAKEN in process.stdout + process.stderr
        assert "hwsync operator add" in process.stdout + process.stderr
        assert "WARNING" not in process.stderr
    again = coordinator()
    teacher.until(lambda one: "waits" in one.text, "a status of pi1")
    # One that runs is connected again at once, whoever looks.
    looked = start([*HWSYNC, "status", *own], name="status")
    assert looked.wait(START_PATIENCE) == 125
    teacher.publish([Told("hw/pi2/request", request)])
    teacher.until(lambda one: one.topic == "hw/pi2/status" and "waits" in one.text, "of pi2")
    again.stop()


def test_the_check_of_a_board_ends_no_session(
    lab: AccountLab, start: Callable[..., Process], tmp_path: Path
) -> None:
    order = Told("hw/pi1/command", "an order")
    board = lab.come_in("pi1", id="pi1", clean=False)
    board.subscribe(["hw/pi1/command"])
    board.close()
    lab.come_in("coordinator").publish([order])
    file = lab.folder.file_of("pi1", lab.folder.accounts)
    options = ["--check", "--config", str(file), "--state-dir", str(tmp_path / "state")]
    check = start([*DEVICE, *options, *AS_ROOT], name="check")
    assert check.wait(START_PATIENCE) == 0, check.account()
    assert TAKEN in check.stdout
    assert "ok     tls: " in check.stdout
    again = lab.come_in("pi1", id="pi1", clean=False)
    assert again.session_present
    again.until(lambda one: one.text == order.text, "what waited for it")
