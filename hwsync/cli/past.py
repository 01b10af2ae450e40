"""What was run: the rows of ``history`` and ``export``, and where they come from.

The law: it is asked for over MQTT, by whatever account the operator has; the database is read only
where ``--db`` names it, and gives the same rows.
"""

from __future__ import annotations

import csv
import datetime
import heapq
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from hwsync.cli import say
from hwsync.cli.common import Settings
from hwsync.cli.names import known_to
from hwsync.cli.spool import Spool
from hwsync.grading import has_failed, judge_of, verdict_of, word_of
from hwsync.logs import escape
from hwsync.operator.client import Client
from hwsync.operator.conversation import EVERYBODY
from hwsync.operator.history import Answers, Filters, tell_pages
from hwsync.protocol import limits
from hwsync.protocol.errors import NotFound
from hwsync.protocol.history import Wanted, chooser
from hwsync.protocol.record import Reply, State
from hwsync.protocol.wire.history import Page, Row

if TYPE_CHECKING:
    from hwsync.store.past import Past

SLOW_ROWS: Final = 1_000  # rows, from which on it is said how far it is
OPEN: Final = {
    State.REST: "queued", State.REQUESTED: "waiting", State.COLLECTED: "running",
    State.RETURNED: "returned",
}  # fmt: skip
"""What stands for the outcome of what has not ended."""


class Rows(Protocol):
    """(board, row), the newest last; it can be gone through as often as one likes."""

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Each of them, read when it is asked for."""


@dataclass(frozen=True, slots=True)
class Told:
    """Rows, each with its board, the newest last; ``own``: they are the asker's own only."""

    rows: Rows
    own: bool = False


def over_mqtt(settings: Settings, users: Sequence[str], filters: Filters) -> Told:
    """Of these boards; of all that there are, where none is named. Raises ``HwsyncError``."""
    url, count = settings.url, 0
    answers, spool = Answers(url.username), Spool(filters.last)

    def tell(page: Page) -> None:
        nonlocal count
        spool.add(page["user"], page["rows"])
        count += len(page["rows"])
        if count >= SLOW_ROWS:
            say.progress(f"{count:,} rows … ")

    with Client(url, settings.topics, EVERYBODY, named=users, answers=answers) as client:
        if not users:
            users, _ = known_to(client)
        if not users:
            raise NotFound("nobody has been seen yet", "hwsync status lists the boards")
        tell_pages(client, users, answers, filters, tell)
    if count >= SLOW_ROWS:
        say.progress("")
    return Told(spool, own=answers.everybody is False)


def of_database(path: Path, users: Sequence[str], filters: Filters) -> Told:
    """The same from a file. Raises ``DatabaseError``."""
    file = _OfFile(path, users, filters)
    if filters.last is None:
        return Told(file)
    spool = Spool(filters.last)
    for user, rows in file.newest(filters.last):
        spool.add(user, rows)
    return Told(spool)


@dataclass(frozen=True, slots=True)
class _OfFile:
    """The rows of a database that are wanted, read when they are asked for."""

    path: Path
    users: Sequence[str]
    filters: Filters

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        with self._opened() as past:
            each = [self._of(past, user, oldest_first=True) for user in self.users or past.users()]
            yield from heapq.merge(*each, key=lambda one: one[1]["issued"])

    def newest(self, last: int) -> Iterator[tuple[str, list[Row]]]:
        """So many of each board, the newest first."""
        with self._opened() as past:
            for user in self.users or past.users():
                told = islice(self._of(past, user), last)
                while page := [row for _, row in islice(told, limits.HISTORY_ROWS)]:
                    yield user, page

    def _opened(self) -> Past:
        from hwsync.store.past import Past  # who asks over MQTT does not wait for it

        return Past(self.path)

    def _of(
        self, past: Past, user: str, *, oldest_first: bool = False
    ) -> Iterator[tuple[str, Row]]:
        filters, wall = self.filters, time.time()
        wanted = Wanted(
            user, Reply(""), None, since=filters.since, until=filters.until,
            outcomes=frozenset(filters.outcome) or None, by=filters.by, meta=filters.meta,
            name=filters.name, id=filters.id, analyser=filters.analyser, judged=filters.judged,
        )  # fmt: skip
        is_wanted = chooser(wanted, wall)
        for _, row in past.commands(wanted, wall, oldest_first=oldest_first):
            if is_wanted(row):
                yield user, row


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
