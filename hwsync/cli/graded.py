"""What is said below a table of grades, to whoever takes it for the truth.

The law: it is made of the table alone. Nobody is accused; it is said what the table cannot tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from hwsync.grading import ASKER, BOARD, PERSON, WORDS, Attempt, Grade

MARK: Final = "*"  # behind a name that is a claim
MOST: Final = 5  # of what one remark names


def summary(grades: Iterable[Grade]) -> str:
    """How many have which verdict, such as ``30: 20 passed, 8 failed, 2 waiting``."""
    grades = list(grades)
    counts = Counter(grade.verdict for grade in grades)
    said = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    judges = {grade.attempt.judge for grade in grades if grade.attempt is not None}
    by = f"; judged by {judges.pop()}" if len(judges) == 1 else ""
    return f"{len(grades)}: {said}{by}"


def remarks(by: str, grades: Iterable[Grade]) -> list[str]:
    """What whoever takes the table for the truth must know; each is a line."""
    grades = list(grades)
    said = list[str]()
    if any(grade.who.is_claim for grade in grades):
        said.append(f"{MARK} a claim: the request says so, and nobody has checked it")
    if by not in (ASKER, BOARD):
        several = [grade for grade in grades if grade.who.name and len(grade.askers) > 1]
        said += [
            f"{grade.who.name}: several have asked: {_named(map(str, grade.askers))}"
            for grade in several[:MOST]
        ]
        said += _and_more(several)
    if by == ASKER:
        several = [grade for grade in grades if len(grade.students) > 1]
        said += [
            f"{grade.who} has asked for several students: {_named(grade.students)} (--by student)"
            for grade in several[:MOST]
        ]
        said += _and_more(several)
    said += _alike({grade.who.name for grade in grades if grade.who.name})
    return said + _judges([grade.attempt for grade in grades if grade.attempt is not None])


def judged_by(judges: Iterable[str]) -> str:
    """Whose verdicts there are, where those that are asked for are not."""
    names = sorted(judges)
    return f"there are verdicts of {_named(names)}" if names else "nobody has"


def _alike(names: Iterable[str]) -> list[str]:
    """Names that may be one person's."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault("".join(name.split()).casefold(), []).append(name)
    alike = [some for some in found.values() if len(some) > 1]
    return [
        f"these differ in case or spaces only: {_named(map(repr, some))}" for some in alike[:MOST]
    ] + _and_more(alike)


def _judges(attempts: Iterable[Attempt]) -> list[str]:
    """Where it is not one analyser, in one version, whose verdicts stand beside each other."""
    versions: dict[str, set[str]] = {}
    counts = Counter[str]()
    for attempt in attempts:
        if attempt.judge != PERSON:
            counts[attempt.judge] += 1
            versions.setdefault(attempt.judge, set()).add(attempt.version or "")
    said = list[str]()
    if len(counts) > 1:
        named = _named(f"{name} ({count})" for name, count in counts.most_common())
        said.append(f"verdicts of several analysers count: {named}; --analyser NAME takes one's")
    for name, some in sorted(versions.items()):
        if len(some) > 1:
            said.append(
                f"{name} has judged in {len(some)} versions; hwsync regrade --analyser {name} "
                "judges all with one"
            )
    return said


def _named(names: Iterable[str]) -> str:
    names = list(names)
    left = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {left} more" if left > 0 else "")


def _and_more(some: list[Any]) -> list[str]:
    left = len(some) - MOST
    return [f"and {left} more like that"] if left > 0 else []
