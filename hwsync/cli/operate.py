"""``hwsync status``, ``analyse``, ``cancel``, ``reset``: the record, seen and moved by a person."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final

import click

from hwsync.cli import say
from hwsync.cli.common import Settings, command_id, common, read_text, user_name
from hwsync.client import QUIET_S, Json, Operator
from hwsync.protocol.errors import Degraded, NotFound, UsageError
from hwsync.protocol.presence import is_online
from hwsync.protocol.record import State
from hwsync.protocol.topics import Kind
from hwsync.protocol.wire import encode_analysis, encode_id, encode_reset

LISTEN_S: Final = 2.0  # at most, for the retained statuses of everybody, and for the coordinator
HEALTH_S: Final = 1.0  # for a coordinator that has just answered to say how it is
NOBODY_SAYS: Final = "nobody can say who is online: no coordinator has said whom it hears"
_ONLINE: Final = {True: "online", False: "offline", None: "unknown"}
SHOWN: Final = (
    *("id", "command", "hw_command", "hw_response", "stderr", "outcome", "ran", "reason"),
    *("exit_code", "duration", "server_analysis", "journal", "boot", "queued"),
)


@click.command()
@common
@click.argument("user", type=user_name, required=False)
@click.option("--watch", is_flag=True, help="Print every change until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, user: str | None, watch: bool) -> None:
    """The record of USER, or of everybody."""
    with Operator(settings.url, settings.topics, user or "+", boards=user is None) as operator:
        if user is not None:
            record = _record(operator)
            operator.answers(HEALTH_S)
            if record["seq"] == 0:
                raise NotFound(
                    f"{user} has never been seen",
                    "is the name right? hwsync status lists the users",
                )
            if settings.as_json:
                say.json_line(record)
            else:
                for line in _whole(record):
                    say.line(line)
        else:
            _table(operator, settings)
        if operator.degraded:
            said = f"degraded: the coordinator cannot save anything now: {operator.degraded}"
            say.line(f"{said}; this is what is kept", err=True)
        with suppress(KeyboardInterrupt):
            while watch:
                for name, kind, fields in operator.hear(1.0):
                    if kind is Kind.STATUS and fields:
                        say.either(settings.as_json, fields, _line(name, fields))


def _record(operator: Operator) -> Json:
    """From a coordinator that answers; where its disk takes nothing, what the broker keeps."""
    try:
        return operator.record()
    except Degraded:
        if not operator.kept:
            raise
        return operator.kept


def _table(operator: Operator, settings: Settings) -> None:
    records: dict[str, Json] = {}
    beats: dict[str, Json] = {}
    boards: Json | None = None
    operator.ask_coordinator()
    limit = time.monotonic() + LISTEN_S
    heard = True
    while (heard or boards is None) and time.monotonic() < limit:
        heard = False
        for name, kind, fields in operator.hear(QUIET_S):
            heard = True
            if fields and kind in (Kind.STATUS, Kind.HEARTBEAT):
                (records if kind is Kind.STATUS else beats)[name] = fields
            elif kind is Kind.BOARDS:
                boards = fields
    unknown = False
    for name in sorted(records.keys() | beats.keys()):
        record, beat = records.get(name, {}), beats.get(name)
        online = is_online(name, beat, boards)
        unknown |= online is None
        shown = {**record, "user": name, "online": online}
        word = "" if beat is None else _ONLINE[online]
        say.either(settings.as_json, shown, _line(name, record, word))
    if not records and not beats:
        say.line("nobody has been seen yet", err=True)
    if unknown:
        say.line(f"{NOBODY_SAYS} ({settings.topics.boards})", err=True)


def _line(name: str, record: Json, online: str = "") -> str:
    state = State(record.get("state", 0))
    end = record.get("outcome") or ""
    queued = record.get("queued") or 0
    more = f"  +{queued} queued" if queued else ""
    more += f"  {end_of(record, time.time())}" if state is not State.REST else ""
    id = record.get("id", "")
    return f"{name:20} {state} {state.name.lower():10} {online:8} {id:28} {end}{more}"


def end_of(record: Json, now: float) -> str:
    """When the record's state ends by itself; ``now``: Unix seconds.

    A ``deadline`` that is past is due: after a connect the coordinator waits a little with it. Or
    the status is what is left of a coordinator that is away, and no time passes.
    """
    deadline = record.get("deadline")
    if deadline is None:
        return "no end by itself"
    return f"ends in {say.span(deadline - now)}" if deadline > now else "its time is over"


def _whole(record: Json) -> list[str]:
    state = State(record["state"])
    ends = f", {end_of(record, time.time())}" if state is not State.REST else ""
    lines = [f"{record['user']}: {state} {state.name.lower()}{ends}"]
    for name in SHOWN:
        value: Any = record[name]
        if value not in (None, "") and (name, value) != ("queued", 0):
            text = value.rstrip("\n") if isinstance(value, str) else str(value)
            first, *more = text.split("\n")
            lines += [f"  {name:16} {first}", *(f"{'':19}{line}" for line in more)]
    return lines


@click.command()
@common
@click.argument("user", type=user_name)
@click.argument("text")
@click.option(
    "--id", type=command_id, metavar="ID", help="The command; without it the current one."
)
@click.pass_obj
def analyse(settings: Settings, user: str, text: str, id: str | None) -> None:
    """Give TEXT (- reads it from standard input) as the analysis of USER's result."""
    words = read_text("-") if text == "-" else text
    with Operator(settings.url, settings.topics, user) as operator:
        id = id or _current(operator, user)
        _tell(settings, operator, Kind.ANALYSIS, encode_analysis(words, id), id)


@click.command()
@common
@click.argument("user", type=user_name)
@click.argument("id", type=command_id, required=False)
@click.option("--id", "named", type=command_id, metavar="ID", help="The same as ID.")
@click.pass_obj
def cancel(settings: Settings, user: str, id: str | None, named: str | None) -> None:
    """Cancel USER's command ID, or the current one."""
    if id and named and id != named:
        raise UsageError(f"two ids: {id} and {named}", "name one")
    with Operator(settings.url, settings.topics, user) as operator:
        id = id or named or _current(operator, user)
        _tell(settings, operator, Kind.CANCEL, encode_id(id), id)


@click.command()
@common
@click.argument("user", type=user_name)
@click.option("--id", type=command_id, metavar="ID", help="Only if this is the current command.")
@click.option("--queue", is_flag=True, help="Empty the queue too; else the next command follows.")
@click.pass_obj
def reset(settings: Settings, user: str, id: str | None, queue: bool) -> None:
    """Bring USER's record to rest, whatever runs."""
    with Operator(settings.url, settings.topics, user) as operator:
        id = id or _current(operator, user)
        _tell(settings, operator, Kind.RESET, encode_reset(id, queue=queue), id)


def _current(operator: Operator, user: str) -> str:
    """The id of the present command: named, a repetition is safe."""
    record = _record(operator)
    if not record["id"]:
        raise NotFound(f"{user} has no command", f"hwsync run {user} FILE gives it one")
    return str(record["id"])


def _tell(settings: Settings, operator: Operator, kind: Kind, payload: bytes, id: str) -> None:
    """Send it until it is answered; print the record, or raise what refused it."""
    try:
        fields = operator.tell(kind, payload, id)
    except Degraded:
        if operator.kept:
            say.either(settings.as_json, operator.kept, _line(operator.user, operator.kept))
        raise
    say.either(settings.as_json, fields, _line(operator.user, fields))


COMMANDS = (status, analyse, cancel, reset)
