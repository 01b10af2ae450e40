"""Which runs are attempts, which verdict counts, and what stands in the table of grades."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from hwsync import grading
from hwsync.cli.graded import remarks, summary
from hwsync.grading import (
    ASKER,
    BOARD,
    COLUMNS,
    PERSON,
    STUDENT,
    Grade,
    Who,
    exported,
    verdict_of,
)
from hwsync.protocol.record import Outcome
from tests.support.graded import FAULT, RIGHT, WRONG, Row, graded, row, verdict


def counts(grade: Grade) -> tuple[int, int, int, int]:
    return grade.attempts, grade.waiting, grade.lab_failed, grade.analyser_failed


# -- what is an attempt ----------------------------------------------------------------------------

ATTEMPT, WAITING, LAB, ANALYSER = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)
LABS = {
    ("expired", "no"), ("lost", "maybe"), ("interrupted", "maybe"), ("rejected", "no"),
    ("cancelled", "no"), ("cancelled", "maybe"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "ran"), [(str(one), ran) for one in Outcome for ran in ("yes", "no", "maybe")]
)
def test_what_failed_for_the_labs_reasons_is_no_attempt(outcome: str, ran: str) -> None:
    for verdicts in ((), (RIGHT,), (WRONG,), (FAULT,), (verdict(None, passed=True),)):
        (grade,) = graded([row(*verdicts, outcome=outcome, ran=ran)])
        of_lab = outcome in {name for name, _ in LABS} - {"cancelled"} or (outcome, ran) in LABS
        if of_lab:
            expected = LAB
        elif not verdicts:
            expected = WAITING
        else:
            expected = ANALYSER if verdicts == (FAULT,) else ATTEMPT
        assert counts(grade) == expected, verdicts
        assert (grade.attempt is not None) is (expected == ATTEMPT)


@pytest.mark.parametrize(
    ("verdicts", "what", "word"),
    [
        ((), WAITING, "waiting"),
        ((RIGHT,), ATTEMPT, "passed"),
        ((WRONG,), ATTEMPT, "failed"),
        ((verdict(passed=True),), ATTEMPT, "passed"),  # no score
        ((verdict(score=0.0),), ATTEMPT, "scored"),  # 0 is one
        ((verdict(message="well done"),), WAITING, "waiting"),  # words judge nothing
        ((verdict(None, message="ok: exit 0 in 0.10 s"),), WAITING, "waiting"),
        ((FAULT,), ANALYSER, "none"),
        ((FAULT, FAULT), ANALYSER, "none"),
        ((FAULT, verdict(message="words")), ANALYSER, "none"),
        ((FAULT, WRONG), ATTEMPT, "failed"),
        ((verdict(fault="it failed", passed=False, score=0.0),), ANALYSER, "none"),
    ],
)
def test_a_run_is_judged_by_whoever_says_what_it_is_worth(
    verdicts: tuple[Row, ...], what: tuple[int, ...], word: str
) -> None:
    (grade,) = graded([row(*verdicts)])
    assert (counts(grade), grade.verdict) == (what, word)


@pytest.mark.parametrize("verdicts", [(), (RIGHT,), (FAULT,)])
def test_what_has_not_ended_waits(verdicts: tuple[Row, ...]) -> None:
    (grade,) = graded([row(*verdicts, outcome=None, ran=None)])
    assert (counts(grade), grade.verdict) == (WAITING, "waiting")


def test_who_has_only_runs_that_do_not_count_is_shown() -> None:
    lost = row(number=1, by="bert", outcome="lost", ran="maybe")
    grades = graded([lost, row(number=2, by="carl"), row(RIGHT, number=3)])
    assert [(one.who.name, one.verdict) for one in grades] == [
        ("anna", "passed"), ("bert", "none"), ("carl", "waiting"),
    ]  # fmt: skip
    assert [one.attempt is None for one in grades] == [False, True, True]


# -- which verdict ---------------------------------------------------------------------------------

OLD = verdict(passed=False, score=0.2)
NEW = verdict(passed=True, score=0.9, time=2.0, version="v2")
OTHER = verdict("check2", passed=True, score=0.5, time=3.0)
HAND = verdict(None, passed=False)


@pytest.mark.parametrize(
    ("verdicts", "analyser", "counts"),
    [
        ((OLD, NEW), None, NEW),
        ((OLD, {**NEW, "time": 0.5}), None, {**NEW, "time": 0.5}),  # the clock was set back
        ((OLD, {**NEW, "fault": "crash"}), None, OLD),
        ((OLD, {**NEW, "passed": None, "score": None}), None, OLD),
        ((HAND, OLD, NEW), None, HAND),  # a person's first stays
        (({**HAND, "passed": None}, OLD), None, OLD),  # his words alone do not
        ((OLD, NEW, OTHER), None, OTHER),
        ((OLD, NEW, OTHER), "check1", NEW),
        ((HAND, OLD), "check1", OLD),
        ((OLD, OTHER), "check2", OTHER),
        ((HAND, OLD), "check3", None),
        (({**OTHER, "fault": "crash"}, OLD), "check2", None),
        ((), None, None),
    ],
)
def test_the_verdict_that_counts(
    verdicts: tuple[Row, ...], analyser: str | None, counts: Row | None
) -> None:
    assert verdict_of(row(*verdicts), analyser) == counts


def test_an_analyser_that_is_named_is_the_only_one_that_counts() -> None:
    failed = row({**OTHER, "fault": "crash"}, number=2)
    (grade,) = graded([row(OLD, number=1), failed, row(number=3), row(OTHER, number=4)],
                      analyser="check2")  # fmt: skip
    assert counts(grade) == (1, 2, 0, 1)
    assert grade.attempt is not None
    assert (grade.attempt.id, grade.attempt.judge) == ("c4", "check2")


def test_that_another_analyser_failed_says_nothing_of_the_one_that_is_named() -> None:
    (grade,) = graded([row(FAULT)], analyser="check2")
    assert (counts(grade), grade.verdict) == (WAITING, "waiting")


@pytest.mark.parametrize(
    ("passed", "score", "least", "word"),
    [
        (False, 0.5, 0.5, "passed"),
        (True, 0.49, 0.5, "failed"),
        (None, 0.7, 0.5, "passed"),
        (True, None, 0.5, "passed"),  # without a score its own word counts
        (False, None, 0.0, "failed"),
        (False, 0.0, 0.0, "passed"),
        (None, 0.7, None, "scored"),
    ],
)
def test_the_score_that_passes(
    passed: bool | None, score: float | None, least: float | None, word: str
) -> None:
    (grade,) = graded([row(verdict(passed=passed, score=score))], least=least)
    assert grade.verdict == word


# -- best and last ---------------------------------------------------------------------------------

WORTH = [  # each better than the one before
    verdict(passed=False), verdict(passed=False, score=0.0), verdict(passed=False, score=0.9),
    verdict(score=0.1), verdict(score=0.8), verdict(passed=True), verdict(passed=True, score=0.3),
    verdict(passed=True, score=1.0),
]  # fmt: skip


def test_the_best_counts_whatever_came_when() -> None:
    for first, second in itertools.permutations(range(len(WORTH)), 2):
        (grade,) = graded([row(WORTH[first], number=1), row(WORTH[second], number=2)])
        assert grade.attempt is not None
        assert grade.attempt.number == (1 if first > second else 2)


def test_of_equally_good_ones_the_first_counts() -> None:
    (grade,) = graded(row(RIGHT, number=number) for number in (2, 1, 3))
    assert grade.attempt is not None
    assert (grade.attempt.number, grade.attempts) == (1, 3)


def test_the_last_attempt_is_not_the_last_run() -> None:
    runs = [row(RIGHT, number=1), row(WRONG, number=2), row(FAULT, number=3), row(number=4),
            row(RIGHT, number=5, outcome="lost", ran="maybe")]  # fmt: skip
    (grade,) = graded(runs, last=True)
    assert grade.attempt is not None
    assert (grade.attempt.number, grade.verdict) == (2, "failed")
    assert counts(grade) == (2, 1, 1, 1)


def test_a_boards_own_numbers_count_and_the_clock_only_between_boards() -> None:
    back = [("pi1", row(RIGHT, number=1, issued=900.0)), ("pi1", row(WRONG, number=2, issued=5.0))]
    (grade,) = graded(back, last=True)
    assert grade.attempt is not None
    assert grade.attempt.number == 2  # the clock was set back between them
    (grade,) = graded([*back, ("pi2", row(RIGHT, number=1, issued=6.0))], last=True)
    assert grade.attempt is not None
    assert (grade.attempt.board, grade.verdict) == ("pi2", "passed")
    same = [(board, row(RIGHT, issued=7.0)) for board in ("pi2", "pi1")]
    for last, board in ((False, "pi1"), (True, "pi2")):
        (grade,) = graded(same, last=last)
        assert grade.attempt is not None
        assert grade.attempt.board == board


def test_the_order_of_the_runs_changes_nothing() -> None:
    dice = random.Random(1)
    verdicts = [[], [FAULT], [HAND, NEW], [OLD, NEW], [OTHER], *([one] for one in WORTH)]
    ends = [("ok", "yes"), ("error", "yes"), ("lost", "maybe"), (None, None), ("cancelled", "no")]
    runs = []
    for number in range(400):
        outcome, ran = dice.choice(ends)
        meta = {"student": dice.choice(["s1", "s2"]), "assignment": dice.choice(["a", "b", None])}
        asker = dice.choice([("anna", "reply topic"), ("anna", "claim"), (None, None)])
        runs.append((dice.choice(["pi1", "pi2", "pi3"]), row(
            *dice.choice(verdicts), number=number, meta=meta, outcome=outcome, ran=ran,
            issued=dice.choice([1.0, 2.0, 3.0]), by=asker[0], known_by=asker[1],
        )))  # fmt: skip
    for by, last in itertools.product((ASKER, BOARD, STUDENT, "team"), (True, False)):
        told = graded(runs, by, last=last)
        assert sum(sum(counts(grade)) for grade in told) == len(runs)
        for _ in range(3):
            dice.shuffle(runs)
            assert graded(runs, by, last=last) == told


# -- who -------------------------------------------------------------------------------------------


def test_a_claim_is_not_taken_together_with_what_is_known() -> None:
    runs = [row(WRONG, number=1), row(RIGHT, number=2, known_by="claim"),
            row(RIGHT, number=3, by=None, known_by=None)]  # fmt: skip
    grades = graded(runs)
    assert [(one.who, one.known_by, one.verdict) for one in grades] == [
        (Who("anna"), "reply topic", "failed"),
        (Who("anna", is_claim=True), "claim", "passed"),
        (Who(""), None, "passed"),
    ]
    assert remarks(ASKER, grades)[0] == (
        "* a claim: the request says so, and nobody has checked it"
    )


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({"student": "s07"}, "s07"), ({"student": 7}, "7"), ({"student": "7"}, "7"),
        ({"student": True}, "true"), ({"student": ["a", 1]}, '["a",1]'), ({"student": ""}, ""),
        ({"student": None}, ""), ({"Student": "s07"}, ""), ({}, ""), ([1], ""), ("s07", ""),
        (None, ""), ({"student": " s07\n"}, " s07\n"),
    ],
)  # fmt: skip
def test_a_students_name_is_what_the_request_says(meta: Any, name: str) -> None:
    (grade,) = graded([row(RIGHT, meta=meta)], STUDENT)
    assert grade.who == Who(name, is_claim=bool(name))
    assert grade.known_by == ("claim" if name else None)


def test_a_meta_that_cannot_be_read_says_nothing() -> None:
    (grade,) = graded([{**row(RIGHT), "meta": "{"}], STUDENT)
    assert grade.who == Who("")


def test_boards_are_known() -> None:
    grades = graded([("pi2", row(RIGHT)), ("pi1", row(WRONG))], BOARD)
    assert [(one.who, one.known_by) for one in grades] == [(Who("pi1"), None), (Who("pi2"), None)]
    assert remarks(BOARD, grades) == []


def test_assignments_stand_apart_and_names_as_people_count() -> None:
    runs = [
        row(RIGHT, number=number, meta={"student": name, "assignment": task})
        for number, (name, task) in enumerate(
            [("s10", "lab2"), ("s2", "lab10"), ("s2", "lab2"), (None, "lab2"), ("S3", "lab2"),
             ("s2", None), ("s2", 3)]
        )
    ]  # fmt: skip
    assert [(one.assignment, one.who.name) for one in graded(runs, STUDENT)] == [
        ("3", "s2"), ("lab2", "s2"), ("lab2", "S3"), ("lab2", "s10"), ("lab2", ""),
        ("lab10", "s2"), ("", "s2"),
    ]  # fmt: skip
    by_assignment = graded(runs, "assignment")
    assert [(one.who.name, one.assignment) for one in by_assignment] == [
        ("3", ""), ("lab2", ""), ("lab10", ""), ("", ""),
    ]  # fmt: skip


def test_names_that_differ_in_case_or_spaces_are_shown_as_they_are_and_named() -> None:
    names = ["s07", "S07", "s07 ", "s 07", "s08"]
    grades = graded((row(RIGHT, meta={"student": name}) for name in names), STUDENT)
    assert sorted(one.who.name for one in grades) == sorted(names)
    assert remarks(STUDENT, grades)[-1] == (
        "these differ in case or spaces only: 'S07', 's 07', 's07', 's07 '"
    )


def test_several_askers_of_one_student_and_several_students_of_one_asker_are_named() -> None:
    runs = [
        row(RIGHT, number=1, by="anna", meta={"student": "s07"}),
        row(WRONG, number=2, by="bert", meta={"student": "s07"}),
        row(WRONG, number=3, by="bert", known_by="claim", meta={"student": "s07"}),
        row(RIGHT, number=4, by="anna", meta={"student": "s08"}),
        row(RIGHT, number=5, by="carl"), row(RIGHT, number=6, by="anna"),
    ]  # fmt: skip
    grades = graded(runs, STUDENT)
    assert remarks(STUDENT, grades)[1:] == ["s07: several have asked: anna, bert, bert (claim)"]
    assert remarks(ASKER, graded(runs))[1:] == [
        "anna has asked for several students: s07, s08 (--by student)"
    ]
    assert exported(grades[0])["asked_by"] == ["anna", "bert", "bert (claim)"]


def test_of_many_remarks_a_few_are_said_and_the_others_counted() -> None:
    runs = [
        row(RIGHT, number=number, by=f"a{number % 9}", meta={"student": f"s{number // 9}"})
        for number in range(81)
    ]
    said = remarks(STUDENT, graded(runs, STUDENT))
    assert len(said) == 1 + 5 + 1
    assert said[1] == "s0: several have asked: a0, a1, a2, a3, a4 and 4 more"
    assert said[-1] == "and 4 more like that"


def test_several_analysers_or_versions_are_named() -> None:
    runs = [
        row(RIGHT, number=1, by="anna"), row(RIGHT, number=2, by="bert"),
        row(OTHER, number=3, by="carl"), row(HAND, number=4, by="dora"),
        row(NEW, number=5, by="ede"),
    ]  # fmt: skip
    assert remarks(ASKER, graded(runs)) == [
        "verdicts of several analysers count: check1 (3), check2 (1); --analyser NAME takes one's",
        "check1 has judged in 2 versions; hwsync regrade --analyser check1 judges all with one",
    ]
    assert remarks(ASKER, graded([row(HAND), row(RIGHT, by="bert")])) == []


# -- what is shown ---------------------------------------------------------------------------------


def test_a_line_for_programs_has_every_column_in_its_order() -> None:
    run = row({**NEW, "message": "fine"}, number=3, meta={"assignment": "lab3"})
    (grade,) = graded([run])
    fields = exported(grade)
    assert tuple(fields) == COLUMNS
    assert fields == {
        "who": "anna", "known_by": "reply topic", "assignment": "lab3", "verdict": "passed",
        "passed": True, "score": 0.9, "attempts": 1, "waiting": 0, "lab_failed": 0,
        "analyser_failed": 0, "issued": 103.0, "board": "pi1", "id": "c3", "judged_by": "check1",
        "version": "v2", "message": "fine", "asked_by": ["anna"],
    }  # fmt: skip
    (none,) = graded([row(by=None, known_by=None)])
    assert [name for name, value in exported(none).items() if value is not None] == [
        "verdict", "attempts", "waiting", "lab_failed", "analyser_failed", "asked_by",
    ]  # fmt: skip
    assert exported(none)["asked_by"] == ["(none)"]
    (by_hand,) = graded([row(HAND)])
    assert (exported(by_hand)["judged_by"], exported(by_hand)["version"]) == (PERSON, None)


def test_what_there_is_is_counted_in_a_line() -> None:
    runs = [row(RIGHT, by="a"), row(RIGHT, by="b"), row(WRONG, by="c"), row(by="d"),
            row(FAULT, by="e")]  # fmt: skip
    assert summary(graded(runs)) == "5: 2 passed, 1 failed, 1 waiting, 1 none; judged by check1"
    runs.append(row(OTHER, by="f"))
    assert summary(graded(runs)) == "6: 3 passed, 1 failed, 1 waiting, 1 none"
    assert {grade.verdict for grade in graded(runs)} <= set(grading.WORDS)
