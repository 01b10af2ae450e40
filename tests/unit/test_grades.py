"""How the table of grades is shown: names that cannot steer a terminal, widths, and CSV."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from hwsync.cli import past
from hwsync.cli.grades import WIDEST, csv_lines, said_below, shown
from hwsync.grading import COLUMNS
from hwsync.protocol.record import AnalysedBy
from hwsync.protocol.wire.asking import encode_analysis
from hwsync.protocol.wire.response import encode_collected
from tests.support.coordinator import Lab, request, result
from tests.support.graded import CLASS, NOW, RIGHT, graded, row, verdict
from tests.support.lab import Said, here

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


# -- the command, of a database --------------------------------------------------------------------


def submitted(lab: Lab, id: str, student: str, *analyses: bytes, user: str = "pi1",
              asker: str = "anna", outcome: str = "ok") -> None:  # fmt: skip
    """One run of lab3, judged as its analyses say."""
    lab.clock.now += 1.0
    meta = {"student": student, "assignment": "lab3", "by": f"{student}@laptop"}
    asked = request(id, analysis="check1", meta=meta, reply=f"replies/{asker}/1")
    lab.hear("request", asked, user=user)
    lab.hear("collected", encode_collected(id, "j1", 1), user=user)
    lab.hear("response", result(id, outcome=outcome), user=user)
    for analysis in analyses:
        lab.hear("analysis", analysis, user=user)
    if not analyses:
        lab.hear("reset", b"", user=user)


def says(id: str, name: str, version: str, *, regrade: bool = False, fault: str | None = None,
         **value: object) -> bytes:  # fmt: skip
    return encode_analysis(value, id, AnalysedBy(name, version, fault), regrade=regrade)


def test_a_database_gives_the_grades_of_its_class(tmp_path: Path) -> None:
    with Lab(tmp_path / "h.db") as lab:
        submitted(lab, "a1", "s07", says("a1", "check1", "v1", passed=False, score=0.5))
        submitted(lab, "a2", "s07", says("a2", "check1", "v1", passed=True),
                  says("a2", "check2", "v1", regrade=True, passed=True, score=0.9))  # fmt: skip
        by_hand = encode_analysis({"passed": False, "message": "copied"}, "b1")
        submitted(lab, "b1", "s08", by_hand,
                  says("b1", "check2", "v1", regrade=True, passed=True), asker="bert")  # fmt: skip
        submitted(lab, "b2", "s08", says("b2", "check1", "v1", fault="it crashed"), asker="bert",
                  user="pi2")  # fmt: skip
        submitted(lab, "c1", "s07", asker="carl", user="pi2")
        lab.hear("request", request("d1", meta={"by": "dora"}), user="pi2")
        path = str(lab.path)

        def said(*words: str) -> Said:
            return here("grades", "--db", path, *words)

        told = said("--meta", "assignment=lab3")
        head, anna, bert, carl = (line.split() for line in told.stdout.splitlines())
        assert " ".join(head) == ("ASKER VERDICT SCORE ATTEMPTS OTHERS WHEN RUN JUDGED BY MESSAGE")
        assert (anna[:4], anna[-2:]) == (["anna", "passed", "0.9", "2"], ["a2", "check2"])
        assert bert[:5] == ["bert", "failed", "1", "1", "analyser"]
        assert bert[-4:] == ["b1", "a", "person", "copied"]
        assert carl == ["carl", "waiting", "0", "1", "waiting"]
        assert told.stderr.splitlines() == [
            "3: 1 passed, 1 failed, 1 waiting", "analyser: it failed itself: no attempt",
        ]  # fmt: skip
        students = said("--meta", "assignment=lab3", "--by", "student", "--json", "--last")
        rows = [json.loads(line) for line in students.stdout.splitlines()]
        assert [(row["who"], row["known_by"], row["id"], row["asked_by"]) for row in rows] == [
            ("s07", "claim", "a2", ["anna", "carl"]), ("s08", "claim", "b1", ["bert"]),
        ]  # fmt: skip
        assert "s07: several have asked: anna, carl" in students.stderr.splitlines()
        assert said("--by", "student", "--quiet").stderr == ""
        one = said("--meta", "assignment=lab3", "--analyser", "check1", "--asker", "anna", "--csv")
        (row,) = csv.DictReader(one.stdout.splitlines())
        assert (row["who"], row["passed"], row["score"], row["attempts"], row["version"]) == (
            "anna", "True", "", "2", "v1",
        )  # fmt: skip
        assert "has judged none" not in one.stderr
        misspelt = said("--analyser", "chekc1", "--asker", "anna").stderr.splitlines()
        assert (
            misspelt[-1] == "chekc1 has judged none of these; there are verdicts of check1, check2"
        )
        nobody = said("--analyser", "check1", "--asker", "carl").stderr.splitlines()
        assert nobody[-1] == "check1 has judged none of these; nobody has"
        boards = said("--by", "board", "--pass", "0.95", "pi1", "--json").stdout.splitlines()
        assert [(row["who"], row["verdict"]) for row in map(json.loads, boards)] == [
            ("pi1", "failed")
        ]
        everything = said("--json").stdout.splitlines()
        assert [(row["who"], row["known_by"], row["assignment"])
                for row in map(json.loads, everything)][-1] == ("dora", "claim", None)  # fmt: skip
        nothing = said("--name", "nobody.py")
        assert (nothing.stdout, nothing.exit_code) == ("", 0)
        assert nothing.stderr == "nothing was run, as far as that was asked for\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pass", "2"], "'--pass': 2.0 is not in the range 0<=x<=1"),
        (["--analyser", "Check1"], "--analyser: 'Check1' is no analyser's name"),
        (["--by", ""], "--by is empty"),
        (["--since", "tomorrow"], "'tomorrow' is no time"),
        (["@lab1", "--db", "x.db"], "a file does not say who is in @lab1"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], said: str) -> None:
    told = here("grades", *words)
    assert told.exit_code == 2
    assert said in told.stderr
