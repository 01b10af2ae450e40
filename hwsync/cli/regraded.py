"""What a regrade does with each run, and the table of it: old and new beside each other.

The law: whether a run is judged anew is decided here, of what is stored alone, and so is what that
changes: the verdict that counts (``hwsync.grading``), not whether one was added. Whatever is passed
over is counted with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsync.cli.columns import table
from hwsync.grading import (
    asker_of,
    is_lab_failed,
    judge_of,
    passed_of,
    verdict_of,
    verdicts_of,
    word_of,
)
from hwsync.protocol import analysis
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import AnalysedBy
from hwsync.protocol.wire.history import verdict_json

OPEN: Final = "not ended"
LAB: Final = "failed for the lab's reasons, or never ran"
HAD: Final = "had it already"
FAILED: Final = "had it already, and the analyser failed then: change it, and it is a new version"
DROPPED: Final = "output was dropped (--keep-days)"
CORRECTED: Final = "result came late, while it was judged: the same command again judges it"
GONE: Final = "files are not kept any more"
HEADS: Final = ("BOARD", "RUN", "ASKER", "OLD", "NEW", "")
CHANGED: Final = "changed"
MOST_HEARD: Final = 10  # runs of which it is shown what the analyser printed

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """The analyser that judges, as it is now."""

    name: str
    version: str

    def is_of(self, said: Fields | None) -> bool:
        """Whether an analysis is of it."""
        said = said or {}
        return (said.get("name"), said.get("version")) == (self.name, self.version)


def why_not(row: Fields, by: Version) -> str | None:
    """Why a run is passed over, by its row of the history; None: it is looked at."""
    if row["outcome"] is None:
        return OPEN
    if is_lab_failed(row):
        return LAB
    return _had(verdicts_of(row), by)


def why_not_stored(result: Fields, gone: Iterable[str], by: Version) -> str | None:
    """The same, by all that is stored of it; ``gone``: files that nobody has any more."""
    if result["outcome"] is None:
        return OPEN
    had = _had([result.get("analysed_by") or {}, *(result.get("regrades") or ())], by)
    if had is not None or is_lab_failed(result):
        return had or LAB
    if result["pruned"]:
        return DROPPED
    return GONE if any(gone) else None


def _had(told: Iterable[Fields], by: Version) -> str | None:
    for one in filter(by.is_of, told):
        return HAD if one.get("fault") is None else FAILED
    return None


@dataclass(frozen=True, slots=True)
class Regraded:
    """One run, judged anew. ``old``: the verdict that counted; None: there was none.

    ``printed`` is for whoever has written the analyser, and is published nowhere.
    """

    board: str
    id: str
    asker: str
    old: Fields | None
    new: Fields
    is_changed: bool
    printed: tuple[str, ...] = ()  # the last lines that the analyser printed

    @property
    def fault(self) -> str | None:
        """Why the analyser failed; then nothing was said of the run."""
        fault: str | None = self.new["fault"]
        return fault


def regraded(
    board: str, row: Fields, value: Any, by: Version, fault: str | None,
    printed: Iterable[str] = (),
) -> Regraded:  # fmt: skip
    """What an analysis of it, which is any JSON, makes of a run."""
    text = value if isinstance(value, str) else dumps(value)
    said = verdict_json(analysis.verdict_of(text, AnalysedBy(by.name, by.version, fault)))
    old = verdict_of(row)
    counts = verdict_of({**row, "verdicts": [*verdicts_of(row), said]})
    changed = _worth(old) != _worth(counts)
    return Regraded(board, row["id"], str(asker_of(row)), old, said, changed, tuple(printed))


def _worth(verdict: Fields | None) -> tuple[bool | None, float | None] | None:
    return None if verdict is None else (passed_of(verdict), verdict["score"])


def told(verdict: Fields | None) -> str:
    """A verdict in a few words, such as ``failed 0.4 (check1)``."""
    if verdict is None:
        return "-"
    if verdict["fault"] is not None:
        return f"- ({verdict['fault']})"
    passed, score = passed_of(verdict), verdict["score"]
    if passed is score is None:
        return "no verdict"
    points = "" if score is None else f" {score:.3g}"
    return f"{word_of(passed)}{points} ({judge_of(verdict)})"


def exported(one: Regraded) -> dict[str, Any]:
    """One of them, for programs."""
    fields = {"board": one.board, "id": one.id, "asker": one.asker}
    judged = {"old": one.old, "new": one.new, "changed": one.is_changed}
    return {**fields, **judged, "printed": list(one.printed)}


def shown(runs: Iterable[Regraded]) -> list[str]:
    """The table; what changed is marked."""
    rows = [
        (
            *(one.board, one.id, one.asker, told(one.old), told(one.new)),
            CHANGED if one.is_changed else "",
        )
        for one in runs
    ]
    return table(HEADS, rows) if rows else []


def heard(runs: Iterable[Regraded]) -> list[str]:
    """What the analyser printed of each; of the first ones, where there are many."""
    some = [one for one in runs if one.printed]
    lines = []
    for one in some[:MOST_HEARD]:
        lines += [f"printed of {one.board} {one.id}:", *(f"  | {line}" for line in one.printed)]
    if left := len(some) - MOST_HEARD:
        lines += [f"and of {left} more: name one, such as --last 1"] if left > 0 else []
    return lines


def summary(
    runs: Iterable[Regraded], passed_over: Counter[str], by: Version, *, dry: bool
) -> list[str]:
    """How many there were of each; each is a line."""
    runs = list(runs)
    done = [one for one in runs if one.fault is None]
    failed, changed = len(runs) - len(done), sum(one.is_changed for one in done)
    would = "would be " if dry else ""
    lines = [f"{len(done)} {would}judged by {by.name} {by.version}: {changed} changed"]
    if failed:
        lines.append(f"{failed} not judged: the analyser failed, and nothing was said of them")
    lines += [f"{count} passed over: {why}" for why, count in sorted(passed_over.items())]
    if dry:
        lines.append("nothing was published (--dry-run)")
    return lines
