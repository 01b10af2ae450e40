"""``hwsync history``, ``export`` and ``show``: what was run, and one command of it."""

from __future__ import annotations

import datetime
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import click

from hwsync.cli import page, past, printed, say, side_by_side
from hwsync.cli.common import FILE, Settings, board_name, common
from hwsync.cli.completion import of_broker
from hwsync.cli.elsewhere import own_database
from hwsync.cli.filters import filter_options, read_filters
from hwsync.cli.hints import of_limit
from hwsync.cli.looking import find
from hwsync.cli.names import members
from hwsync.cli.screen import Screen
from hwsync.cli.side_by_side import Seen
from hwsync.cli.slow import say_slow
from hwsync.cli.targets import Target, group_or_id, target
from hwsync.operator.client import Client
from hwsync.operator.history import Answers, Filters, reading
from hwsync.operator.streams import Streams
from hwsync.protocol.errors import HwsyncError, NotFound, UsageError
from hwsync.protocol.groups import ALL, SIGN
from hwsync.protocol.jsons import is_count
from hwsync.protocol.wire.status import CommandFields, Result
from hwsync.store.reader import Reader

MOST_WORDS: Final = 2  # of [BOARD] ID
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
) -> past.Told:
    """What the history has of these. Raises ``HwsyncError``."""
    boards = _boards(settings, targets, from_file=db is not None)
    if db is not None:
        return past.of_database(db, boards, filters)
    return past.over_mqtt(settings, boards, filters)


def _boards(settings: Settings, targets: tuple[Target, ...], *, from_file: bool) -> list[str]:
    """Their names, each once; of a group those who are in it now. Raises ``HwsyncError``."""
    found: dict[str, None] = {}
    for one in targets:
        names: Iterable[str] | None = one.boards
        if one.group == ALL:
            return []
        if one.group and from_file:
            raise UsageError(f"a file does not say who is in {one}", "name its boards: pi1,pi2")
        if one.group and not (names := members(settings, one.user)):
            raise NotFound(f"nobody has heard of a board of {one}", "hwsync group list shows the "
                           "groups, on the lab's own machine")  # fmt: skip
        found |= dict.fromkeys(names or ())
    return list(found)


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


def _say_whose(settings: Settings, found: past.Told) -> None:
    if found.own and settings.url.username:
        say.line(f"these are the runs that {settings.url.username} asked for", err=True)


@click.command()
@common
@click.argument("words", metavar="[BOARD|@GROUP] ID", nargs=-1, required=True, type=group_or_id,
                shell_complete=of_broker)  # fmt: skip
@click.option("--output", "part", flag_value="output", help="What it wrote, and nothing else.")
@click.option("--program", "part", flag_value="program", help="The program, and nothing else.")
@click.option("--raw", is_flag=True, help="Let what it wrote steer this terminal.")
@FROM_FILE
@click.pass_obj
def show(
    settings: Settings, words: tuple[str, ...], part: str | None, raw: bool, db: Path | None
) -> None:
    """The command ID: how it ended, what it wrote, and its program.

    Where several boards have that id, all of them stand beside each other, unless the BOARD is
    named too. Of a group, @lab1, its batch ID, or its newest one. With --db all that the database
    has of it, its log too.
    """
    group = target(words[0]) if words[0].startswith(SIGN) else None
    if group is not None:
        if len(words) > MOST_WORDS or db is not None:
            raise UsageError("of a group, its name and an id at most", f"hwsync show {group}")
        seen = side_by_side.of_group(settings, group, *(words[1:] or (None,)))
        _show_several(settings, seen, part, raw=raw)
        return
    user, id = board_and_id(words)
    if db is not None:
        _show_database(settings, db, user, id)
        return
    if user is None and len(having := boards_of(settings, id)) > 1:
        _show_several(settings, side_by_side.of_boards(settings, having, id), part, raw=raw)
        return
    user = user or having[0]
    whole, by = _whole(settings, user, id)
    if settings.as_json:
        say.json_line({**whole, "asked_by": by or None})
        return
    if part == "program":
        _exactly(whole["hw_command"])
        return
    if part is None:
        for line in page.lines(whole, time.time(), by=by):
            say.line(line)
    _output(whole, raw=raw, title=part is None)
    if part is None and whole["hw_command"]:
        say.line("--- program")
        for line in whole["hw_command"].rstrip("\n").split("\n"):
            say.line(line)
    if part is None and whole["truncated"]:
        say.line("--- only the beginning and the end of its output are kept")


def _show_several(settings: Settings, seen: Seen, part: str | None, *, raw: bool) -> None:
    if settings.as_json:
        for fields in side_by_side.as_json(seen):
            say.json_line(fields)
    elif part == "program":
        _exactly(seen.first.get("hw_command", ""))
    elif part == "output":
        side_by_side.show_output(seen)
    else:
        side_by_side.show(seen, raw=raw)


def board_and_id(words: tuple[str, ...]) -> tuple[str | None, str]:
    """What ``[BOARD] ID`` means. Raises ``UsageError``."""
    if len(words) > MOST_WORDS:
        raise UsageError(f"{len(words)} words, and it is [BOARD] ID")
    *board, id = words
    return (board_name(board[0]) if board else None), id


def only_board(settings: Settings, id: str) -> str:
    """The board that has a command of that id. Raises ``NotFound``, ``UsageError``."""
    having = boards_of(settings, id)
    if len(having) > 1:
        raise UsageError(
            f"{id} is of {len(having)} boards: {', '.join(having[:5])}{' …' * (len(having) > 5)}",
            f"name one: {having[0]} {id}",
        )
    return having[0]


def boards_of(settings: Settings, id: str) -> list[str]:
    """All that have it. Raises ``NotFound``."""
    having = find(settings, id)
    if not having:
        raise NotFound(f"nobody had a command {id}", "hwsync history lists them with their ids")
    return having


def _whole(settings: Settings, user: str, id: str) -> tuple[Result, str]:
    """All of a command, and who asked for it, where we may know."""
    answers = Answers(settings.url.username)
    with Client(settings.url, settings.topics, user, answers=answers) as operator:
        operator.standing.slow = say_slow
        whole = operator.query(id)
        try:
            rows = operator.wait(reading(operator.conversation(user), answers, Filters(id=id)))
        except HwsyncError:  # it may be no right of ours; the rest is
            rows = []
    return whole, (rows[0]["by"] or "") if rows else ""


def _output(whole: Mapping[str, Any], *, raw: bool, title: bool) -> None:
    """What it wrote, on the stream on which it did."""
    if title and (whole["hw_response"] or whole["stderr"]):
        say.line("--- output")
    screen = Screen(raw=raw)
    streams = Streams(whole["id"], screen, screen.files, together=screen.together)
    streams.finish(cast(CommandFields, whole))
    screen.end()
    for text, stream in ((whole["hw_response"], "stdout"), (whole["stderr"], "stderr")):
        if title and text and not text.endswith("\n"):
            screen.program(stream, "\n")


def _exactly(text: str) -> None:
    """Into a file or a pipe as it is; a terminal is not steered."""
    if sys.stdout is not None and not sys.stdout.isatty():
        say.program(text, sys.stdout, as_it_is=True)
        return
    for line in text.rstrip("\n").split("\n"):
        say.line(line)


def _show_database(settings: Settings, db: Path, user: str | None, id: str) -> None:
    if user is None:
        raise UsageError("with --db the board must be named", f"hwsync show BOARD {id} --db {db}")
    with own_database(settings, db) as own:
        with Reader(own.path) as reader:
            shown = reader.show(user, id)
        if settings.as_json:
            say.json_line(shown)
            return
        rows = shown.pop("history")
        for line in (*page.every_field(shown), *map(page.logged, rows)):
            say.line(line)
        if shown["truncated"]:
            most = own.health.get("max_message") if own.health else None
            if not (isinstance(most, int) and is_count(most)):
                return
            if limit := of_limit(cast(CommandFields, shown), most):
                say.line(limit, err=True)


COMMANDS = (history, export, show)
