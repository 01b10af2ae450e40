"""Thirty pupils, ninety submissions, one checker: the table is what each of them has deserved.

Boards are pretended, so that a program that loops, or a board that dies, costs no time; broker,
coordinator and analyst are real.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import pytest

from hwsync.protocol.jsons import dumps
from tests.support.fake_boards import FakeBoards
from tests.support.lab import HWSYNC, Lab, here, standing
from tests.support.mqtt import Watcher
from tests.support.waiting import START_PATIENCE, wait_until

PUPILS: Final = tuple(f"s{number:02}" for number in range(1, 31))
BOARD_OF: Final = {pupil: f"pi{number}" for number, pupil in enumerate(PUPILS, 1)}
ASSIGNMENT: Final = ("--meta", "assignment=lab3")
PATIENCE_S: Final = 90.0  # for ninety runs

LAB3: Final = """\
from hwsync.analysers import Analysis


def analyse(run):
    answer = run.stdout.strip()
    if answer == "boom":
        raise RuntimeError("a mistake of the teacher's")
    if run.outcome != "ok":
        return Analysis(passed=False, score=0, message=f"it ended with {run.outcome}")
    if answer != "42":
        return Analysis(passed=False, score=0.25, message=f"expected 42, and not {answer}")
    return Analysis(passed=True, score=1, message="well done")
"""
KINDER: Final = """\
from hwsync.analysers import Analysis


def analyse(run):
    good = run.outcome == "ok" and run.stdout.strip() in ("42", "42.0")
    return Analysis(passed=good, score=int(good))
"""

# What a pupil hands in, one after the other -> attempts, and the (verdict, score) that counts when
# the best one counts, when the last one does, and by the kinder checker.
PLANS: Final[tuple[tuple[tuple[str, str, str], int, tuple[Any, Any, Any]], ...]] = (
    (
        ("print 41", "fail NameError", "print 42"),
        3, (("passed", 1.0), ("passed", 1.0), ("passed", 1.0)),
    ),
    (
        ("print 42", "print 43", "reject"),
        2, (("passed", 1.0), ("failed", 0.25), ("passed", 1.0)),
    ),
    (
        ("over", "fail ZeroDivisionError", "print 42.0"),
        3, (("failed", 0.25), ("failed", 0.25), ("passed", 1.0)),
    ),
    (
        ("print boom", "print 42", "die"),
        1, (("passed", 1.0), ("passed", 1.0), ("passed", 1.0)),
    ),
    (
        ("deaf", "reject", "die"),
        0, (("none", None), ("none", None), ("none", None)),
    ),
    (
        ("over", "deaf", "fail crash"),
        2, (("failed", 0.0), ("failed", 0.0), ("failed", 0.0)),
    ),
)  # fmt: skip
BEST, LAST, KIND = 0, 1, 2


def plan_of(pupil: str) -> tuple[tuple[str, str, str], int, tuple[Any, Any, Any]]:
    return PLANS[PUPILS.index(pupil) % len(PLANS)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with standing(tmp_path_factory.mktemp("class"), 'class = ["pi*"]\n') as made:
        folder = made.folder / "analysers"
        folder.mkdir()
        (folder / "lab3.py").write_text(LAB3)
        (folder / "kinder.py").write_text(KINDER)
        boards = FakeBoards(made.broker.port, list(BOARD_OF.values()))
        boards.start()
        try:
            yield made
        finally:
            boards.stop()


def hand_in(lab: Lab) -> None:
    """All that the class hands in, and wait until each has ended."""
    with closing(Watcher(lab.broker, "hw/+/status")) as statuses:
        for pupil, board in BOARD_OF.items():
            for number, program in enumerate(plan_of(pupil)[0]):
                request = {
                    "program": program, "id": f"{pupil}-{number}", "analysis": "lab3",
                    "meta": {"assignment": "lab3", "student": pupil}, "queue": True,
                    "timeout": 0.5, "grace": 1.0,
                }  # fmt: skip
                lab.pub("request", dumps(request), user=board)

        def at_rest() -> bool:
            ended = {}
            for message in statuses.messages():
                fields = json.loads(message.payload or b"{}")
                if fields.get("state") == 0 and not fields["queued"]:
                    ended[fields["user"]] = fields["id"]
            return ended == {board: f"{pupil}-2" for pupil, board in BOARD_OF.items()}

        wait_until(at_rest, PATIENCE_S, what="ninety runs that have ended")


def grades(lab: Lab, *options: str) -> dict[str, dict[str, Any]]:
    """The table, by pupil."""
    said = here("grades", *ASSIGNMENT, "--by", "student", "--json", *options,
                HWSYNC_BROKER=lab.url)  # fmt: skip
    assert said.exit_code in (None, 0), said
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    return {line["who"]: line for line in lines}


def expected(which: int) -> dict[str, tuple[int, str, float | None]]:
    return {pupil: (plan_of(pupil)[1], *plan_of(pupil)[2][which]) for pupil in PUPILS}


def summed(table: Mapping[str, dict[str, Any]]) -> dict[str, tuple[int, str, float | None]]:
    return {
        pupil: (line["attempts"], line["verdict"], line["score"]) for pupil, line in table.items()
    }


def regrade(lab: Lab, *options: str) -> Any:
    return here("regrade", *ASSIGNMENT, "--analyser", "kinder", "--dir",
                str(lab.folder / "analysers"), *options, HWSYNC_BROKER=lab.url)  # fmt: skip


def test_a_class_is_graded_and_regraded(lab: Lab) -> None:
    analyst = lab.start(
        [*HWSYNC, "analyst", "--broker", lab.url, "--dir", str(lab.folder / "analysers")],
        name="analyst",
    )
    analyst.wait_for_log("connected to", START_PATIENCE)
    hand_in(lab)

    best = grades(lab)
    assert summed(best) == expected(BEST)
    assert summed(grades(lab, "--last")) == expected(LAST)
    others = {pupil: 3 - plan_of(pupil)[1] for pupil in PUPILS}
    assert {
        pupil: line["lab_failed"] + line["analyser_failed"] for pupil, line in best.items()
    } == others
    assert {pupil for pupil, line in best.items() if line["analyser_failed"]} == {
        pupil for pupil in PUPILS if "print boom" in plan_of(pupil)[0]
    }
    said = here("grades", *ASSIGNMENT, "--by", "student", "--csv", HWSYNC_BROKER=lab.url)
    rows = list(csv.DictReader(io.StringIO(said.stdout)))
    assert [(row["who"], row["verdict"]) for row in rows] == [
        (pupil, expected(BEST)[pupil][1]) for pupil in PUPILS
    ]

    # Looked at first, then done, then done once more: only what should has changed, and once.
    assert regrade(lab, "--dry-run").exit_code in (None, 0)
    assert summed(grades(lab)) == expected(BEST)
    done = regrade(lab)
    assert done.exit_code in (None, 0), done
    after = grades(lab)
    assert {pupil: line["verdict"] for pupil, line in after.items()} == {
        pupil: verdict for pupil, (_, verdict, _) in expected(KIND).items()
    }
    changed = {pupil for pupil in PUPILS if after[pupil]["verdict"] != best[pupil]["verdict"]}
    assert changed == {pupil for pupil in PUPILS if "print 42.0" in plan_of(pupil)[0]}
    again = regrade(lab)
    assert again.exit_code in (None, 0), again
    assert grades(lab) == after

    # What the first checker said has not gone.
    assert summed(grades(lab, "--analyser", "lab3")) == expected(BEST)
