"""Records and commands as rows, and back; rows as they are read. Every value goes by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from sqlite3 import Connection
from typing import Any, Final

from peewee import Model

from hwsync.protocol.batch import Batch, Options, Stage, counted
from hwsync.protocol.errors import Code
from hwsync.protocol.files import names_and_hashes
from hwsync.protocol.jsons import dumps
from hwsync.protocol.output import Order
from hwsync.protocol.record import (
    NO_COMMAND,
    NO_REPORT,
    AnalysedBy,
    Asker,
    Command,
    KnownBy,
    Outcome,
    Ran,
    Record,
    Regrade,
    Reply,
    Request,
    RunReport,
    Start,
    State,
    Verb,
    replace,
)
from hwsync.protocol.wire.analyst import analysed_by_json, analysed_by_of
from hwsync.protocol.wire.files import not_kept_json, read_not_kept
from hwsync.protocol.wire.start import read_start, start_json
from hwsync.store import statements
from hwsync.store.contents import SHORT, Contents, columns_of, files_from
from hwsync.store.models import BatchRow, CommandRow, HwStatus, RegradeRow, columns

Row = Mapping[str, Any]
Values = tuple[object, ...]  # of one statement


def in_order(model: type[Model]) -> Callable[[Mapping[str, object]], Values]:
    """Puts the values of a row, by name, in the order of its statement; ``KeyError``: one lacks."""
    return itemgetter(*columns(model))


_STATUS_ROW: Final = in_order(HwStatus)
_COMMAND_ROW: Final = in_order(CommandRow)
_BATCH_ROW: Final = in_order(BatchRow)
_REGRADE_ROW: Final = in_order(RegradeRow)


def select(connection: Connection, sql: str, *values: object) -> Iterator[dict[str, Any]]:
    """The rows of a query, by the names of their columns; all are read at once."""
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    for row in cursor.fetchall():
        yield dict(zip(names, row, strict=True))


def find_command(
    connection: Connection, user: str, id: str, contents: Contents | None = None
) -> Command | None:
    """One command, None where there is none; ``contents``: where texts are looked for first."""
    row = next(select(connection, statements.COMMAND, user, id), None)
    return None if row is None else command_from(row, contents or Contents(connection))


def start_from(text: str | None) -> Start | None:
    """The start of a request, of a row's column."""
    return None if text is None else read_start(json.loads(text))


def _list(values: Sequence[object]) -> str:
    """A list as JSON; most are empty, and every encoding sets up an encoder first."""
    return dumps(values) if values else "[]"


def asked_from(row: Row, contents: Contents) -> Request:
    """What a request says in texts, of a row of ``CommandRow``."""
    text = contents.text
    return Request(
        program=text(row, "program"),
        stdin=text(row, "stdin"),
        args=tuple(json.loads(text(row, "args"))),
        meta=text(row, "meta"),
        files=files_from(text(row, "files")),
        collect=tuple(json.loads(row["collect"])),
    )


def batch_values(batch: Batch, ticks: float) -> Values:
    """The values of ``BatchRow``; who is waited for is kept as the seconds that are left."""
    until = batch.wait_until
    return _BATCH_ROW(
        {
            "key": batch.key,
            "of_group": batch.group,
            "id": batch.id,
            "digest": batch.digest,
            "parallel": batch.options.parallel,
            "abort": batch.options.abort,
            "online": batch.options.online,
            "seq": batch.seq,
            "issued": batch.issued,
            "ended": batch.ended,
            "replies": _replies(batch.replies),
            "start": None if batch.start is None else dumps(start_json(batch.start)),
            "wait_left": None if until is None else until - ticks,
            "start_at_us": batch.start_at_us,
            "start_life": batch.start_life,
        }
    )


def batch_from(
    row: Row, members: Sequence[Row], stages: Mapping[str, Stage], ticks: float
) -> Batch:
    """The batch of a row of ``BatchRow``, of its members' rows, and how far their commands are."""
    refused = {one["user"]: Code(one["refused"]) for one in members if one["refused"]}
    batch = Batch(
        key=row["key"],
        group=row["of_group"],
        id=row["id"],
        members=tuple(one["user"] for one in members),
        digest=row["digest"],
        options=Options(row["parallel"], row["abort"], bool(row["online"])),
        seq=row["seq"],
        issued=row["issued"],
        ended=row["ended"],
        refused=refused,
        replies=_replies_from(row["replies"]),
        start=start_from(row["start"]),
        wait_until=None if row["wait_left"] is None else ticks + row["wait_left"],
        start_at_us=row["start_at_us"],
        start_life=row["start_life"],
    )
    return counted(batch, stages)


def record_values(record: Record, ticks: float) -> Values:
    """The values of ``HwStatus``; the deadline is kept as the seconds that are left."""
    command = record.current or NO_COMMAND
    report = command.report or NO_REPORT
    remaining, taken, unoffered = time_values(record, ticks)
    return _STATUS_ROW(
        {
            "user": record.user,
            "state": int(record.state),
            "command": record.verb or "",
            "hw_command": _shown(command),
            "hw_response": report.response,
            "server_analysis": command.analysis or "",
            "time": record.time,
            "id": command.id,
            "epoch": record.epoch,
            "seq": record.seq,
            "deadline": record.deadline_wall,
            "remaining": remaining,
            "cancelling": record.cancelling,
            "settled": _list(record.settled),
            "count": record.count,
            "queue": _list(record.queue),
            "taken": taken,
            "forgotten": record.forgotten,
            "idle": record.idle,
            "idle_at": record.idle_at,
            "batched": _list(record.batched),
            "unoffered": unoffered,
        },
    )


def _shown(command: Command) -> str:
    """The program in the record's own row; a long one is kept by its content alone."""
    text = command.request.program
    return "" if len(text) > SHORT else text


def time_values(record: Record, ticks: float) -> tuple[float | None, float | None, float | None]:
    """``remaining``, ``taken`` and ``unoffered`` of ``HwStatus``."""
    return (
        None if record.deadline_ticks is None else record.deadline_ticks - ticks,
        None if record.taken_at is None else ticks - record.taken_at,
        None if record.unoffered_ticks is None else record.unoffered_ticks - ticks,
    )


def record_from(row: Row, current: Command | None, ticks: float) -> Record:
    """The record of a row of ``HwStatus``."""
    remaining, unoffered = row["remaining"], row["unoffered"]
    return Record(
        user=row["user"],
        state=State(row["state"]),
        epoch=row["epoch"],
        seq=row["seq"],
        verb=Verb(row["command"]) if row["command"] else None,
        time=row["time"],
        deadline_wall=row["deadline"],
        deadline_ticks=None if remaining is None else ticks + remaining,
        cancelling=bool(row["cancelling"]),
        settled=tuple((id, journal) for id, journal in json.loads(row["settled"])),
        count=row["count"],
        queue=tuple(json.loads(row["queue"])),
        taken_at=None if row["taken"] is None else ticks - row["taken"],
        forgotten=bool(row["forgotten"]),
        current=current,
        idle=row["idle"],
        idle_at=row["idle_at"],
        batched=tuple((id, batch) for id, batch in json.loads(row["batched"])),
        unoffered_ticks=None if unoffered is None else ticks + unoffered,
    )


def command_values(command: Command) -> Values:
    """The values of ``CommandRow``."""
    request, report = command.request, command.report or NO_REPORT
    ended = command.report is not None
    return _COMMAND_ROW(
        {
            **columns_of(command),
            "user": command.user,
            "id": command.id,
            "number": command.number,
            "issued": command.issued,
            "named": request.id is not None,
            "timeout": request.timeout,
            "expires": request.expires,
            "grace": request.grace,
            "digest": command.digest,
            "analyser": command.analyser,
            "journal": command.journal,
            "boot": command.boot,
            "outcome": report.outcome if ended else None,
            "ran": report.ran if ended else None,
            "reason": report.reason,
            "response": report.response,
            "stderr": report.stderr,
            "exit_code": report.exit_code,
            "duration": report.duration,
            "started": report.started,
            "start_error": report.start_error,
            "clock_bound": report.clock_bound,
            "truncated": report.truncated,
            "sha256_stdout": report.sha256_stdout,
            "sha256_stderr": report.sha256_stderr,
            "answered_by": command.answered_by,
            "heard": _list(command.journals_answered),
            "accepted": _list(sorted(command.accepted)),
            "late_collected": command.late_collected and dumps(command.late_collected),
            "analysis": command.analysis,
            "late": command.late,
            "orphan": command.orphan,
            "replies": _replies(command.replies),
            "doubtful": command.doubtful,
            "pruned": command.pruned,
            "asked_by": command.asker and command.asker.name,
            "asked_known_by": command.asker and command.asker.known_by,
            "program_sha256": command.program_sha256,
            "name": request.name,
            "expires_at": request.expires_at,
            "output_order": None if report.order is None else dumps(report.order),
            "start": None if request.start is None else dumps(start_json(request.start)),
            "start_at_us": command.start_at_us,
            "start_life": command.start_life,
            "batch": command.batch,
            "analysed_by": command.analysed_by and dumps(analysed_by_json(command.analysed_by)),
            "regraded": _list(command.regraded),
            "no_analysis": command.no_analysis,
            "collect": _list(request.collect),
            "returned": names_and_hashes(report.files),
            "not_kept": _list(not_kept_json(report.not_kept)) if report.not_kept else "[]",
            "ran_on": report.ran_on,
        },
    )


def command_from(row: Row, contents: Contents) -> Command:
    """The command of a row of ``CommandRow``. Raises ``DatabaseError`` as ``Contents.text``."""
    report = None
    if row["outcome"] is not None:
        report = RunReport(
            outcome=Outcome(row["outcome"]),
            ran=Ran(row["ran"]),
            reason=row["reason"],
            response=row["response"],
            stderr=row["stderr"],
            exit_code=row["exit_code"],
            duration=row["duration"],
            started=row["started"],
            start_error=row["start_error"],
            clock_bound=row["clock_bound"],
            truncated=bool(row["truncated"]),
            sha256_stdout=row["sha256_stdout"],
            sha256_stderr=row["sha256_stderr"],
            order=_order(row["output_order"]),
            files=files_from(row["returned"]),
            not_kept=read_not_kept(json.loads(row["not_kept"])),
            ran_on=row["ran_on"],
        )
    request = replace(
        asked_from(row, contents),
        id=row["id"] if row["named"] else None,
        timeout=row["timeout"],
        expires=row["expires"],
        grace=row["grace"],
        analysis=row["analyser"],
        name=row["name"],
        expires_at=row["expires_at"],
        start=start_from(row["start"]),
    )
    late_collected = json.loads(row["late_collected"] or "null")
    return Command(
        user=row["user"],
        id=row["id"],
        request=request,
        digest=row["digest"],
        number=row["number"],
        issued=row["issued"],
        journal=row["journal"],
        boot=row["boot"],
        report=report,
        answered_by=row["answered_by"],
        journals_answered=tuple(json.loads(row["heard"])),
        accepted=frozenset(Verb(verb) for verb in json.loads(row["accepted"])),
        late_collected=late_collected and (late_collected[0], late_collected[1]),
        analysis=row["analysis"],
        late=bool(row["late"]),
        orphan=bool(row["orphan"]),
        replies=_replies_from(row["replies"]),
        doubtful=bool(row["doubtful"]),
        pruned=bool(row["pruned"]),
        asker=asker_from(row),
        program_sha256=row["program_sha256"],
        start_at_us=row["start_at_us"],
        start_life=row["start_life"],
        batch=row["batch"],
        analysed_by=analysed_by_from(row["analysed_by"]),
        regraded=tuple((name, version) for name, version in json.loads(row["regraded"])),
        no_analysis=row["no_analysis"],
    )


def analysed_by_from(text: str | None) -> AnalysedBy | None:
    """Which analyser gave it, of a row's column."""
    return None if text is None else analysed_by_of(json.loads(text))


def regrade_values(user: str, id: str, regrade: Regrade) -> Values:
    """The values of ``RegradeRow``."""
    return _REGRADE_ROW(
        {
            **{"user": user, "id": id, "analysis": regrade.analysis, "time": regrade.time},
            **analysed_by_json(regrade.by),
        }
    )


def regrade_from(row: Row) -> Regrade:
    """The regrade of a row of ``RegradeRow``."""
    by = AnalysedBy(row["name"], row["version"], row["fault"])
    return Regrade(by, row["analysis"], row["time"])


def find_regrades(connection: Connection, command: Command) -> list[Regrade]:
    """Those of a command, the oldest first; most have none, and nothing is read then."""
    if not command.regraded:
        return []
    rows = select(connection, statements.REGRADES, command.user, command.id)
    return [regrade_from(row) for row in rows]


def _replies(replies: Sequence[Reply]) -> str:
    return _list([(reply.topic, reply.correlation.hex()) for reply in replies])


def _replies_from(text: str) -> tuple[Reply, ...]:
    return tuple(Reply(topic, bytes.fromhex(data)) for topic, data in json.loads(text))


def _order(text: str | None) -> Order | None:
    return None if text is None else tuple((stream, count) for stream, count in json.loads(text))


def asker_from(row: Row) -> Asker | None:
    """Who asked, of a row of ``CommandRow``."""
    if row["asked_by"] is None:
        return None
    return Asker(row["asked_by"], KnownBy(row["asked_known_by"]))
