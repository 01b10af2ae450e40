"""What an analysis says: the coordinator's own line of it, and a verdict read from any.

The law: an analysis may be any text. Whoever keeps to the convention (docs/protocol.md, section 7)
is understood, and nobody else is guessed at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from hwsync.protocol import limits
from hwsync.protocol.jsons import begins_object, is_number, loads
from hwsync.protocol.record import AnalysedBy, Command, RunReport


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one analysis says by the convention.

    ``name`` and ``version``: the analyser's; both None: a person's, or the line of ``outcome``.
    ``fault``: why the analyser itself failed: then it says nothing of the program.
    """

    name: str | None
    version: str | None
    fault: str | None
    passed: bool | None  # None: it does not say
    score: float | None  # from 0 to 1
    message: str  # for people; what is no object says nothing else
    time: float | None = None  # when it came, by the coordinator's clock; of a regrade


def verdict_of(analysis: str, by: AnalysedBy | None = None, time: float | None = None) -> Verdict:
    """What an analysis says, as it is kept: a text, or compact JSON."""
    passed, score, message = _said(analysis)
    if by is None:
        return Verdict(None, None, None, passed, score, message, time)
    if by.fault is not None:
        return Verdict(by.name, by.version, by.fault, None, None, message, time)
    return Verdict(by.name, by.version, None, passed, score, message, time)


def _said(analysis: str) -> tuple[bool | None, float | None, str]:
    """``passed``, ``score`` and ``message``; what is not of the convention's type is not said."""
    if not begins_object(analysis):
        return None, None, analysis
    try:
        value = loads(analysis)
    except ValueError:
        return None, None, analysis
    if not isinstance(value, dict):
        return None, None, analysis
    passed, score, message = (value.get(key) for key in ("passed", "score", "message"))
    return (
        passed if isinstance(passed, bool) else None,
        _score_of(score),
        message if isinstance(message, str) else "",
    )


def _score_of(value: object) -> float | None:
    return float(cast(float, value)) if _is_score(value) else None


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and is_number(value) and 0 <= value <= 1


def misfit(said: Mapping[str, object]) -> tuple[str, str] | None:
    """The first of the convention's keys whose value is not allowed, and what it can be."""
    passed, score, message = (said.get(key) for key in ("passed", "score", "message"))
    if passed is not None and not isinstance(passed, bool):
        return "passed", "true, false or null"
    if score is not None and not _is_score(score):
        return "score", "a number from 0 to 1, or null"
    if message is not None and not isinstance(message, str):
        return "message", "a text, or null"
    return None


def noted(by: AnalysedBy, analysis: str, *, regrade: bool = False) -> str:
    """What the log says of an analyst's analysis, so that its hashes cover what is kept."""
    sha256 = hashlib.sha256(analysis.encode()).hexdigest()
    note = f"{'regraded' if regrade else 'analysed'} by {by.name} {by.version}, SHA-256 {sha256}"
    return note if by.fault is None else f"{note}; fault: {by.fault}"


def nobody_offers(command: Command) -> str:
    """Why a command has no analysis, where its analyser is an analyst's and none has it."""
    return f"no analyst offers {command.analyser}"


def cut_message(text: str) -> str:
    """The first line of a message that is not blank, as a row of history has it."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line[: limits.HISTORY_MESSAGE]


def outcome_line(report: RunReport) -> str:
    """Such as ``ok: exit 0 in 0.12 s`` or ``lost: no answer within 40 s``."""
    details: list[str] = []
    if report.exit_code is not None:
        details.append(f"exit {report.exit_code}")
    if report.duration is not None:
        details.append(f"in {report.duration:.2f} s")
    line = " ".join(details)
    if report.reason and not report.reason.startswith("exit code"):
        line = f"{report.reason} ({line})" if line else report.reason
    return f"{report.outcome}: {line}" if line else str(report.outcome)
