"""The log's line of a judgement, with what the analyser printed last."""

from __future__ import annotations

import logging

import pytest

from hwsync.analysers.engine import Judgement
from hwsync.analyst.words import WIDEST, line_of, printed_lines


@pytest.mark.parametrize(
    ("analysis", "fault", "printed", "level", "said"),
    [
        ({"passed": True, "score": 0.5}, None, "", logging.INFO, "passed, score 0.5"),
        ({"passed": False}, None, "a\nb\n\n", logging.INFO, "not passed; it printed last: b"),
        ("fine", None, " \n", logging.INFO, "judged"),
        ({"error": "x"}, "it died", "got 7", logging.WARNING, "it died; it printed last: got 7"),
    ],
)
def test_a_line_for_each_judgement(
    analysis: object, fault: str | None, printed: str, level: int, said: str
) -> None:
    found = line_of(Judgement("check1", "3f0c", analysis, fault, printed), 0.125)
    failed = " failed itself" if fault else ""
    assert found == (level, f"check1 3f0c{failed} in 0.12 s: {said}")


def test_what_is_printed_is_cut() -> None:
    lines = printed_lines(Judgement("check1", "3f0c", 1, None, "1\n\n2\n" + "x" * 999), 2)
    assert lines == ["2", "x" * (WIDEST - 1) + "…"]
