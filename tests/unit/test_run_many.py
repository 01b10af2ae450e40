"""Boards that are asked by their names: what Ctrl-C leaves behind."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hwsync.cli.common import Settings
from hwsync.cli.request import Asked
from hwsync.cli.run_many import Many
from hwsync.cli.targets import Target
from hwsync.operator.client import Client
from hwsync.operator.run import RunRequest
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
