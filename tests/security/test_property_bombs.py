"""MQTT 5 properties that are made to be slow, in a lab of ``hwsync init`` on mosquitto.

A board's or an operator's account may say them like any other message. Nobody hangs on them, and
nobody is told of them again and again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from hwsync.lab.accounts import OperatorRights
from tests.support.account_lab import AccountLab, account_lab
from tests.support.lab import HWSYNC
from tests.support.packets import Client, Told
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE

BOMB: Final = b"\x26\0\0\0\0" * 300_000  # 1.5 MB of user properties; paho takes minutes
PROMPT_S: Final = 8.0  # an interpreter's start, an answer, an end


@pytest.fixture
def lab() -> Iterator[AccountLab]:
    with account_lab("mosquitto", ("pi1",), {"teacher": OperatorRights(None)}) as made:
        yield made


@pytest.fixture
def type_in(
    lab: AccountLab, start: Callable[..., Process], tmp_path: Path
) -> Callable[..., Process]:
    """``hwsync`` with what is typed behind it, and the file of that account."""

    def begin(account: str, *typed: str) -> Process:
        file = lab.folder.file_of(account, lab.folder.accounts)
        own = ["--db", str(tmp_path / "db")] if typed[0] == "coordinator" else []
        return start([*HWSYNC, typed[0], "--config", str(file), *own, *typed[1:]], name=typed[0])

    return begin


def answers(teacher: Client, id: str) -> None:
    """A request is heard, behind whatever was said before it."""
    teacher.publish([Told("hw/pi1/request", json.dumps({"program": "print(1)", "id": id}))])
    teacher.until(lambda one: one.topic == "hw/pi1/status" and id in one.text, f"{id} is heard")


def test_nobody_hangs_on_them_and_each_is_told_once(
    lab: AccountLab, type_in: Callable[..., Process]
) -> None:
    teacher, bomber = lab.come_in("teacher"), lab.come_in("teacher", version=5)
    teacher.subscribe(["hw/+/status", "hw/@hwsync/health"])
    board = lab.come_in("pi1", version=5)
    board.publish_v5(Told("hw/pi1/heartbeat", '{"online":true}', retain=True), BOMB)
    coordinator = type_in("coordinator", "coordinator")
    coordinator.wait_for_log(r"\bready\b", START_PATIENCE)
    request = json.dumps({"program": "print(2)", "id": "bomb"})
    for _ in range(3):
        bomber.publish_v5(Told("hw/pi1/request", request), BOMB)
    answers(teacher, "first")
    teacher.publish([Told("hw/@hwsync/query", "")])
    (*_, health) = teacher.until(lambda one: '"passed_over":4' in one.text, "they are counted")
    assert json.loads(health.text)["connected_since"]
    began = time.monotonic()
    status = type_in("teacher", "status")
    assert status.wait(PROMPT_S) == 0, status.account()
    assert "first" in status.stdout
    assert status.stderr.count("a message on hw/pi1/heartbeat is passed over") == 1
    coordinator.terminate()
    assert coordinator.wait(PROMPT_S) == 0
    assert time.monotonic() - began < 2 * PROMPT_S
    assert coordinator.stderr.count("is passed over: 1500000 bytes of properties") == 1
    assert "bomb" not in teacher_heard(teacher)
    # What was acknowledged is not told again; the broker keeps the heartbeat.
    again = type_in("coordinator", "coordinator")
    again.wait_for_log(r"\bready\b", START_PATIENCE)
    teacher.publish([Told("hw/@hwsync/query", "")])
    teacher.until(lambda one: '"passed_over":1,' in one.text, "only the heartbeat")
    again.terminate()
    assert again.wait(PROMPT_S) == 0


def teacher_heard(teacher: Client) -> str:
    return " ".join(one.text for one in teacher.received)
