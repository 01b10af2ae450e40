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
