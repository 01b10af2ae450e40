"""A table of grades out of the history: which runs are attempts, and which verdict counts.

The law: nothing is stored, and no run counts against somebody for what was not his doing. A run
that failed for the lab's reasons, or whose analyser failed, is no attempt; one that nobody has
judged waits. What a request says of itself is a claim, and is never taken together with what is
known. Runs may come in any order: within a board its own numbers count, between boards the clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import KnownBy, Outcome, Ran

ASKER: Final = "asker"
BOARD: Final = "board"
STUDENT: Final = "student"  # the key of ``meta`` for whoever has no account of his own
ASSIGNMENT: Final = "assignment"  # the key of ``meta`` that parts one person's runs
NOBODY: Final = "(none)"  # in the place of a name that is not there
PERSON: Final = "a person"  # no analyser is called so
CLAIMED: Final = " (claim)"

LAB: Final = frozenset({Outcome.EXPIRED, Outcome.LOST, Outcome.INTERRUPTED, Outcome.REJECTED})
"""Outcomes that are the lab's doing, and not the program's."""

Fields = Mapping[str, Any]


# -- one run ---------------------------------------------------------------------------------------


def is_lab_failed(row: Fields) -> bool:
    """Whether it failed for the lab's reasons, or did not run: its program had no fair chance."""
    outcome = row["outcome"]
    return outcome in LAB or (outcome == Outcome.CANCELLED and row["ran"] != Ran.YES)


def verdicts_of(row: Fields) -> Sequence[Fields]:
    """What was said of it: the first analysis, then the others, the oldest first.

    An older coordinator tells of none.
    """
    told: Sequence[Fields] = row.get("verdicts") or ()
    return told


def judges(verdict: Fields) -> bool:
    """Whether it says what a run is worth: a fault does not, and neither do words alone."""
    if verdict["fault"] is not None:
        return False
    return verdict["passed"] is not None or verdict["score"] is not None


def verdict_of(row: Fields, analyser: str | None = None) -> Fields | None:
    """The verdict that counts of a run; None: nobody has judged it.

    A person's first, where there is one; else the newest, which is told last. ``analyser``: the
    newest of that one.
    """
    found: Fields | None = None
    for one in filter(judges, verdicts_of(row)):
        if analyser is None and one["name"] is None:
            return one
        if analyser in (None, one["name"]):
            found = one
    return found


def has_failed(row: Fields, analyser: str | None = None) -> bool:
    """Whether an analyser of it (that one) failed itself."""
    return any(
        one["fault"] is not None and analyser in (None, one["name"]) for one in verdicts_of(row)
    )


def passed_of(verdict: Fields, least: float | None = None) -> bool | None:
    """Whether it is passed; ``least``: the score that passes, where there is a score."""
    score = verdict["score"]
    if least is not None and score is not None:
        return bool(score >= least)
    passed: bool | None = verdict["passed"]
    return passed


def word_of(passed: bool | None) -> str:
    """What such a verdict is called; ``scored``: it has a score, and does not say what passes."""
    return "scored" if passed is None else "passed" if passed else "failed"


def judge_of(verdict: Fields) -> str:
    """Whose it is."""
    return PERSON if verdict["name"] is None else str(verdict["name"])


def meta_of(row: Fields) -> dict[str, Any]:
    """What was kept with it; empty where that is no object, or was too long to be told."""
    try:
        meta = loads(row["meta"]) if row["meta"] else None
    except ValueError:
        meta = None
    return meta if isinstance(meta, dict) else {}


def text_of(value: object) -> str:
    """A value of ``meta`` as a name: a text as it is, so that ``7`` and ``"7"`` are the same."""
    if value is None:
        return ""
    return value if isinstance(value, str) else dumps(value)


@dataclass(frozen=True, slots=True, order=True)
class Who:
    """Somebody, or something; a claim is never the same as what is known."""

    name: str
    is_claim: bool = False

    def __str__(self) -> str:
        return f"{self.name or NOBODY}{CLAIMED if self.is_claim else ''}"


def asker_of(row: Fields) -> Who:
    """Who asked for it, and whether that is his own word only."""
    name = row["by"] or ""
    return Who(name, is_claim=bool(name) and row["known_by"] != KnownBy.REPLY_TOPIC)


# -- lines -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that counts, with the verdict that counts of it."""

    board: str
    number: int
    issued: float
    id: str
    passed: bool | None
    score: float | None
    judge: str
    version: str | None
    message: str

    @property
    def worth(self) -> tuple[int, float]:
        """What is more is better: first whether it is passed, then its score, where it has one."""
        rank = {True: 2, None: 1, False: 0}[self.passed]
        return rank, -1.0 if self.score is None else self.score

    def beats(self, other: Attempt, *, last: bool) -> bool:
        """Whether this one counts of the two; of equally good ones it is the earlier."""
        if not last and self.worth != other.worth:
            return self.worth > other.worth
        if self.board == other.board:
            is_later = self.number > other.number
        else:
            is_later = (self.issued, self.board) > (other.issued, other.board)
        return is_later is last


@dataclass(slots=True)
class Line:
    """What one has done, of one assignment."""

    who: Who
    assignment: str
    attempts: int = 0
    waiting: int = 0
    lab_failed: int = 0
    analyser_failed: int = 0
    askers: set[Who] = field(default_factory=set)
    students: set[str] = field(default_factory=set)
    on_board: dict[str, Attempt] = field(default_factory=dict)  # that counts there

    def attempt(self, *, last: bool) -> Attempt | None:
        """The one that counts. Boards are compared at the end: by numbers and the clock in turn
        three attempts might each beat the next.
        """
        counts: Attempt | None = None
        for attempt in self.on_board.values():
            if counts is None or attempt.beats(counts, last=last):
                counts = attempt
        return counts


@dataclass(frozen=True, slots=True)
class Grade:
    """A line as it is shown. ``attempt``: the one that counts."""

    who: Who
    known_by: str | None
    assignment: str
    attempts: int
    waiting: int
    lab_failed: int
    analyser_failed: int
    attempt: Attempt | None
    askers: tuple[Who, ...]
    students: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """``passed``, ``failed``, ``scored``; ``waiting`` or ``none`` where there is none."""
        if self.attempt is not None:
            return word_of(self.attempt.passed)
        return "waiting" if self.waiting else "none"


WORDS: Final = ("passed", "failed", "scored", "waiting", "none")
"""Every ``Grade.verdict``, the best first."""


class Grades:
    """The table, made of runs one after the other.

    ``by``: ``asker``, ``board``, or a key of ``meta``. ``analyser``: only its verdicts count.
    ``last``: the last attempt counts, not the best. ``least``: the score that passes.

        grades = Grades("student")
        for board, row in told.rows:
            grades.add(board, row)
        print([(grade.who.name, grade.verdict) for grade in grades.lines()])
    """

    def __init__(
        self, by: str = ASKER, *, analyser: str | None = None, last: bool = False,
        least: float | None = None,
    ) -> None:  # fmt: skip
        self.by, self.analyser, self.last, self.least = by, analyser, last, least
        self._lines: dict[tuple[Who, str], Line] = {}
        self.judges = set[str]()  # who has judged or failed, of whatever counts

    @property
    def unheard(self) -> bool:
        """Whether its analyser has said nothing of any run, such as one whose name is misspelt."""
        return self.analyser is not None and self.analyser not in self.judges

    def add(self, board: str, row: Fields) -> None:
        """One run, as the history tells it."""
        meta, asker = meta_of(row), asker_of(row)
        who = self._who(board, asker, meta)
        assignment = "" if self.by == ASSIGNMENT else text_of(meta.get(ASSIGNMENT))
        line = self._lines.setdefault((who, assignment), Line(who, assignment))
        line.askers.add(asker)
        if student := text_of(meta.get(STUDENT)):
            line.students.add(student)
        self.judges |= {judge_of(one) for one in verdicts_of(row) if one["fault"] or judges(one)}
        verdict = verdict_of(row, self.analyser)
        if row["outcome"] is None:
            line.waiting += 1
        elif is_lab_failed(row):
            line.lab_failed += 1
        elif verdict is not None:
            line.attempts += 1
            attempt = self._attempt(board, row, verdict)
            known = line.on_board.get(board)
            if known is None or attempt.beats(known, last=self.last):
                line.on_board[board] = attempt
        elif has_failed(row, self.analyser):
            line.analyser_failed += 1
        else:
            line.waiting += 1

    def _who(self, board: str, asker: Who, meta: Fields) -> Who:
        if self.by == ASKER:
            return asker
        if self.by == BOARD:
            return Who(board)
        name = text_of(meta.get(self.by))
        return Who(name, is_claim=bool(name))

    def _attempt(self, board: str, row: Fields, verdict: Fields) -> Attempt:
        return Attempt(
            board, row["number"], row["issued"], row["id"], passed_of(verdict, self.least),
            verdict["score"], judge_of(verdict), verdict["version"], verdict["message"],
        )  # fmt: skip

    def lines(self) -> list[Grade]:
        """By assignment, then by name, as people count; what has no name stands last."""
        grades = [
            Grade(
                line.who, self._known_by(line.who), line.assignment, line.attempts, line.waiting,
                line.lab_failed, line.analyser_failed, line.attempt(last=self.last),
                tuple(sorted(line.askers)), tuple(sorted(line.students)),
            )
            for line in self._lines.values()
        ]  # fmt: skip
        return sorted(grades, key=_place)

    def _known_by(self, who: Who) -> str | None:
        if who.is_claim:
            return str(KnownBy.CLAIM)
        return str(KnownBy.REPLY_TOPIC) if self.by == ASKER and who.name else None


def _place(grade: Grade) -> tuple[Any, ...]:
    return (
        not grade.assignment, _counting(grade.assignment), grade.assignment,
        not grade.who.name, _counting(grade.who.name), grade.who,
    )  # fmt: skip


def _counting(text: str) -> list[tuple[int, str]]:
    """So that s2 stands before s10: a name's parts, those that are numbers as numbers."""
    parts = re.split(r"([0-9]{1,18})", text.casefold())
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)]


# -- for programs ----------------------------------------------------------------------------------

COLUMNS: Final = (
    *("who", "known_by", "assignment", "verdict", "passed", "score", "attempts", "waiting"),
    *("lab_failed", "analyser_failed", "issued", "board", "id", "judged_by", "version"),
    *("message", "asked_by"),
)
"""Of a line, in their order (docs/history.md)."""


def exported(grade: Grade) -> dict[str, Any]:
    """Its ``COLUMNS``."""
    attempt = grade.attempt
    fields: dict[str, Any] = {
        "who": grade.who.name or None,
        "known_by": grade.known_by,
        "assignment": grade.assignment or None,
        "verdict": grade.verdict,
        "attempts": grade.attempts,
        "waiting": grade.waiting,
        "lab_failed": grade.lab_failed,
        "analyser_failed": grade.analyser_failed,
        "asked_by": [str(asker) for asker in grade.askers],
    }
    if attempt is not None:
        fields |= {
            "passed": attempt.passed,
            "score": attempt.score,
            "issued": attempt.issued,
            "board": attempt.board,
            "id": attempt.id,
            "judged_by": attempt.judge,
            "version": attempt.version,
            "message": attempt.message,
        }
    return {name: fields.get(name) for name in COLUMNS}
