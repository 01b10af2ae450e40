"""Rows of the history with verdicts, as ``hwsync grades`` is told them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hwsync.grading import ASKER, Grade, Grades
from hwsync.protocol.jsons import dumps

Row = dict[str, Any]
NOW: Final = 1_764_600_000.0


def verdict(name: str | None = "check1", **fields: Any) -> Row:
    """One of an analyser; None: of a person."""
    made = {
        "name": name, "version": None if name is None else "v1", "fault": None, "passed": None,
        "score": None, "message": "", "time": None,
    }  # fmt: skip
    return {**made, **fields}


RIGHT: Final = verdict(passed=True, score=1.0)
WRONG: Final = verdict(passed=False, score=0.0)
FAULT: Final = verdict(fault="it crashed")


def row(*verdicts: Row, number: int = 1, meta: Any = None, **fields: Any) -> Row:
    """A run of anna's that ended well, with these verdicts."""
    made = {
        "id": f"c{number}", "number": number, "issued": 100.0 + number, "by": "anna",
        "known_by": "reply topic", "outcome": "ok", "ran": "yes", "verdicts": list(verdicts),
        "meta": "" if meta is None else dumps(meta),
    }  # fmt: skip
    return {**made, **fields}


def graded(rows: Iterable[Row | tuple[str, Row]], by: str = ASKER, **options: Any) -> list[Grade]:
    """The table of them; those without a board are of pi1."""
    grades = Grades(by, **options)
    for one in rows:
        grades.add(*(one if isinstance(one, tuple) else ("pi1", one)))
    return grades.lines()


def _of(who: str, number: int, *verdicts: Row, student: str = "", **fields: Any) -> Row:
    made = {"by": who, "id": f"cli-{number:016x}", "issued": NOW - 3_600 + 60 * number}
    meta = {"assignment": "lab3"} | ({"student": student} if student else {})
    return row(*verdicts, number=number, meta=meta, **{**made, **fields})


CLASS: Final = (
    _of("anna", 1, verdict(passed=False, score=0.4, message="mean: 3, not 4"), student="s07"),
    _of("anna", 2, verdict(passed=True, score=1.0, message="well done"), student="s07"),
    _of("bert", 3, WRONG, student="s08"),
    _of("bert", 4, student="s08", outcome="lost", ran="maybe"),
    _of("bert", 5, RIGHT, student="s07"),
    _of("carl", 6, outcome=None, ran=None),
    _of("dora", 7, FAULT, known_by="claim", student="s10"),
)
"""What a class has done in an evening."""
