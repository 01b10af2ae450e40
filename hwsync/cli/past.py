"""What was run, for people and for spreadsheets: the lines of ``history`` and ``export``."""

from __future__ import annotations

import csv
import datetime
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from hwsync.cli import say
from hwsync.cli.sources import Rows
from hwsync.grading import has_failed, judge_of, verdict_of, word_of
from hwsync.logs import escape
from hwsync.protocol.record import State
from hwsync.protocol.wire.history import Row

OPEN: Final = {
    State.REST: "queued", State.REQUESTED: "waiting", State.COLLECTED: "running",
    State.RETURNED: "returned",
}  # fmt: skip
"""What stands for the outcome of what has not ended."""

# -- lines -----------------------------------------------------------------------------------------

HEADER: Final = (
    *("WHEN", "BOARD", "BY", "NAME", "OUTCOME", "EXIT", "TIME", "VERDICT", "ID"),
    "OUTPUT",
)
WIDEST: Final = (19, 16, 12, 20, 11, 4, 8, 12, 24)  # characters of each column but the last
LEAST_OUTPUT: Final = 12  # characters of the last one, before others give way
LEAST_NAME: Final = 8  # and of the program's name


def when(seconds: float, now: float) -> str:
    """A time of day on this machine; without the date where it is today's."""
    then, today = time.localtime(seconds), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M:%S", then)
    return time.strftime("%m-%d %H:%M" if then[0] == today[0] else "%Y-%m-%d %H:%M", then)


def took(seconds: float | None) -> str:
    """How long a program ran, in few characters."""
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:,.0f} s"


def outcome_of(row: Mapping[str, Any]) -> str:
    """The outcome; of what has none, where it stands."""
    return str(row["outcome"] or OPEN[State(row["state"])])


def verdict_in_short(row: Row) -> str:
    """Such as ``passed 0.9``; ``fault``: its analyser failed; empty where nobody has judged it."""
    verdict = verdict_of(row)
    if verdict is None:
        return "fault" if has_failed(row) else ""
    score = verdict["score"]
    return word_of(verdict["passed"]) + ("" if score is None else f" {score:.3g}")


def _cells(user: str, row: Row, now: float) -> tuple[str, ...]:
    code = row["exit_code"]
    cells = (
        when(row["issued"], now), user, row["by"] or "", row["name"], outcome_of(row),
        "" if code is None else str(code), took(row["duration"]), verdict_in_short(row), row["id"],
        row["line"] or row["reason"],
    )  # fmt: skip
    return tuple(map(escape, cells))


def table(rows: Rows, now: float, width: int | None) -> Iterator[str]:
    """One line a run; ``width``: of a terminal, which has a header and whole lines; None: a pipe.

    A column that nobody has anything in is left out. The rows are gone through twice.
    """
    longest = [0] * len(HEADER)
    for user, row in rows:
        for number, cell in enumerate(_cells(user, row, now)):
            longest[number] = max(longest[number], len(cell))
    used = [number for number, most in enumerate(longest) if most]
    if width is not None:
        longest = [max(most, len(name)) for most, name in zip(longest, HEADER, strict=True)]
    widths = {
        number: min(longest[number], WIDEST[number])
        for number in used[:-1] if number < len(WIDEST)
    }  # fmt: skip
    if width is not None and used:
        # Where the last one has no room, these give way, and then the program's name.
        last = LEAST_OUTPUT if HEADER[used[-1]] == "OUTPUT" else longest[used[-1]]
        room = width - last
        for number in map(HEADER.index, ("BY", "TIME", "EXIT", "VERDICT")):
            if _too_wide(widths, room) > 0 and number in widths:
                used = [one for one in used if one != number]
                del widths[number]
        name = HEADER.index("NAME")
        if name in widths:
            widths[name] = max(widths[name] - max(_too_wide(widths, room), 0), LEAST_NAME)
        yield _line(HEADER, used, widths, width)
    for user, row in rows:
        yield _line(_cells(user, row, now), used, widths, width)


def _too_wide(widths: Mapping[int, int], room: int) -> int:
    return sum(widths.values()) + 2 * len(widths) - room


def _line(
    cells: Sequence[str], used: Sequence[int], widths: Mapping[int, int], width: int | None
) -> str:
    said = "  ".join(
        _cut(cells[number], widths[number]).ljust(widths[number])
        if number in widths
        else cells[number]
        for number in used
    ).rstrip()
    return said if width is None else _cut(said, width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


# -- export ----------------------------------------------------------------------------------------

COLUMNS: Final = (
    *("time", "board", "id", "number", "issued", "by", "known_by", "name", "outcome", "ran"),
    *("reason", "exit_code", "started", "duration", "files", "analysis", "meta", "line"),
    *("passed", "score", "judged_by"),
    *("clock_bound", "ran_on"),
)
"""Of ``export``, in their order (docs/history.md)."""
END: Final = "\r\n"  # of a line of CSV; a cell that has one of these is quoted
FORMULA: Final = "=+-@\t\r"  # how a cell begins that a spreadsheet would compute


def say_exported(line: str, end: str) -> None:
    """A line for a program, as it is; a terminal is not steered."""
    if sys.stdout is not None and not sys.stdout.isatty():
        say.program(f"{line}{end}", sys.stdout, as_it_is=True)
    else:
        say.line(line)


def utc(seconds: float) -> str:
    """A time in UTC, as ISO 8601 writes it."""
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return at.isoformat(timespec="seconds")


def exported(user: str, row: Row) -> dict[str, Any]:
    """The columns of one run."""
    fields: dict[str, Any] = {**row, "board": user, "time": utc(row["issued"])}
    fields |= dict.fromkeys(("passed", "score", "judged_by"))
    if (verdict := verdict_of(row)) is not None:
        judge = judge_of(verdict)
        fields |= {"passed": verdict["passed"], "score": verdict["score"], "judged_by": judge}
    return {name: fields.get(name) for name in COLUMNS}


def as_jsonl(user: str, row: Row) -> str:
    """One JSON object."""
    return json.dumps(exported(user, row), allow_nan=False, separators=(",", ":"))


def as_csv(values: Iterable[object]) -> str:
    """One line of CSV (RFC 4180), without its end; a text that looks like a formula is quoted."""
    written = io.StringIO()
    csv.writer(written, lineterminator=END).writerow([_cell(value) for value in values])
    return written.getvalue().removesuffix(END)


def _cell(value: object) -> object:
    if isinstance(value, list | tuple):
        value = ";".join(map(str, value))
    if isinstance(value, dict):
        value = json.dumps(value, separators=(",", ":"))
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple(FORMULA) else value
