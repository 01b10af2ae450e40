"""Several boards: what Ctrl-C leaves behind, and what is said of output that cannot be had."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hwsync.cli import run_many, run_verdicts
from hwsync.cli.common import Settings
from hwsync.cli.members import Members
from hwsync.cli.request import Asked
from hwsync.cli.rows import Rows
from hwsync.cli.run_many import Many
from hwsync.cli.run_verdicts import Verdicts
from hwsync.cli.targets import Target
from hwsync.operator.client import Client
from hwsync.operator.run import RunRequest
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import State


class Asking:
    """An operator's connection: Ctrl-C comes with the second board, and all are cancelled then."""

    def __init__(self) -> None:
        self.switchboard = self
        self.begun: list[str] = []
        self._cancelling = False

    def conversation(self, user: str) -> Any:
        self.begun.append(f"talk with {user}")
        return SimpleNamespace(user=user)

    def begin(self, talk: Any) -> Future[Any]:
        self.begun.append(talk.__name__)
        if self.begun.count("_following") == 2 and not self._cancelling:
            self._cancelling = True
            raise KeyboardInterrupt
        future: Future[Any] = Future()
        if self._cancelling:
            future.set_result({"id": "b1", "state": 0, "outcome": "cancelled", "ran": "no",
                               "command": "cancel", "truncated": False})  # fmt: skip
        return future

    def wait_for(self, future: Future[Any]) -> Any:
        return future.result(0)


def test_ctrl_c_while_boards_are_asked_cancels_those_that_were(
    capsys: pytest.CaptureFixture[str],
) -> None:
    operator = Asking()
    asked = Asked(RunRequest(program="1", id="b1"), None)
    many = Many(Settings(), Target(("pi1", "pi2", "pi3")), asked, State.REST)
    many._show_end = lambda user, fields: None  # type: ignore[method-assign]
    many._run_each(cast(Client, operator))
    assert operator.begun == [
        *("talk with pi1", "_following", "talk with pi2", "_following"), "_ending", "_ending",
    ]  # fmt: skip
    assert many.members.counts == {"cancelled": 2, "open": 1}
    assert "cancelling b1" in capsys.readouterr().err


class Answering:
    """An operator's connection that may ask some boards, and others not."""

    def __init__(self, may: set[str]) -> None:
        self.switchboard = self
        self.may = may
        self.asked: list[str] = []

    def conversation(self, user: str) -> Any:
        return SimpleNamespace(user=user, querying=lambda id: user, now=0.0)

    def begin(self, user: str) -> Future[Any]:
        self.asked.append(user)
        future: Future[Any] = Future()
        if user in self.may:
            future.set_result({"id": "b1", "state": 0, "outcome": "ok", "ran": "yes",
                               "command": "", "truncated": True, "hw_response": f"of {user}\n",
                               "stderr": ""})  # fmt: skip
        else:
            future.set_exception(Refused(Code.NOT_ALLOWED, f"not {user}", ""))
        return future

    def wait(self, talk: Any) -> None:
        talk.close()

    def wait_for(self, future: Future[Any]) -> Any:
        return future.result(0)


def a_batch(monkeypatch: pytest.MonkeyPatch, users: list[str]) -> Many:
    """It has ended on all of them, and nothing of their own word was heard."""
    monkeypatch.setattr(run_many, "members_of", lambda settings, user: dict.fromkeys(users, True))
    asked = Asked(RunRequest(program="1", id="b1"), None)
    many = Many(Settings(), Target(group="lab1"), asked, State.REST)
    for user in users:
        many.members.of(user).told = {"state": 0, "outcome": "ok", "ran": "yes"}
    return many


def test_output_that_cannot_be_had_is_not_missing_without_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = a_batch(monkeypatch, ["pi1", "pi2", "pi3"])
    operator = Answering({"pi1", "pi3"})
    many._complete(cast(Client, operator))
    many._finish()
    said = capsys.readouterr()
    assert operator.asked == ["pi1", "pi2", "pi3"]
    assert said.out == "pi1: of pi1\npi3: of pi3\n"
    assert "pi2: not all of its output could be had: not pi2\n" in said.err
    assert "pi1: not all" not in said.err  # it was longer than is kept, which is said elsewhere


def test_whoever_may_ask_nobody_does_not_ask_everybody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"pi{number}" for number in range(3 * run_many.AT_A_TIME)]
    many = a_batch(monkeypatch, users)
    operator = Answering(set())
    many._complete(cast(Client, operator))
    many._finish()
    assert len(operator.asked) == run_many.AT_A_TIME
    assert "and 88 more: not all of its output could be had" in capsys.readouterr().err


def judged(user: str, message: str | None, state: int = 0, outcome: str = "ok") -> dict[str, Any]:
    by = {"name": "check1", "version": "1", "fault": None}
    said = "" if message is None else dumps({"passed": True, "message": message})
    return {"id": "b1", "state": state, "outcome": outcome, "ran": "yes", "user": user,
            "server_analysis": said, "analysed_by": None if message is None else by}  # fmt: skip


def test_verdicts_that_are_alike_stand_together_and_there_is_an_end_of_them() -> None:
    members = Members("b1", ["pi1", "pi2", "pi3", "pi4", "pi5"])
    members.of("pi5").refused = "busy"
    ends = judged("pi1", "yes"), judged("pi2", None), judged("pi3", "yes"), judged("pi4", None, 3)
    for end in ends:
        members.hear_fields(end["user"], cast(Any, end), 0.0)
    assert run_verdicts.lines(members) == [
        "  pi1, pi3: check1 1: passed: yes", "  pi2: no analysis",
    ]  # fmt: skip
    users = [f"pi{number}" for number in range(run_verdicts.MOST_SAID + 2)]
    many = Members("b1", users)
    for user in users:
        many.hear_fields(user, cast(Any, judged(user, user)), 0.0)
    lines = run_verdicts.lines(many)
    assert len(lines) == run_verdicts.MOST_SAID + 1
    assert lines[-1] == "  … and 2 others: hwsync show b1"


def test_verdicts_that_take_long_are_said_to_be_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_verdicts, "somebody_waits", lambda: True)
    members, now = Members("b1", ["pi1", "pi2"]), [0.0]
    for user in members.by_user:
        members.hear_fields(user, cast(Any, judged(user, None, 3)), 0.0)
    waits = Verdicts(members, "check1", Rows(members, wanted=False), lambda _: None, lambda: now[0])
    for moment in (1.9, 2.0, 9.0):
        now[0] = moment
        waits._tick()
    said = "hwsync: the programs have ended; waiting for 2 verdicts of check1 (Ctrl-C leaves)\n"
    assert capsys.readouterr().err == said
