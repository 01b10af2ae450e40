"""Which runs are judged anew, what that changes, and how it is shown."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from hwsync.cli import regraded as module
from hwsync.cli.regraded import (
    DROPPED,
    FAILED,
    GONE,
    HAD,
    LAB,
    OPEN,
    Version,
    exported,
    heard,
    regraded,
    shown,
    summary,
    why_not,
    why_not_stored,
)
from hwsync.protocol.record import Outcome
from tests.support.graded import FAULT, RIGHT, WRONG, row, verdict

BY = Version("check2", "v2")
OURS = verdict("check2", version="v2", passed=True)
RESULT = {
    "outcome": "error", "ran": "yes", "pruned": False, "truncated": False, "analysed_by": None,
    "regrades": [],
}  # fmt: skip
OF_OURS = {"name": "check2", "version": "v2", "fault": None}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (row(), None),
        (row(RIGHT, WRONG, FAULT), None),
        (row(verdict("check2", version="v1")), None),  # another version of it
        (row(verdict("check1", version="v2")), None),
        (row(RIGHT, OURS), HAD),
        (row(OURS), HAD),
        (row({**OURS, "fault": "it crashed"}), FAILED),
        (row(RIGHT, outcome=None, ran=None), OPEN),
        (row(OURS, outcome="lost", ran="maybe"), LAB),
        ({**row(), "verdicts": None}, None),  # an older coordinator tells of none
    ],
)
def test_a_run_is_passed_over_by_its_row(told: dict[str, Any], why: str | None) -> None:
    assert why_not(told, BY) == why


@pytest.mark.parametrize("outcome", list(Outcome))
def test_what_failed_for_the_labs_reasons_is_passed_over(outcome: Outcome) -> None:
    labs = {"expired", "lost", "interrupted", "rejected"}
    for ran in ("yes", "no", "maybe"):
        of_lab = outcome in labs or (outcome == "cancelled" and ran != "yes")
        assert (why_not(row(outcome=outcome, ran=ran), BY) == LAB) is of_lab
        stored = why_not_stored({**RESULT, "outcome": outcome, "ran": ran}, (), BY)
        assert (stored == LAB) is of_lab


@pytest.mark.parametrize(
    ("fields", "gone", "why"),
    [
        ({}, (), None),
        ({"outcome": None}, (), OPEN),
        ({"outcome": "lost", "ran": "maybe", "pruned": True}, (), LAB),
        ({"pruned": True, "truncated": True}, (), DROPPED),
        ({"truncated": True}, (), None),  # the analyser is told, as hwsync analyst tells it
        ({}, ("a.txt",), GONE),
        ({"analysed_by": OF_OURS}, (), HAD),
        ({"analysed_by": {**OF_OURS, "fault": "x"}}, (), FAILED),
        ({"regrades": [{**OF_OURS, "version": "v1"}, OF_OURS]}, (), HAD),
        ({"regrades": [{**OF_OURS, "version": "v1"}], "analysed_by": {**OF_OURS, "name": "a"}}, (),
         None),
    ],
)  # fmt: skip
def test_a_run_is_passed_over_by_what_is_stored_of_it(
    fields: dict[str, Any], gone: tuple[str, ...], why: str | None
) -> None:
    assert why_not_stored({**RESULT, **fields}, gone, BY) == why


def test_an_older_coordinator_tells_of_no_regrades() -> None:
    result = {key: value for key, value in RESULT.items() if key not in ("analysed_by", "regrades")}
    assert why_not_stored(result, (), BY) is None


@pytest.mark.parametrize(
    ("told", "value", "old", "new", "changed"),
    [
        (row(), {"passed": True}, "-", "passed (check2)", True),
        (row(RIGHT), {"passed": True, "score": 1}, "passed 1 (check1)", "passed 1 (check2)", False),
        (row(RIGHT), {"passed": True, "score": 0.5}, "passed 1 (check1)", "passed 0.5 (check2)",
         True),
        (row(WRONG), {"passed": True, "score": 0}, "failed 0 (check1)", "passed 0 (check2)", True),
        # A person's stays.
        (row(verdict(None, passed=False)), {"passed": True}, "failed (a person)",
         "passed (check2)", False),
        # One that says nothing changes nothing.
        (row(RIGHT), {"data": [1]}, "passed 1 (check1)", "no verdict", False),
        (row(RIGHT), "some words", "passed 1 (check1)", "no verdict", False),
        (row(), {"score": 0.5}, "-", "scored 0.5 (check2)", True),
        (row(verdict(None)), None, "-", "no verdict", False),
    ],
)  # fmt: skip
def test_old_and_new_stand_beside_each_other(
    told: dict[str, Any], value: Any, old: str, new: str, changed: bool
) -> None:
    one = regraded("pi1", told, value, BY, None)
    assert (module.told(one.old), module.told(one.new), one.is_changed) == (old, new, changed)
    (head, line) = shown([one])
    assert head.split() == ["BOARD", "RUN", "ASKER", "OLD", "NEW"]
    assert line.startswith("pi1    c1   anna   ")
    assert line.endswith("  changed") is changed


def test_a_fault_changes_nothing_and_is_counted() -> None:
    one = regraded("pi1", row(RIGHT), {"error": "it\x1b[2J crashed"}, BY, "it\x1b[2J crashed")
    assert (one.fault, one.is_changed) == ("it\x1b[2J crashed", False)
    assert shown([one])[1].endswith("- (it\\x1b[2J crashed)")
    good = regraded("pi1", row(WRONG), {"passed": True}, BY, None)
    passed_over = Counter({HAD: 2, GONE: 1})
    assert summary([one, good], passed_over, BY, dry=False) == [
        "1 judged by check2 v2: 1 changed",
        "1 not judged: the analyser failed, and nothing was said of them",
        f"1 passed over: {GONE}",
        f"2 passed over: {HAD}",
    ]
    assert summary([good], Counter(), BY, dry=True) == [
        "1 would be judged by check2 v2: 1 changed", "nothing was published (--dry-run)",
    ]  # fmt: skip
    assert shown([]) == []


def test_what_the_analyser_printed_is_shown_of_the_first_runs() -> None:
    silent = regraded("pi1", row(), {"passed": True}, BY, None)
    one = regraded("pi1", row(), {"passed": True}, BY, None, ["got 41", "wanted 42"])
    assert heard([silent, one]) == ["printed of pi1 c1:", "  | got 41", "  | wanted 42"]
    many = heard([one] * (module.MOST_HEARD + 2))
    assert len(many) == 3 * module.MOST_HEARD + 1
    assert many[-1] == "and of 2 more: name one, such as --last 1"


def test_one_for_programs() -> None:
    one = exported(regraded("pi1", row(RIGHT), {"passed": False}, BY, None, ["got 41"]))
    assert one["printed"] == ["got 41"]
    assert (one["board"], one["id"], one["asker"], one["changed"]) == ("pi1", "c1", "anna", True)
    assert (one["old"]["name"], one["new"]["name"], one["new"]["version"]) == (
        "check1", "check2", "v2",
    )  # fmt: skip
