"""``hwsync sync``: how far apart the boards began that were to begin at one instant."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Final

import click

from hwsync.cli import say
from hwsync.cli.common import DATABASE, FILE, Settings, command_id, common
from hwsync.cli.elsewhere import own_database
from hwsync.cli.starts import Spread, Start, picture, spread, strip, title
from hwsync.protocol.errors import NotFound
from hwsync.protocol.record import RAN_BY_OUTCOME, Ran
from hwsync.store.reader import Reader

DRAWN: Final = "├─●┤┊±µ"


@click.command()
@common
@DATABASE
@click.option("--save", type=FILE, metavar="FILE", help="Draw it into a .png, .svg or .pdf, too.")
@click.argument("id", type=command_id)
@click.pass_obj
def sync(settings: Settings, db: Path | None, save: Path | None, id: str) -> None:
    """How far apart the boards began the command ID.

    For a command that was to begin at one instant (hwsync run --together, or --at). Each line is a
    board: where it is drawn is when it began, and within its bound lies the true moment.
    """
    with own_database(settings, db) as own:
        with Reader(own.path) as reader:
            rows = reader.starts(id)
        starts = [
            Start(row["user"], row["start_error"], row["clock_bound"])
            for row in rows
            if row["start_error"] is not None and row["clock_bound"] is not None
        ]
        others = [row for row in rows if row["start_error"] is None or row["clock_bound"] is None]
        if not starts:
            raise NotFound(
                f"no board began {id} at an instant: {_why_not(rows[0])}",
                "hwsync run --together pi1,pi2 FILE starts a program on both at one instant",
            )
        said = title(id, starts)
        if save is not None:
            picture(starts, said, save)
        if settings.as_json:
            say.json_line(_json(id, rows, spread(starts)))
            return
        say.line(said)
        plain = not _can_draw()
        for line in strip(starts, shutil.get_terminal_size().columns, plain=plain):
            say.line(line)
        for row in others:
            maybe = RAN_BY_OUTCOME.get(row["outcome"]) is Ran.MAYBE
            began = (
                "may have begun, and nobody knows when" if maybe else "did not begin at the instant"
            )
            say.line(f"{row['user']}: {began}: {_why_not(row)}")


def _why_not(row: dict[str, Any]) -> str:
    if row["outcome"] is None:
        return "it has not ended yet"
    if row["started"] is not None:
        return "it was asked for without a start"
    return f"{row['outcome']}: {row['reason']}" if row["reason"] else str(row["outcome"])


def _json(id: str, rows: list[dict[str, Any]], spread: Spread | None) -> dict[str, Any]:
    between = None if spread is None else {"seconds": spread.seconds, "bound": spread.bound}
    starts = [
        {"board": row["user"]} | {k: v for k, v in row.items() if k != "user"} for row in rows
    ]
    return {"id": id, "spread": between, "starts": starts}


def _can_draw() -> bool:
    """Whether what is read there can show more than ASCII."""
    try:
        DRAWN.encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


COMMANDS = (sync,)
