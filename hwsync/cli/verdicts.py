"""What is said of a run's analysis, in words: by whom, passed or not, score and message.

The law: what is no analyst's is shown as it is. A fault of an analyser is said as the analyser's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from hwsync.protocol.analysis import Verdict, cut_message, verdict_of
from hwsync.protocol.wire.analyst import ANALYSED_BY, analysed_by_of

PASSED: Final = {True: "passed", False: "not passed", None: "judged"}


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
