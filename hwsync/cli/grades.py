"""``hwsync grades``: who has passed, out of the history; one line each.

The law: what counts is decided in ``hwsync.grading``; here it is asked for and shown.
"""

from __future__ import annotations

import datetime
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from hwsync.cli import past, say
from hwsync.cli.columns import GAP
from hwsync.cli.columns import table as table_of
from hwsync.cli.common import Settings, common
from hwsync.cli.filters import filter_options, read_filters
from hwsync.cli.graded import MARK, judged_by, remarks, summary
from hwsync.cli.records import BOARDS, FROM_FILE, told_in_any_order
from hwsync.cli.targets import Target
from hwsync.grading import (
    ASKER,
    ASSIGNMENT,
    BOARD,
    COLUMNS,
    NOBODY,
    Grade,
    Grades,
    Who,
    exported,
)
from hwsync.logs import escape
from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError

HEADS: Final = (
    *("ASKED BY", "ASSIGNMENT", "VERDICT", "SCORE", "ATTEMPTS", "OTHERS", "WHEN", "RUN"),
    "JUDGED BY",
)
"""Of the table, behind the name."""
WIDEST: Final = 28  # characters of a name; all of it stands in --csv and --json
ASKERS: Final = 2  # that have room in a line
LEAST_MESSAGE: Final = 12  # characters of the message: where there is less room, it is left out
OF_LAB: Final = "lab: expired, lost, interrupted, rejected or cancelled before it ran: no attempt"
OF_ANALYSER: Final = "analyser: it failed itself: no attempt"


@click.command()
@common
@BOARDS
@filter_options("last", "by", "outcome", "analyser", "judged")
@click.option("--asker", metavar="ACCOUNT", help="That this account asked for.")
@click.option("--by", default=ASKER, metavar="WHAT", show_default=True,
              help="One line for each asker, board, student, or another key of --meta. What --meta "
              "says is the asker's own word, and marked as a claim.")  # fmt: skip
@click.option(
    "--best",
    "which",
    flag_value="best",
    default=True,
    help="The best attempt of each counts: who tries on loses nothing.  [the default]",
)
@click.option("--last", "which", flag_value="last", help="The last attempt counts.")
@click.option("--analyser", metavar="NAME", help="Only what this one has judged counts, its newest "
              "verdict.")  # fmt: skip
@click.option(
    "--pass",
    "least",
    type=click.FloatRange(0, 1),
    metavar="SCORE",
    help="Passed is who has this score; where there is none, who its analyser says.",
)
@click.option("--csv", "as_csv", is_flag=True, help="For a spreadsheet; with every column.")
@FROM_FILE
@click.pass_obj
def grades(settings: Settings, /, targets: tuple[Target, ...], asker: str | None, by: str,
           which: str, analyser: str | None, least: float | None, as_csv: bool, db: Path | None,
           **given: Any) -> None:  # fmt: skip
    """Who has passed: a table out of the history, one line each.

    Each assignment (--meta assignment=NAME of run) has lines of its own. A run counts as an attempt
    once it is judged. One that failed for the lab's reasons, or whose analyser failed, is none.

    A person's verdict counts before an analyser's, and of these the newest.
    """
    filters = read_filters({**given, "by": asker}, datetime.datetime.now())
    if analyser is not None and not limits.is_analyser(analyser):
        raise UsageError(f"--analyser: {analyser!r} is no analyser's name", limits.ANALYSER_FORM)
    if not by:
        raise UsageError("--by is empty", "asker, board, student, or another key of --meta")
    table = Grades(by, analyser=analyser, last=which == "last", least=least)
    own = told_in_any_order(settings, targets, filters, db, table.add)
    lines = table.lines()
    if settings.as_json:
        for grade in lines:
            say.json_line(exported(grade))
    elif as_csv:
        for line in csv_lines(lines):
            past.say_exported(line, past.END)
    elif lines:
        terminal = sys.stdout is not None and sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else None
        for line in shown(by, lines, time.time(), width):
            say.line(line)
    else:
        say.line("nothing was run, as far as that was asked for", err=True)
    for remark in said_below(by, lines):
        say.remark(remark)
    if lines and table.unheard:
        say.remark(f"{analyser} has judged none of these; {judged_by(table.judges)}")
    if own:
        say.remark(f"these are the runs that {settings.url.username} asked for; everybody's are "
                   "shown with the right to it (--history)")  # fmt: skip


def csv_lines(grades: Iterable[Grade]) -> list[str]:
    """The table as CSV, without the ends of its lines."""
    columns = list(COLUMNS)
    columns.insert(columns.index("issued"), "time")
    lines = [past.as_csv(columns)]
    for grade in grades:
        fields = exported(grade)
        issued = fields["issued"]
        fields["time"] = None if issued is None else past.utc(issued)
        lines.append(past.as_csv(fields[name] for name in columns))
    return lines


def said_below(by: str, grades: Iterable[Grade]) -> list[str]:
    """The lines below the table."""
    grades = list(grades)
    if not grades:
        return []
    said = [summary(grades)]
    said += [OF_LAB] * any(grade.lab_failed for grade in grades)
    said += [OF_ANALYSER] * any(grade.analyser_failed for grade in grades)
    return said + remarks(by, grades)


def shown(by: str, grades: Iterable[Grade], now: float, width: int | None) -> list[str]:
    """The table for people; a column in which nothing stands is left out.

    ``width``: of a terminal; the message has what the other columns leave of it.
    """
    grades = list(grades)
    one = len({grade.assignment for grade in grades}) == 1
    alone = len({grade.attempt.judge for grade in grades if grade.attempt}) == 1
    rows = [_cells(by, grade, now, one_assignment=one, one_judge=alone) for grade in grades]
    heads = (_cut(escape(by.upper()), WIDEST), *HEADS)
    lines = table_of(heads, rows)
    longest = max(map(len, lines))
    room = None if width is None else width - longest - len(GAP)
    messages = [grade.attempt.message if grade.attempt else "" for grade in grades]
    if not any(messages) or (room is not None and room < LEAST_MESSAGE):
        return lines
    texts = ["MESSAGE", *(escape(message) for message in messages)]
    return [
        f"{line.ljust(longest)}{GAP}{text if room is None else _cut(text, room)}".rstrip()
        for line, text in zip(lines, texts, strict=True)
    ]


def _cells(
    by: str, grade: Grade, now: float, *, one_assignment: bool, one_judge: bool
) -> tuple[str, ...]:
    attempt = grade.attempt
    assignment = grade.assignment or (NOBODY if by != ASSIGNMENT else "")
    score = None if attempt is None else attempt.score
    return (
        _name(grade.who),
        "" if by in (ASKER, BOARD) else _askers(grade.askers),
        "" if one_assignment else _cut(escape(assignment), WIDEST),
        grade.verdict,
        "" if score is None else f"{score:.3g}",
        str(grade.attempts),
        _others(grade),
        "" if attempt is None else past.when(attempt.issued, now),
        "" if attempt is None else attempt.id,
        "" if attempt is None or one_judge else attempt.judge,
    )


def _others(grade: Grade) -> str:
    """The runs that are no attempts."""
    counts = {
        "waiting": grade.waiting, "lab": grade.lab_failed, "analyser": grade.analyser_failed
    }  # fmt: skip
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _name(who: Who) -> str:
    name = _cut(escape(who.name or NOBODY), WIDEST)
    return f"{name} {MARK}" if who.is_claim else name


def _askers(askers: tuple[Who, ...]) -> str:
    left = len(askers) - ASKERS
    more = f" +{left}" if left > 0 else ""
    return ", ".join(map(_name, askers[:ASKERS])) + more


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


COMMANDS = (grades,)
