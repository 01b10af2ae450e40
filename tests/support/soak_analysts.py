"""The analysts of a soak, the analyser that both have, and what its judgements must say.

The law: an analysis says itself which run it has judged; the rest is in the database and its log.
Nobody is away so long that a name would not be offered for a minute, so none may be given up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Verb
from hwsync.protocol.wire.schema import read_object
from hwsync.testing.analysis_promises import check_judged
from hwsync.testing.checker import FinalState
from hwsync.testing.history import Json, Judged, Offered, Seen, Violation

ANALYSTS: Final = ("ada", "bob")
ANALYSER: Final = "check"
SHARE: Final = 0.6  # of the programs ask for it
REGRADE_SHARE: Final = 0.2  # of the ends are followed by a regrade
PERSON: Final = "by-hand"  # the version of a regrade that no analyst gave

TEXT: Final = """# number {number}
import hashlib

def analyse(run):
    program = hashlib.sha256(run.program.encode()).hexdigest()[:16]
    data = {{"run": [run.board, run.id], "program": program}}
    return {{"passed": run.outcome == "ok", "message": run.stdout[:40], "data": data}}
"""


def write_analyser(folder: Path, number: int) -> None:
    """Another version of it, in one step: nobody reads half a file."""
    folder.mkdir(exist_ok=True)
    new = folder / ".new"
    new.write_text(TEXT.format(number=number))
    new.rename(folder / f"{ANALYSER}.py")


def judgements(final: FinalState) -> Iterator[Seen]:
    """What was given, by the log; and that somebody offered it all the while."""
    for user, rows in final.logs.items():
        for row in rows:
            if row["command"] != Verb.ANALYSIS or not row["topic"]:
                continue
            fields = read_object(str(row["payload"]).encode()) or {}
            by = fields.get("analyser")
            value = fields.get("analysis", row["payload"])
            yield Judged(
                *(0.0, "the log", user, row["id"]),
                value if isinstance(value, str) else dumps(value),
                (by["name"], by["version"]) if isinstance(by, dict) else None,
                fields.get("regrade") is True,
            )
    yield Offered(-1.0, ANALYSTS[0], (ANALYSER,))


def check_in_the_end(final: FinalState, wall: float) -> list[Violation]:
    """What has come back and asked for it was judged."""
    return check_judged(final.commands, {ANALYSER}, wall)


def analyses_figures(commands: Mapping[tuple[str, str], Json]) -> dict[str, Any]:
    """What is printed of analyses."""
    first, by = Counter[str](), Counter[str]()
    regrades = faults = 0
    for end in commands.values():
        if end["analyser"] == ANALYSER:
            given = end["analysed_by"]
            first["nobody" if given is None else "the analyser"] += 1
            by[given["version"] if given else "-"] += 1
            faults += bool(given and given["fault"])
        regrades += len(end["regrades"])
    return {
        "asked for an analyser": dict(first), "its versions": len(by.keys() - {"-"}),
        "faults of it": faults, "regrades": regrades,
    }  # fmt: skip
