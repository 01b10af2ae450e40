"""``hwsync status``, ``analyse``, ``cancel``, ``reset``: the record, seen and moved by a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import click

from hwsync.cli import bounds, grouped, page, say, verdicts
from hwsync.cli.causes import what
from hwsync.cli.columns import Redrawn, table
from hwsync.cli.common import Settings, board_name, command_id, common, may_ask, read_text
from hwsync.cli.completion import of_broker, of_ids
from hwsync.cli.seen import never_seen
from hwsync.cli.slow import say_slow
from hwsync.cli.targets import Target, everybody_option, one_or_all, target
from hwsync.operator.boards import Kept
from hwsync.operator.client import Client
from hwsync.operator.conversation import Talk
from hwsync.protocol.errors import (
    Code,
    Degraded,
    HwsyncError,
    NotFound,
    Refused,
    UsageError,
)
from hwsync.protocol.presence import is_online
from hwsync.protocol.record import State
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.asking import encode_id, encode_reset
from hwsync.protocol.wire.status import CommandFields, Status

HEADS: Final = ("BOARD", "ONLINE", "STATE", "COMMAND", "OUTCOME", "QUEUED", "CLOCK")
WATCH_S: Final = 1.0  # between two pictures
HEALTH_S: Final = 1.0  # for a coordinator that has just answered to say how it is
NOBODY_SAYS: Final = "nobody can say who is online: no coordinator has said whom it hears"
BY_NAME: Final = 500  # boards at most, of which nothing came while everybody was asked for
ONLY_BY_NAME: Final = (
    "this broker gives what it keeps to exact topics only, so the boards were asked for by name; "
    "one without a device is shown by its own: hwsync status BOARD"
)
_ONLINE: Final = {True: "online", False: "offline", None: "unknown"}
TEXT_LINES: Final = 40  # of a long text on a terminal: one that is scrolled away is not read
TEXT_LETTERS: Final = 4_000
SHOWN: Final = (
    *("id", "command", "hw_command", "hw_response", "stderr", "outcome", "ran", "reason"),
    *(
        "exit_code",
        "duration",
        "server_analysis",
        "analysed_by",
        "no_analysis",
        "journal",
        "boot",
        "queued",
    ),
)


@click.command()
@common
@click.argument("targets", metavar="[BOARD]...", type=target, nargs=-1, shell_complete=of_broker)
@click.option("--watch", is_flag=True, help="Show every change until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, targets: tuple[Target, ...], watch: bool) -> None:
    """The record of BOARD; one line each of several, or of all.

    Of a group, @lab1, its boards and its newest batch. With --watch a terminal shows the table anew
    as it changes; a pipe gets a line for each change. On a terminal long texts are cut; into a
    pipe or a file they go whole.
    """
    if any(one.group for one in targets):
        if len(targets) > 1:
            raise UsageError("a group stands by itself", "hwsync status @lab1")
        grouped.status(settings, targets[0], watch=watch)
        return
    users = tuple(dict.fromkeys(board for one in targets for board in one.boards))
    user = users[0] if len(users) == 1 else None
    with Client(
        settings.url, settings.topics, user or "+", boards=user is None, named=users
    ) as operator:
        operator.standing.slow = say_slow
        if user is not None:
            record = _record(operator)
            operator.answers(HEALTH_S)
            if record["seq"] == 0:
                raise never_seen(settings, user)
            if settings.as_json:
                say.json_line(dict(record) | {"clock": bounds.lab_clock(operator.beat)})
            else:
                brief = sys.stdout is not None and sys.stdout.isatty()
                for line in _whole(record, brief=brief):
                    say.line(line)
                if bound := bounds.shown(operator.beat):
                    say.line(f"  {'lab time':16} {bound}")
        else:
            watched = _table(operator, settings, users, watch=watch)
            watch = watch and not watched
        if operator.standing.degraded:
            said = (
                f"degraded: the coordinator cannot save anything now: {operator.standing.degraded}"
            )
            say.line(f"{said}; this is what is kept", err=True)
        with suppress(KeyboardInterrupt):
            while watch:
                for heard in operator.hear(1.0):
                    if (change := heard.status) is not None:
                        say.either(settings.as_json, change, _line(heard.user, change))


def _record(operator: Client) -> Status:
    """From a coordinator that answers; where its disk takes nothing, what the broker keeps."""
    try:
        return operator.record()
    except Degraded:
        if not operator.kept:
            raise
        return operator.kept


def _table(operator: Client, settings: Settings, users: tuple[str, ...], *, watch: bool) -> bool:
    """One line each of these boards; none: of all. Returns whether it was watched.

    On a terminal ``watch`` draws it anew until Ctrl-C.
    """
    operator.ask_coordinator()
    seen = _Shown()
    seen.hear(operator, until_boards=True)
    missing = sorted(set(seen.boards["boards"] if seen.boards else ()) - seen.users)
    if missing and not users:
        seen.ask_by_name(settings, missing[:BY_NAME])
    drawn = Redrawn()
    if settings.as_json:
        for name in sorted(seen.users):
            say.json_line(seen.fields(name))
    elif watch and drawn.wanted:
        drawn.draw(seen.lines())
    elif seen.users:
        for line in seen.lines():
            say.line(line)
    unknown = any(seen.fields(name)["online"] is None for name in seen.users)
    if not seen.users and not users:
        say.line("nobody has been seen yet", err=True)
    if unknown:
        say.line(f"{NOBODY_SAYS} ({settings.topics.boards})", err=True)
    if never := sorted(set(users) - seen.users):
        raise NotFound(f"{', '.join(never)}: never seen", "hwsync status lists the boards")
    redraws = watch and drawn.wanted and not settings.as_json
    with suppress(KeyboardInterrupt):
        while redraws:
            seen.hear(operator, until_boards=False, seconds=WATCH_S)
            drawn.draw(seen.lines())
    return redraws


class _Shown(Kept):
    """The boards, as a table."""

    def fields(self, name: str) -> dict[str, Any]:
        """What programs are told of a board."""
        record, beat = self.records.get(name), self.beats.get(name)
        shown: dict[str, Any] = dict(record) if record else {}
        online = is_online(name, beat, self.boards)
        return shown | {"user": name, "online": online, "clock": bounds.lab_clock(beat)}

    def lines(self) -> list[str]:
        """The table for people."""
        now = self.boards["time"] if self.boards else time.time()
        return table(HEADS, [self._row(name, now) for name in sorted(self.users)])

    def _row(self, name: str, now: float) -> tuple[str, ...]:
        beat, fields = self.beats.get(name), self.fields(name)
        state = State(fields.get("state", 0))
        queued = fields.get("queued") or ""
        clock = bounds.shown(beat) if fields["online"] and fields["clock"] else ""
        word = "" if beat is None else _ONLINE[fields["online"]]
        end = str(fields.get("outcome") or "") if state is State.REST else _left(fields, now)
        id = str(fields.get("id", ""))
        return name, word, state.name.lower(), id, end, str(queued), clock

    def ask_by_name(self, settings: Settings, users: list[str]) -> None:
        """RabbitMQ gives what it keeps to nobody who asks for everybody's."""
        before = len(self.users)
        with Client(settings.url, settings.topics, "+", named=users) as operator:
            self.hear(operator, until_boards=False)
        if len(self.users) > before:
            say.line(ONLY_BY_NAME, err=True)


def _line(name: str, told: CommandFields | None, online: str = "", now: float | None = None) -> str:
    """``now``: Unix seconds of the coordinator's clock; None: this machine's must do."""
    record: Mapping[str, Any] = told or {}
    state = State(record.get("state", 0))
    end = record.get("outcome") or ""
    queued = record.get("queued") or 0
    more = f"  +{queued} queued" if queued else ""
    now = time.time() if now is None else now
    more += f"  {end_of(record, now)}" if state is not State.REST else ""
    id = record.get("id", "")
    return f"{name:20} {state} {state.name.lower():10} {online:8} {id:28} {end}{more}"


def _left(record: Mapping[str, Any], now: float) -> str:
    """How long the record's state lasts at most, for a table."""
    deadline = record.get("deadline")
    if deadline is None:
        return "no end"
    if deadline <= now:
        return "time over"
    left = say.span(deadline - now)
    return f"{left.replace('minutes', 'min').replace('hours', 'h')} left"


def end_of(record: Mapping[str, Any], now: float) -> str:
    """When the record's state ends by itself; ``now``: Unix seconds.

    A ``deadline`` that is past is due: after a connect the coordinator waits a little with it. Or
    the status is what is left of a coordinator that is away, and no time passes.
    """
    deadline = record.get("deadline")
    if deadline is None:
        return "no end by itself"
    return f"ends in {say.span(deadline - now)}" if deadline > now else "its time is over"


def _whole(status: Status, *, brief: bool = False) -> list[str]:
    """The lines for people; ``brief``: a page, of long texts only their beginning."""
    record: Mapping[str, Any] = status
    now = time.time()
    state = State(record["state"])
    ends = f", {end_of(record, now)}" if state is not State.REST else ""
    more = f", {record['queued']} behind it" if brief and record["queued"] else ""
    lines = [f"{record['user']}: {state} {state.name.lower()}{ends}{more}"]
    if brief:
        return [*lines, *(_readable(record, now) if record["id"] else ())]
    for name in SHOWN:
        value: Any = record.get(name)
        if name == "analysed_by":
            value = verdicts.who(record)
        if value not in (None, "") and (name, value) != ("queued", 0):
            text = value.rstrip("\n") if isinstance(value, str) else str(value)
            first, *rest = text.split("\n")
            lines += [f"  {name:16} {first}", *(f"{'':19}{line}" for line in rest)]
    return lines


def _readable(record: Mapping[str, Any], now: float) -> Iterator[str]:
    """The record's command as a page, and of each text no more than a terminal shows."""
    yield from page.lines(record, now)
    for title, name in (("output", "hw_response"), ("standard error", "stderr"),
                        ("program", "hw_command")):  # fmt: skip
        text = record[name].rstrip("\n")
        if not text:
            continue
        yield f"--- {title}"
        shown = "\n".join(text[:TEXT_LETTERS].split("\n")[:TEXT_LINES])
        yield from shown.split("\n")
        if left := len(text) - len(shown):
            whole = f"hwsync show {record['user']} {record['id']}"
            yield f"… {left:,} characters more: {whole}"


@click.command()
@common
@click.argument("user", metavar="BOARD", type=board_name, shell_complete=of_broker)
@click.argument("text")
@click.option(
    "--id", type=command_id, metavar="ID", help="The command; without it the current one."
)
@click.pass_obj
def analyse(settings: Settings, user: str, text: str, id: str | None) -> None:
    """Give TEXT (- reads it from standard input) as the analysis of BOARD's result."""
    words = verdicts.checked(read_text("-") if text == "-" else text)
    with Client(settings.url, settings.topics, user) as operator:
        operator.standing.slow = say_slow
        id = id or _current(settings, operator, user)
        _send(settings, operator, TopicKind.ANALYSIS, operator.judging(words, id), id)


TARGET = click.argument(
    "target", metavar="BOARD", type=target, required=False, shell_complete=of_broker
)
YES = click.option("--yes", "-y", is_flag=True, help="Of a group: without asking on a terminal.")


@click.command()
@common
@TARGET
@click.argument("id", type=command_id, required=False, shell_complete=of_ids)
@click.option("--id", "named", type=command_id, metavar="ID", help="The same as ID.")
@everybody_option("Whatever runs or waits on any board; with --id, that batch of @all.")
@YES
@click.pass_obj
def cancel(settings: Settings, target: Target | None, id: str | None, named: str | None,
           everybody: bool, yes: bool) -> None:  # fmt: skip
    """Cancel BOARD's command ID, or the current one.

    BOARD may be a group, @lab1: then its batch ID, or the newest one; or several boards, pi1,pi2.
    """
    may_ask(settings)
    if id and named and id != named:
        raise UsageError(f"two ids: {id} and {named}", "name one")
    meant = one_or_all(target, everybody)
    if meant.group:
        grouped.cancel(settings, meant, id or named, yes=yes)
        return
    _each(
        settings, meant, lambda operator, user: _cancel_one(settings, operator, user, id or named)
    )


def _cancel_one(settings: Settings, operator: Client, user: str, id: str | None) -> None:
    id = id or _current(settings, operator, user)
    talk = operator.telling(TopicKind.CANCEL, encode_id(id), id)
    _send(settings, operator, TopicKind.CANCEL, talk, id)


@click.command()
@common
@TARGET
@click.option("--id", type=command_id, metavar="ID", help="Only if this is the current command.")
@click.option("--queue", is_flag=True, help="Empty the queue too; else the next command follows.")
@everybody_option("Whatever runs or waits on any board.")
@YES
@click.pass_obj
def reset(settings: Settings, target: Target | None, id: str | None, queue: bool, everybody: bool,
          yes: bool) -> None:  # fmt: skip
    """Bring BOARD's record to rest, whatever runs.

    Of a group, @lab1, it stops all: each of its boards is brought to rest, and whatever waits there
    is cancelled. A board at rest is no error then.
    """
    may_ask(settings)
    meant = one_or_all(target, everybody)
    if meant.group:
        if id:
            raise UsageError("--id is for one board", f"hwsync cancel {meant} {id}")
        grouped.reset(settings, meant, yes=yes)
        return
    _each(settings, meant, lambda operator, user: _reset_one(settings, operator, user, id, queue))


def _reset_one(
    settings: Settings, operator: Client, user: str, id: str | None, queue: bool
) -> None:
    id = id or _current(settings, operator, user)
    talk = operator.telling(TopicKind.RESET, encode_reset(id, queue=queue), id)
    _send(settings, operator, TopicKind.RESET, talk, id)


def _each(settings: Settings, meant: Target, do: Callable[[Client, str], None]) -> None:
    """One after the other; where several were named, one that is at rest is no error."""
    failed: HwsyncError | None = None
    for user in meant.boards:
        with Client(settings.url, settings.topics, user) as operator:
            operator.standing.slow = say_slow
            try:
                do(operator, user)
            except (NotFound, Refused) as error:
                if meant.board is not None:
                    raise
                at_rest = isinstance(error, NotFound) or error.code is Code.WRONG_STATE
                failed = failed if at_rest else error
                if not settings.as_json:
                    say.line(f"{user}: {error.message}", err=True)
    if failed is not None:
        raise failed


def _current(settings: Settings, operator: Client, user: str) -> str:
    """The id of the present command: named, a repetition is safe."""
    record = _record(operator)
    if not record["id"]:
        if record["seq"] == 0 and operator.beat is None:
            raise never_seen(settings, user)
        raise NotFound(f"{user} has no command", f"hwsync run {user} FILE gives it one")
    return str(record["id"])


def _send(
    settings: Settings, operator: Client, kind: TopicKind, talk: Talk[CommandFields], id: str
) -> None:
    """Say it until it is answered; print the record, or raise what refused it."""
    try:
        fields = operator.wait(talk)
    except Degraded:
        if operator.kept:
            say.either(settings.as_json, operator.kept, _line(operator.user, operator.kept))
        raise
    except Refused as refusal:
        raise _in_words(refusal, kind, operator, id) from None
    say.either(settings.as_json, fields, _line(operator.user, fields))


def _in_words(refusal: Refused, kind: TopicKind, operator: Client, id: str) -> Refused:
    """Why a cancel or an analysis came at the wrong time, as people say it."""
    if refusal.code is not Code.WRONG_STATE:
        return refusal
    user = operator.user
    try:
        told = operator.query(id)
    except HwsyncError:
        return refusal
    how = f"{what(told)} ({id}) of {user}"
    over = told["outcome"] is not None
    if kind is TopicKind.CANCEL and over:
        message, hint = f"{how} has ended already: {told['outcome']}", f"hwsync why {user}"
    elif kind is TopicKind.ANALYSIS and over:
        message = f"{how} has its analysis already: {told['server_analysis']}"
        hint = "the first one stays"
    elif kind is TopicKind.ANALYSIS:
        message, hint = f"{how} has no result yet", f"hwsync why {user} says what it waits for"
    else:
        return refusal
    return Refused(refusal.code, message, hint, id=id, published_error=refusal.published_error)


COMMANDS = (status, analyse, cancel, reset)
