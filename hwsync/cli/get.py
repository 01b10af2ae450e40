"""``hwsync get``: the files that a program brought back, also later."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hwsync.cli import say
from hwsync.cli.brought_back import bring
from hwsync.cli.common import FOLDER, Settings, command_id, common
from hwsync.cli.looking import find
from hwsync.cli.sent_along import patterns as patterns_of
from hwsync.cli.slow import say_slow
from hwsync.operator.client import Client
from hwsync.operator.fetching import fetching
from hwsync.protocol.errors import NotFound
from hwsync.protocol.files import is_asked_for
from hwsync.protocol.limits import is_user


@click.command()
@common
@click.argument("id", metavar="ID", type=command_id)
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("--board", metavar="BOARD", help="Whose ID it is; else it is looked for.")
@click.option(
    "--out",
    type=FOLDER,
    default=Path(),
    metavar="DIR",
    help="Where to write them; of several boards DIR/BOARD.  [default: here]",
)
@click.pass_obj
def get(settings: Settings, id: str, patterns: tuple[str, ...], board: str | None,
        out: Path) -> None:  # fmt: skip
    """Fetch the files that the command ID brought back; PATTERN: only these.

    They are written here, whole or not at all. What is here already under such a name is replaced
    only where that name was typed.
    """
    wanted = patterns_of(patterns)
    users = [board] if board is not None else find(settings, id)
    if not users or not all(map(is_user, users)):
        raise NotFound(
            f"no board has a command {id}", "hwsync history lists them; --board names the board"
        )
    came = 0
    for user in users:
        with Client(settings.url, settings.topics, user) as operator:
            operator.standing.slow = say_slow
            end: dict[str, Any] = dict(operator.query(id))
            paths = [path for path in end.get("files") or {}
                     if not wanted or is_asked_for(wanted, path)]  # fmt: skip
            folder = out / user if len(users) > 1 else out
            found = operator.wait(fetching(operator, id, end, paths))
        if not paths:
            if end.get("outcome") is None:
                said = f"it has not ended: hwsync wait {id}"
            else:
                said = f"no file {'is like that' if end.get('files') else 'came back'}"
            say.line(f"hwsync: {user}: {said}", err=True)
        # What nobody could have now is said once; all that came back was not asked for here.
        some = end if paths else {}
        brought = bring(some, wanted, found, folder, later=True)
        came += len(brought.saved)
        if settings.as_json:
            say.json_line({"user": user, "id": id, "saved": brought.saved})
        else:
            for line in brought.remarks:
                say.remark(line)
            for line in brought.wrong:
                say.line(line, err=True)
    sys.exit(0 if came else 1)


COMMANDS = (get,)
