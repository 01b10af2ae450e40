"""What ``hwsync regrade`` does with one judgement, beside a client that is told what to say."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from typing import Any, cast

import pytest

from hwsync.analysers.engine import Judgement
from hwsync.analysers.folder import Analyser
from hwsync.analyst.judging import End
from hwsync.cli.regrade import _Work
from hwsync.cli.regraded import CORRECTED, Version
from hwsync.protocol.errors import Code, Refused
from tests.support.graded import row


class Client:
    """The coordinator refuses whatever is said."""

    def __init__(self, code: Code) -> None:
        self.code = code

    def conversation(self, board: str) -> Any:
        return None

    def wait(self, talk: Any) -> Any:
        raise Refused(self.code, "no")


def finish(code: Code) -> _Work:
    work = _Work(cast("Any", None), Analyser("check2", "v2"), Version("check2", "v2"), dry=False)
    judged: Future[Judgement] = Future()
    judged.set_result(Judgement("check2", "v2", {"passed": True}))
    work._finish(cast("Any", Client(code)), "pi1", row(), End("c1", "ok", "yes"), judged)
    return work


def test_a_run_whose_result_comes_late_is_passed_over_and_any_other_refusal_ends_it() -> None:
    work = finish(Code.NOT_CURRENT)
    assert (work.passed_over, work.runs) == (Counter({CORRECTED: 1}), [])
    with pytest.raises(Refused):
        finish(Code.NOT_ALLOWED)
