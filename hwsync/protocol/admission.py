"""A request becomes a command: what it must equal, what is counted of it, and who asked for it.

The law: a known id starts nothing. What a new request must be is asked before the table
(``machine``); what a coordinator counts (requests a minute, what led to nothing) only where it is
accepted (docs/protocol.md, sections 2 and 4). Who asked is never proved: MQTT tells the
coordinator no account. A response topic below ``replies/<account>/`` says who gets the answer; a
claim says what its sender wrote; else nobody is named. Nothing is refused for it.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

from hwsync.protocol import idle, limits, starts
from hwsync.protocol.batch import Part, is_shared
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import HeartbeatReceived, Requested
from hwsync.protocol.jsons import dumps, loads, size
from hwsync.protocol.record import (
    Asker,
    Command,
    KnownBy,
    Moment,
    Record,
    Reply,
    Request,
    replace,
)
from hwsync.protocol.reply_topics import account_of
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.heartbeat import FILES, START
from hwsync.protocol.wire.start import start_json

CLAIM: Final = "by"  # the key of a request's ``meta``


def digest_of(request: Request) -> str:
    """What must be equal in a repeat of an id: program, stdin, args, a name of its own, a start.

    And files and what is collected. SHA-256, hexadecimal. The default's name is as if none was
    given, since it means the same; so are no files.
    """
    texts: list[object] = [request.program, request.stdin, request.args]
    if request.name not in (None, limits.DEFAULT_NAME):
        texts.append({"name": request.name})
    if request.start is not None:
        texts.append({"start": start_json(request.start)})
    if request.files:
        texts.append({"files": [(one.path, one.sha256) for one in request.files]})
    if request.collect:
        texts.append({"collect": request.collect})
    return hashlib.sha256(dumps(texts).encode()).hexdigest()


def check_repeat(event: Requested, known: Command) -> None:
    """Raises ``Refused`` where the id belongs to another program, or to another batch."""
    if event.part is not None and event.part.key != known.batch:
        raise Refused(
            Code.ID_REUSED,
            f"{known.user} has a command {known.id} already, which is not of this batch",
            "take a new id for a new batch; the same list of boards in each member's request",
        )
    if not known.orphan and digest_of(event.request) != known.digest:
        raise Refused(
            Code.ID_REUSED,
            f"the id {known.id} belongs to another program, stdin, args, name, start, files or "
            f"collect of {known.user}",
            "take a new id for a new command",
        )


def cannot(request: Request, device: HeartbeatReceived | None) -> Refused | None:
    """Why a board that is online cannot do what is asked; None: it can, or nobody knows.

    ``device``: the last that was heard of it; None: nothing was. Whoever is away may come back with
    another version, and else its command expires.
    """
    if device is None or not device.online:
        return None
    for asked, capability, what, keys in (
        (request.start is not None, START, "begin a program at an instant", "'start'"),
        (bool(request.files), FILES, "take files along with a program", "'files'"),
        (bool(request.collect), FILES, "bring files back", "'collect'"),
    ):
        if asked and capability not in device.can:
            return Refused(
                Code.NOT_ALLOWED,
                f"this board cannot {what}",
                f"leave {keys} out, or install a newer hwsync on the board",
            )
    return None


def accept(
    record: Record, event: Requested, moment: Moment, rules: Rules
) -> tuple[Record, Command]:
    """The command that a new request makes, and the record that has counted it.

    Raises ``Refused`` where too much of what came before led to nothing, or came lately. What is
    counted is counted here only: at once, or when it goes to the queue.
    """
    idle.accepts(record, moment, rules.allowance)
    command = _new_command(record, event, moment, rules)
    recent = _counted(record, moment, rules.allowance.requests_per_minute)
    return replace(record, count=command.number, recent=recent), command


def _counted(record: Record, moment: Moment, most: int) -> tuple[float, ...]:
    """When the last minute's commands were accepted, one more now; raises ``Refused``.

    Only what was accepted counts, so whoever waits as long as the hint says is accepted.
    ``most``: of a minute; 0: nothing is counted.
    """
    if not most:
        return ()
    now = moment.ticks
    recent = tuple(at for at in record.recent if now - at < limits.RATE_S)
    if len(recent) >= most:
        wait = math.ceil(recent[-most] + limits.RATE_S - now)
        raise Refused(
            Code.NOT_ALLOWED,
            f"more than {most} requests a minute for {record.user}",
            f"try again in {wait} s",
        )
    return (*recent, now)


def _new_command(record: Record, event: Requested, moment: Moment, rules: Rules) -> Command:
    request, part, number = event.request, event.part or part_of(event.request), record.count + 1
    command = Command(
        record.user,
        request.id or f"{number}-{moment.nonce}",
        replace(request, analysis=request.analysis or rules.analysis),
        digest=part.digest,
        number=number,
        issued=moment.wall,
        replies=(event.reply,) if event.reply and not is_shared(part.key) else (),
        doubtful=_may_be_from_before(request, moment, rules),
        asker=asker_of(request, event.reply),
        program_sha256=part.program_sha256,
        batch=part.key,
    )
    return starts.fixed(command, moment)


def part_of(request: Request, key: str = "") -> Part:
    """What is kept of a request for knowing it again; ``key``: of its batch, where it has one."""
    return Part(key, digest_of(request), hashlib.sha256(request.program.encode()).hexdigest())


def _may_be_from_before(request: Request, moment: Moment, rules: Rules) -> bool:
    """Whether the sender's id may have been used before an older database was put back."""
    restored = rules.restored_at
    return (
        request.id is not None
        and restored is not None
        and (moment.ticks - restored < limits.DOUBT_S)
    )


def asker_of(request: Request, reply: Reply | None) -> Asker | None:
    """Who asked; where both are given, the response topic counts more than the claim."""
    if reply is not None and (account := account_of(reply)) is not None:
        return Asker(account, KnownBy.REPLY_TOPIC)
    meta = loads(request.meta)
    claim = meta.get(CLAIM) if isinstance(meta, dict) else None
    if isinstance(claim, str) and 0 < size(claim) <= limits.MAX_CLAIM:
        return Asker(claim, KnownBy.CLAIM)
    return None
