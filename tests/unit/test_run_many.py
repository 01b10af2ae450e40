"""Several boards: what Ctrl-C leaves behind, and what is said of output that cannot be had."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hwsync.cli import run_many
from hwsync.cli.common import Settings
from hwsync.cli.request import Asked
from hwsync.cli.run_many import Many
from hwsync.cli.targets import Target
from hwsync.operator.client import Client
from hwsync.operator.run import RunRequest
from hwsync.protocol.errors import Code, Refused
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
