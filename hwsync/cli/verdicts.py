"""What is said of a run's analysis, in words: by whom, passed or not, score and message.

The law: what is no analyst's is shown as it is. A fault of an analyser is said as the analyser's.
The first analysis stays: a verdict with a slip in it is refused before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from hwsync.protocol.analysis import Verdict, cut_message, misfit, verdict_of
from hwsync.protocol.errors import UsageError
from hwsync.protocol.jsons import begins_object, cut, dumps, loads
from hwsync.protocol.wire.analyst import ANALYSED_BY, analysed_by_of

PASSED: Final = {True: "passed", False: "not passed", None: "judged"}


EXAMPLE: Final = 'such as {"passed": true, "score": 0.8, "message": "nice"}; or words alone'
SHOWN: Final = 60  # characters of a value


def checked(text: str) -> str:
    """An analysis that somebody has typed. Raises ``UsageError``: it begins a verdict, and is none.

    Words alone, and JSON that is no object, are an analysis too.
    """
    if not begins_object(text):
        return text
    try:
        said = loads(text)
    except ValueError as error:
        raise UsageError(f"the analysis is no JSON: {error}", EXAMPLE) from None
    if (wrong := misfit(said)) is not None:
        key, allowed = wrong
        value = cut(dumps(said[key]), SHOWN)
        raise UsageError(f"{key} of the analysis is {value}: it can be {allowed}", EXAMPLE)
    return text


def for_one(line: str, may_judge: bool | None) -> str:
    """What is to be done for an analysis: ``line``, by who may type it; None: nobody says so."""
    if may_judge:
        return line
    if may_judge is None:
        return f"who may judge, such as a teacher, types {line}"
    return "who may judge does so: an analyst, or an operator with that right, such as a teacher"


def words(verdict: Verdict) -> str:
    """``check1 3f0c9a1be2d4: passed, score 0.5: 42 is right``."""
    who = f"{verdict.name} {verdict.version}"
    if verdict.fault is not None:
        return f"{who} failed itself, which says nothing of the program: {verdict.fault}"
    score = "" if verdict.score is None else f", score {verdict.score:g}"
    message = cut_message(verdict.message)
    return f"{who}: {PASSED[verdict.passed]}{score}{f': {message}' if message else ''}"


def who(fields: Mapping[str, Any]) -> str:
    """Whose the analysis is, and whether the analyser failed; empty: no analyst's."""
    by = fields.get("analysed_by")
    if by is None or not ANALYSED_BY.holds(by):
        return ""
    fault = f", which failed itself: {by['fault']}" if by["fault"] else ""
    return f"{by['name']} {by['version']}{fault}"


def first(fields: Mapping[str, Any]) -> str:
    """What a status or a result says of its first analysis; empty: nothing."""
    analysis, by = str(fields.get("server_analysis") or ""), fields.get("analysed_by")
    if by is not None and ANALYSED_BY.holds(by):
        return words(verdict_of(analysis, analysed_by_of(by)))
    if analysis.strip():
        return analysis.rstrip("\n")
    why = fields.get("no_analysis")
    return f"none: {why}" if isinstance(why, str) and why else ""


def regrades(fields: Mapping[str, Any]) -> Iterator[str]:
    """The same of each further one, of a result."""
    for one in fields.get("regrades") or ():
        yield words(verdict_of(one["analysis"], analysed_by_of(one)))
