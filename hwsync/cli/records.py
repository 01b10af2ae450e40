"""``hwsync history`` and ``export``: what was run."""

from __future__ import annotations

import datetime
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from hwsync.cli import page, past, say, sources
from hwsync.cli.common import FILE, Settings, common
from hwsync.cli.completion import of_broker
from hwsync.cli.filters import filter_options, read_filters
from hwsync.cli.targets import Target, target
from hwsync.operator.filters import Filters
from hwsync.protocol.errors import NotFound, UsageError
from hwsync.protocol.groups import ALL
from hwsync.protocol.wire.history import Row

NEWEST: Final = 30  # runs that ``history`` shows where nothing says how many

BOARDS = click.argument(
    "targets", metavar="[BOARD]...", type=target, nargs=-1, shell_complete=of_broker
)
FROM_FILE = click.option(
    "--db", type=FILE, metavar="FILE", help="Read this database, in place of asking over MQTT."
)


@click.command()
@common
@BOARDS
@filter_options()
@click.option("--log", "of_log", is_flag=True,
              help="Every change of the record of one BOARD and every refused message, from the "
              "database on the coordinator's machine.")  # fmt: skip
@FROM_FILE
@click.pass_obj
def history(
    settings: Settings, /, targets: tuple[Target, ...], of_log: bool, db: Path | None, **given: Any
) -> None:
    """What was run on BOARD, on several, or on all: one line a run, the newest last.

    BOARD may be a group, @lab1. Without --last and --since the newest 30. What others have asked
    for is shown to who has the right to it (hwsync operator add --history).
    """
    if of_log:
        board = targets[0].board if len(targets) == 1 else None
        if board is None or any(value not in (None, ()) for value in given.values()):
            raise UsageError("--log is of one board, and of all of it", "hwsync history pi1 --log")
        # Who asks over MQTT waits for neither.
        from hwsync.cli.elsewhere import own_database
        from hwsync.store.reader import Reader

        with own_database(settings, db) as own, Reader(own.path) as reader:
            for change in reader.history(board):
                say.either(settings.as_json, change, page.logged(change))
        return
    filters = read_filters(given, datetime.datetime.now())
    if filters.last is None and filters.since is None:
        filters = replace(filters, last=NEWEST)
    found = told(settings, targets, filters, db)
    if settings.as_json:
        for user, row in found.rows:
            say.json_line({"user": user, **row})
        return
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    lines = past.table(found.rows, time.time(), width)
    header = next(lines, None) if terminal else None
    count = 0
    for line in lines:
        if header is not None and not count:
            say.line(header)
        say.line(line)
        count += 1
    if terminal and not count:
        say.line("nothing was run, as far as that was asked for", err=True)
    if terminal and found.own:
        say.line(f"these are the runs that {settings.url.username} asked for; everybody's are "
                 "shown with the right to it (--history)", err=True)  # fmt: skip
    if terminal and given["last"] is None and count == NEWEST and not filters.since:
        say.line(f"the newest {NEWEST}; --last N or --since 2d shows more", err=True)


def told(
    settings: Settings, targets: tuple[Target, ...], filters: Filters, db: Path | None
) -> sources.Told:
    """What the history has of these. Raises ``HwsyncError``."""
    boards = _boards(settings, targets, from_file=db is not None)
    if db is not None:
        return sources.of_database(db, boards, filters)
    return sources.over_mqtt(settings, boards, filters)


def told_in_any_order(
    settings: Settings,
    targets: tuple[Target, ...],
    filters: Filters,
    db: Path | None,
    each: Callable[[str, Row], object],
) -> bool:
    """The same, each as it comes; whether they are the asker's own only. Raises ``HwsyncError``."""
    boards = _boards(settings, targets, from_file=db is not None)

    def on_rows(user: str, rows: Iterable[Row]) -> None:
        for row in rows:
            each(user, row)

    if db is None:
        return sources.as_they_come(settings, boards, filters, on_rows)
    for user, row in sources.of_database(db, boards, filters).rows:
        each(user, row)
    return False


def _boards(settings: Settings, targets: tuple[Target, ...], *, from_file: bool) -> list[str]:
    """Their names, each once; of a group those who are in it now. Raises ``HwsyncError``."""
    found: dict[str, None] = {}
    for one in targets:
        names: Iterable[str] | None = one.boards
        if one.group == ALL:
            return []
        if one.group and from_file:
            raise UsageError(f"a file does not say who is in {one}", "name its boards: pi1,pi2")
        if one.group:
            names = _members(settings, one)
        found |= dict.fromkeys(names or ())
    return list(found)


def _members(settings: Settings, group: Target) -> Iterable[str]:
    """Who is in it now. Raises ``HwsyncError``."""
    from hwsync.cli.names import members

    found = members(settings, group.user)
    if not found:
        raise NotFound(f"nobody has heard of a board of {group}", "hwsync group list shows the "
                       "groups, on the lab's own machine")  # fmt: skip
    return found


@click.command()
@common
@BOARDS
@filter_options()
@click.option("--csv", "form", flag_value="csv", default=True, help="A table.  [the default]")
@click.option("--jsonl", "form", flag_value="jsonl", help="One JSON object a line.")
@click.option("--numbers", is_flag=True,
              help="The numbers that the programs have printed: one a line, with its run, board, "
              "time and name.")  # fmt: skip
@FROM_FILE
@click.pass_obj
def export(
    settings: Settings, /, targets: tuple[Target, ...], form: str, numbers: bool, db: Path | None,
    **given: Any,
) -> None:  # fmt: skip
    """What was run on BOARD, on several, or on all, for a spreadsheet or a program.

    BOARD may be a group, @lab1. The columns stand in docs/history.md, those of --numbers in
    docs/records.md. A text that a spreadsheet
    would take for a formula has a ' before it.
    """
    found = told(settings, targets, read_filters(given, datetime.datetime.now()), db)
    of_json = form == "jsonl" or settings.as_json
    if numbers:
        from hwsync.cli import printed

        printed.export(settings, db, found.rows, of_json=of_json)
        _say_whose(settings, found)
        return
    if not of_json:
        past.say_exported(past.as_csv(past.COLUMNS), past.END)
    for user, row in found.rows:
        if of_json:
            past.say_exported(past.as_jsonl(user, row), "\n")
        else:
            past.say_exported(past.as_csv(past.exported(user, row).values()), past.END)
    _say_whose(settings, found)


def _say_whose(settings: Settings, found: sources.Told) -> None:
    if found.own and settings.url.username:
        say.line(f"these are the runs that {settings.url.username} asked for", err=True)


COMMANDS = (history, export)
