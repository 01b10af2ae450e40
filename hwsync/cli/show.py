"""``hwsync show``: one command, or what several boards have answered to one; where an id is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import click

from hwsync.cli import page, say, side_by_side
from hwsync.cli.common import Settings, board_name, common
from hwsync.cli.completion import of_broker
from hwsync.cli.elsewhere import own_database
from hwsync.cli.hints import of_limit
from hwsync.cli.looking import find
from hwsync.cli.records import FROM_FILE
from hwsync.cli.screen import Screen
from hwsync.cli.side_by_side import Seen
from hwsync.cli.slow import say_slow
from hwsync.cli.targets import group_or_id, target
from hwsync.operator.client import Client
from hwsync.operator.filters import Filters
from hwsync.operator.history import Answers, reading
from hwsync.operator.streams import Streams
from hwsync.protocol.errors import HwsyncError, NotFound, UsageError
from hwsync.protocol.groups import SIGN
from hwsync.protocol.jsons import is_count
from hwsync.protocol.wire.status import CommandFields, Result

MOST_WORDS: Final = 2  # of [BOARD] ID


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
    from hwsync.store.reader import Reader  # who asks over MQTT does not wait for it

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


COMMANDS = (show,)
