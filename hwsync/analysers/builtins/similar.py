"""``similar``: how much of a text is as expected, and where it differs."""

from __future__ import annotations

import difflib
from typing import Any, Final

from hwsync.analysers.builtins.parts import (
    ENDED,
    EXPECTED,
    EXPECTED_FILE,
    OF,
    Argument,
    Builtin,
    expectation,
    judged,
    one_expectation,
    shown,
)
from hwsync.analysers.run import Analysis, Run
from hwsync.protocol.jsons import is_number

LEAST: Final = 1.0
MOST_LINES: Final = 20  # of the difference
MOST: Final = 100  # characters of such a line


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n").split("\n")


def _similar(run: Run, text: str) -> Analysis:
    wanted, came = _lines(expectation(run)), _lines(text)
    if wanted == came:
        return Analysis(True, score=1.0, message="It is what was expected.")
    matched = difflib.SequenceMatcher(None, wanted, came, autojunk=False)
    same = sum(block.size for block in matched.get_matching_blocks())
    score = 2 * same / (len(wanted) + len(came))
    difference = [
        shown(line, MOST)
        for line in difflib.unified_diff(wanted, came, "expected", "got", "", "", 1, "")
    ]
    said = [f"{same} of {len(wanted)} lines are as expected.", *difference[2 : 2 + MOST_LINES]]
    if left := len(difference) - 2 - MOST_LINES:
        said += [f"… and {left} lines more"] if left > 0 else []
    passed = score >= run.arguments.get("least", LEAST)
    return Analysis(passed, score=score, message="\n".join(said))


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


SIMILAR: Final = Builtin(
    "how many lines are as expected; shows those that are not",
    judged(_similar),
    {
        "expected": EXPECTED,
        "expected_file": EXPECTED_FILE,
        "least": Argument(
            "a number from 0 to 1", _is_share, "the share of lines from which it has passed", "`1`"
        ),
        "of": OF,
        "ended": ENDED,
    },
    one_expectation,
)
