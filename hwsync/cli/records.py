"""``hwsync history`` and ``hwsync show``: they read the database, on the coordinator's machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import click

from hwsync.cli import say
from hwsync.cli.common import DATABASE, Settings, board_name, command_id, common
from hwsync.cli.elsewhere import own_database
from hwsync.cli.hints import of_limit
from hwsync.protocol.jsons import dumps, is_count
from hwsync.protocol.wire.status import CommandFields
from hwsync.store.reader import Reader


@click.command()
@common
@DATABASE
@click.argument("user", metavar="BOARD", type=board_name)
@click.pass_obj
def history(settings: Settings, db: Path | None, user: str) -> None:
    """Every change of BOARD's record, and every refused message."""
    with own_database(settings, db) as own, Reader(own.path) as reader:
        for row in reader.history(user):
            say.either(settings.as_json, row, _line(row))


@click.command()
@common
@DATABASE
@click.argument("user", metavar="BOARD", type=board_name)
@click.argument("id", type=command_id)
@click.pass_obj
def show(settings: Settings, db: Path | None, user: str, id: str) -> None:
    """Everything of BOARD's command ID."""
    with own_database(settings, db) as own:
        with Reader(own.path) as reader:
            shown = reader.show(user, id)
        if settings.as_json:
            say.json_line(shown)
            return
        rows = shown.pop("history")
        for name, value in shown.items():
            say.line(f"{name:16} {value if isinstance(value, str) else dumps(value)}")
        for row in rows:
            say.line(_line(row))
        if shown["truncated"]:
            most = own.health.get("max_message") if own.health else None
            if not (isinstance(most, int) and is_count(most)):
                return
            if limit := of_limit(cast(CommandFields, shown), most):
                say.line(limit, err=True)


def _line(row: dict[str, Any]) -> str:
    if "kept" in row:
        return f"{row['refused']} messages were refused in all; the first {row['kept']} are shown"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["time"]))
    payload = row["payload"][:60]
    if "error" in row:
        return f"{stamp}  refused {row['error']}: {row['message']}  [{payload}]"
    note = f"  {'late: ' if row['late'] else ''}{row['note']}" if row["note"] else ""
    move = f"{row['before']} → {row['state']}"
    return f"{stamp}  {move}  {row['command']:24} {row['id']}{note}  [{payload}]"


COMMANDS = (history, show)
