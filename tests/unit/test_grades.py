"""How the table of grades is shown: names that cannot steer a terminal, widths, and CSV."""

from __future__ import annotations

import re
from pathlib import Path

from hwsync.cli import past
from hwsync.cli.grades import WIDEST, csv_lines, said_below, shown
from hwsync.grading import COLUMNS
from tests.support.graded import CLASS, NOW, RIGHT, graded, row, verdict

STUDENT = "student"


def test_each_assignment_has_lines_where_there_are_several() -> None:
    lines = shown("asker", graded([*CLASS, row(RIGHT, by="anna")]), NOW, None)
    assert lines[0].split()[:3] == ["ASKER", "ASSIGNMENT", "VERDICT"]
    assert lines[1].split()[:3] == ["anna", "lab3", "passed"]
    assert lines[-1].split()[:3] == ["anna", "(none)", "passed"]
    by_assignment = shown("assignment", graded(CLASS, "assignment"), NOW, None)
    assert by_assignment[0].split()[:3] == ["ASSIGNMENT", "ASKED", "BY"]
    assert by_assignment[1].startswith("lab3 *      anna, bert +2  passed")


def test_several_analysers_have_a_column() -> None:
    other = row(verdict("check2", passed=True), by="ede")
    head, *lines = shown("asker", graded([row(RIGHT), other]), NOW, None)
    assert head.split()[-2:] == ["JUDGED", "BY"]
    assert [line.split()[-1] for line in lines] == ["check1", "check2"]


def test_the_message_has_the_room_that_is_left() -> None:
    grades = graded(CLASS)
    wide = shown("asker", grades, NOW, 100)
    assert wide[0].endswith("  MESSAGE")
    assert wide[1].endswith("  well done")
    long = graded([row(verdict(passed=True, message="x" * 500))])
    assert [len(line) for line in shown("asker", long, NOW, 90)][1] == 90
    assert "MESSAGE" not in shown("asker", grades, NOW, 80)[0]
    assert shown("asker", long, NOW, None)[1].endswith("x" * 500)  # a pipe has all of it


def test_names_and_messages_steer_nothing_and_push_nothing_away() -> None:
    evil = "\x1b[2J\rs07\u202e\n" + "x" * 100
    said = verdict(passed=True, message="\x1b]0;pwned\x07")
    grades = graded([row(said, meta={"student": evil}, by=evil, known_by="claim")], STUDENT)
    text = "\n".join([*shown(STUDENT, grades, NOW, None), *shown(evil, grades, NOW, 300)])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    assert "\\x1b]0;pwned\\x07" in text
    name = shown(STUDENT, grades, NOW, None)[1].split("  ")[0]
    assert len(name) == WIDEST + len(" *")
    assert name.endswith("… *")


def test_a_score_is_short() -> None:
    scores = [0.0, 1.0, 2 / 3, 0.125, 0.05]
    grades = graded(row(verdict(score=score), by=f"a{n}") for n, score in enumerate(scores))
    told = [line.split()[2] for line in shown("asker", grades, NOW, None)[1:]]
    assert told == ["0", "1", "0.667", "0.125", "0.05"]


def test_below_stands_what_is_no_attempt_where_there_is_one() -> None:
    assert said_below("asker", []) == []
    assert said_below("asker", graded([row(RIGHT)])) == ["1: 1 passed; judged by check1"]
    assert said_below("asker", graded(CLASS))[1:3] == [
        "lab: expired, lost, interrupted, rejected or cancelled before it ran: no attempt",
        "analyser: it failed itself: no attempt",
    ]


def test_a_spreadsheet_computes_nothing() -> None:
    evil = row(verdict(passed=True, message="@x"), meta={"student": "=cmd|' /C calc'!A0",
               "assignment": "+1"}, by="-anna", known_by="claim", issued=NOW)  # fmt: skip
    head, line = csv_lines(graded([evil], STUDENT))
    assert head.split(",") == ["who", *COLUMNS[1:10], "time", *COLUMNS[10:]]
    assert line == (
        "'=cmd|' /C calc'!A0,claim,'+1,passed,True,,1,0,0,0,2025-12-01T14:40:00+00:00,"
        f"{NOW},pi1,c1,check1,v1,'@x,'-anna (claim)"
    )
    assert csv_lines([]) == [head]


def test_the_columns_are_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs/history.md").read_text()
    _, _, text = text.partition("The columns of `--csv`")
    text, _, _ = text.partition("\n## ")
    known = {*COLUMNS, "time"}
    found = [name for name in re.findall(r"`([a-z_]+)`", text) if name in known]
    assert list(dict.fromkeys(found)) != []
    assert known <= set(found)
    assert past.utc(0.0) == "1970-01-01T00:00:00+00:00"
