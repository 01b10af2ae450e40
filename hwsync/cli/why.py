"""``hwsync why``: what happened, what is waited for, whether it ran, and what to do."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Any, Final

import click

from hwsync.cli import say, side_by_side
from hwsync.cli.causes import Cause, explain
from hwsync.cli.common import Settings, command_id, common
from hwsync.cli.completion import of_both, of_ids
from hwsync.cli.looking import find, look
from hwsync.cli.side_by_side import Seen
from hwsync.cli.slow import say_slow
from hwsync.cli.targets import group_or_id, target
from hwsync.operator.client import Client
from hwsync.protocol.errors import NoBroker, NotFound
from hwsync.protocol.groups import SIGN
from hwsync.protocol.limits import is_user

WIDEST: Final = 100  # characters of a line
OWN_IDS: Final = ("cli-", "batch-")  # how ids begin that nobody has chosen
MOST: Final = 12  # boards that have one id, of which each is explained


@click.command()
@common
@click.argument("word", metavar="BOARD|@GROUP|ID", type=group_or_id, shell_complete=of_both)
@click.argument("id", metavar="[ID]", type=command_id, required=False, shell_complete=of_ids)
@click.pass_obj
def why(settings: Settings, word: str, id: str | None) -> None:
    """Why BOARD, or the command ID, stands as it does, and what to do.

    What happened, what is waited for, whether the program ran. Where an id is of several boards,
    name the board too. Of a group, @lab1, who is not ok in its newest batch, or in that with ID: a
    line for each board.
    """
    if word.startswith(SIGN):
        _of_group(settings, side_by_side.of_group(settings, target(word), id))
        return
    try:
        causes = _causes(settings, word, id)
    except NoBroker as error:
        happened = f"{error.message[:1].upper()}{error.message[1:]}."
        waits = "Nothing is sent, and nothing can be asked."
        cause = Cause("no broker", happened, waits, None, (error.hint,))
        _say(settings, word, id, cause)
        sys.exit(error.exit_code)
    for user, of, cause in causes:
        _say(settings, user, of, cause)


def _of_group(settings: Settings, seen: Seen) -> None:
    bad = [one for one in seen.members.by_user.values() if one.kind != "ok"]
    if not settings.as_json:
        say.line(seen.headline)
        for line in side_by_side.bad_ones(seen):
            say.line(line)
        asked = [one.user for one in bad if not one.refused]
        if asked:
            say.line(f"more of one: hwsync why {asked[0]} {seen.members.id}")
        return
    for one in bad:
        word, more = one.reason
        fields: dict[str, Any] = {
            "board": one.user, "id": seen.members.id,
            "kind": one.refused or one.get("outcome") or word, "happened": more, "waits_for": "",
            "ran": "no" if one.refused else one.get("ran"), "do": [],
        }  # fmt: skip
        say.json_line(fields)


def _causes(settings: Settings, word: str, id: str | None) -> list[tuple[str, str | None, Cause]]:
    users = [word]
    if id is None and (having := find(settings, word)):
        users, id = having, word
    if not is_user(users[0]) or (id is None and word.startswith(OWN_IDS)):
        hint = "hwsync status lists the boards and their last ids"
        raise NotFound(f"nobody had a command {word}", hint)
    causes = []
    for user in users[:MOST]:
        with Client(settings.url, settings.topics, user, boards=True) as operator:
            operator.standing.slow = say_slow
            seen = look(operator, user, id)
        told = seen.command or seen.record or {"id": None}
        causes.append((user, told["id"] or None, explain(seen, of_board=id is None)))
    return causes


def _say(settings: Settings, user: str, id: str | None, cause: Cause) -> None:
    if settings.as_json:
        fields: dict[str, Any] = {
            "board": user, "id": id, "kind": cause.kind, "happened": cause.happened,
            "waits_for": cause.waits_for, "ran": cause.ran, "do": list(cause.do),
        }  # fmt: skip
        say.json_line(fields)
        return
    width = min(shutil.get_terminal_size().columns, WIDEST)
    for line in textwrap.wrap(
        cause.sentences, width, break_on_hyphens=False, break_long_words=False
    ):
        say.line(line)
    for line in cause.do:
        say.line(f"  {line}")


COMMANDS = (why,)
