"""Records and commands as rows, and back; rows as they are read.

The order of the values is that of the columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Final

from peewee import Model

from hwsync.coordinator.models import CommandRow
from hwsync.protocol.jsons import dumps
from hwsync.protocol.output import Order
from hwsync.protocol.record import (
    Account,
    Asker,
    Command,
    KnownBy,
    Outcome,
    Ran,
    Record,
    Reply,
    Request,
    State,
    Verb,
)

Row = Mapping[str, Any]
_NOBODY = Command("", "", Request(""))
_OPEN = Account(Outcome.OK, Ran.YES)


def table(model: type[Model]) -> str:
    """The name of a model's table."""
    return str(model._meta.table_name)


def select(connection: Connection, sql: str, *values: object) -> Iterator[dict[str, Any]]:
    """The rows of a query, by the names of their columns; all are read at once."""
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    for row in cursor.fetchall():
        yield dict(zip(names, row, strict=True))


_SELECT_COMMAND: Final = f'SELECT * FROM "{table(CommandRow)}" WHERE user = ? AND id = ?'


def find_command(connection: Connection, user: str, id: str) -> Command | None:
    """One command, None where there is none."""
    row = next(select(connection, _SELECT_COMMAND, user, id), None)
    return None if row is None else command_from(row)


def _list(values: Sequence[object]) -> str:
    """A list as JSON; most are empty, and every encoding sets up an encoder first."""
    return dumps(values) if values else "[]"


def record_values(record: Record, ticks: float) -> tuple[object, ...]:
    """The values of ``HwStatus``; the deadline is kept as the seconds that are left."""
    command = record.current or _NOBODY
    account = command.account or _OPEN
    remaining, taken = time_values(record, ticks)
    return (
        record.user,
        int(record.state),
        record.verb or "",
        command.request.program,
        account.response,
        command.analysis or "",
        record.time,
        command.id,
        record.epoch,
        record.seq,
        record.deadline,
        remaining,
        record.cancelling,
        _list(record.settled),
        record.count,
        _list(record.queue),
        taken,
        record.forgotten,
        record.idle,
        record.idle_at,
    )


def time_values(record: Record, ticks: float) -> tuple[float | None, float | None]:
    """``remaining`` and ``taken`` of ``HwStatus``."""
    return (
        None if record.due_at is None else record.due_at - ticks,
        None if record.taken_at is None else ticks - record.taken_at,
    )


def record_from(row: Row, current: Command | None, ticks: float) -> Record:
    """The record of a row of ``HwStatus``."""
    remaining = row["remaining"]
    return Record(
        row["user"],
        State(row["state"]),
        row["epoch"],
        row["seq"],
        Verb(row["command"]) if row["command"] else None,
        row["time"],
        row["deadline"],
        None if remaining is None else ticks + remaining,
        bool(row["cancelling"]),
        tuple((id, journal) for id, journal in json.loads(row["settled"])),
        row["count"],
        tuple(json.loads(row["queue"])),
        None if row["taken"] is None else ticks - row["taken"],
        bool(row["forgotten"]),
        current,
        idle=row["idle"],
        idle_at=row["idle_at"],
    )


def command_values(command: Command) -> tuple[object, ...]:
    """The values of ``CommandRow``."""
    request, account = command.request, command.account or _OPEN
    ended = command.account is not None
    return (
        command.user,
        command.id,
        command.number,
        command.issued,
        request.id is not None,
        request.program,
        request.stdin,
        _list(request.args),
        request.timeout,
        request.expires,
        request.grace,
        request.meta,
        command.digest,
        command.analyser,
        command.journal,
        command.boot,
        account.outcome if ended else None,
        account.ran if ended else None,
        account.reason,
        account.response,
        account.stderr,
        account.exit_code,
        account.duration,
        account.started,
        account.start_error,
        account.clock_bound,
        account.truncated,
        account.sha256_stdout,
        account.sha256_stderr,
        command.answered_by,
        _list(command.heard),
        _list(sorted(command.accepted)),
        command.late_collected and dumps(command.late_collected),
        command.analysis,
        command.late,
        command.orphan,
        _list([(reply.topic, reply.correlation.hex()) for reply in command.replies]),
        command.doubtful,
        command.pruned,
        command.asker and command.asker.name,
        command.asker and command.asker.known_by,
        command.program_sha256,
        request.name,
        request.expires_at,
        None if account.order is None else dumps(account.order),
    )


def command_from(row: Row) -> Command:
    """The command of a row of ``CommandRow``."""
    account = None
    if row["outcome"] is not None:
        account = Account(
            Outcome(row["outcome"]),
            Ran(row["ran"]),
            row["reason"],
            row["response"],
            row["stderr"],
            row["exit_code"],
            row["duration"],
            row["started"],
            row["start_error"],
            row["clock_bound"],
            bool(row["truncated"]),
            row["sha256_stdout"],
            row["sha256_stderr"],
            _order(row["output_order"]),
        )
    request = Request(
        row["program"],
        row["id"] if row["named"] else None,
        row["timeout"],
        row["expires"],
        row["grace"],
        row["stdin"],
        tuple(json.loads(row["args"])),
        row["analyser"],
        row["meta"],
        name=row["name"],
        expires_at=row["expires_at"],
    )
    late_collected = json.loads(row["late_collected"] or "null")
    return Command(
        row["user"],
        row["id"],
        request,
        row["digest"],
        row["number"],
        row["issued"],
        row["journal"],
        row["boot"],
        account,
        row["answered_by"],
        tuple(json.loads(row["heard"])),
        frozenset(Verb(verb) for verb in json.loads(row["accepted"])),
        late_collected and (late_collected[0], late_collected[1]),
        row["analysis"],
        bool(row["late"]),
        bool(row["orphan"]),
        tuple(Reply(topic, bytes.fromhex(data)) for topic, data in json.loads(row["replies"])),
        bool(row["doubtful"]),
        bool(row["pruned"]),
        asker_from(row),
        row["program_sha256"],
    )


def _order(text: str | None) -> Order | None:
    return None if text is None else tuple((stream, count) for stream, count in json.loads(text))


def asker_from(row: Row) -> Asker | None:
    """Who asked, of a row of ``CommandRow``."""
    if row["asked_by"] is None:
        return None
    return Asker(row["asked_by"], KnownBy(row["asked_known_by"]))
