"""A board of a group's run in the Python API: what its own topics say beside the batch."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import pytest

from hwsync.api import run as api_run
from hwsync.api.callbacks import Callbacks
from hwsync.api.run import MemberRun
from hwsync.operator.line import Line
from hwsync.protocol.errors import Code, Refused

TOLD = {"outcome": "ok", "ran": "yes", "state": 0}
END = {**TOLD, "id": "b1", "hw_response": "42", "stderr": "", "files": {"a": {"size": 1}}}


class OneBoard:
    """As a ``Line`` and as its conversation; a query is answered at once."""

    user = "pi1"

    def hearing_of(self, _: str) -> Generator[float]:
        yield from ()

    def conversation(self, _: str) -> OneBoard:
        return self

    def querying(self, *_: object) -> Generator[float, None, dict[str, Any]]:
        yield from ()
        return END

    def begin(self, talk: Generator[Any], _: str) -> None:
        for _unused in talk:
            pass


def test_files_that_cannot_be_had_are_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Generator[float]:
        yield 0.0
        raise Refused(Code.NOT_ALLOWED, "files were asked for too often", "")

    monkeypatch.setattr(api_run, "fetching", refused)
    run = MemberRun(cast(Line, OneBoard()), Callbacks(), "pi1", "b1", TOLD)
    run.begin()
    assert isinstance(run.exception(0), Refused)
    assert (run.outcome, run.stdout) == ("ok", "42")


class Judged:
    """A command of whose board the verdict is still to come."""

    ends = (
        {**END, "state": 3, "analyser": "check1", "files": {}, "truncated": False},
        {**END, "truncated": False, "analyser": "check1", "files": {},
         "server_analysis": '{"passed":true}',
         "analysed_by": {"name": "check1", "version": "1", "fault": None}},
    )  # fmt: skip

    def __init__(self, *_: object) -> None:
        self.said: list[str] = []
        self.left = list(self.ends)

    def querying(self, *_: object) -> Generator[float, None, dict[str, Any]]:
        self.said.append("query")
        yield from ()
        return self.left.pop(0)

    def following(self, **_: object) -> Generator[float]:
        self.said.append("follow")
        yield 0.0


@pytest.mark.parametrize(
    ("analyser", "said"), [("check1", ["query", "follow", "query"]), ("manual", ["query"])]
)
def test_the_verdict_of_an_analyst_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, analyser: str, said: list[str]
) -> None:
    command = Judged()
    command.left[0] = {**command.left[0], "analyser": analyser}
    monkeypatch.setattr(api_run, "Command", lambda *_: command)
    monkeypatch.setattr(api_run, "fetching", lambda *_: iter(()))
    run = MemberRun(cast(Line, OneBoard()), Callbacks(), "pi1", "b1", {**TOLD, "state": 3})
    run.begin()
    assert run.result(0) is run
    assert command.said == said
    verdict = run.verdict
    assert (verdict is not None and verdict.passed is True) == (analyser == "check1")
