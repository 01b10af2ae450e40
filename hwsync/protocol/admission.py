"""A request becomes a command: what it must be, and who asked for it.

The law: a known id starts nothing. What is asked of a new request is asked before the table; what a
coordinator counts (requests a minute, what led to nothing) only where it is accepted
(docs/protocol.md, sections 2 and 4). Who asked is never proved: MQTT tells the coordinator no
account. A response topic below ``replies/<account>/`` says who gets the answer; a claim says what
its sender wrote; else nobody is named. Nothing is refused for it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from hwsync.protocol import idle, limits
from hwsync.protocol.changed import replace
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import Requested
from hwsync.protocol.jsons import dumps, loads, size
from hwsync.protocol.record import Asker, Command, KnownBy, Moment, Record, Reply, Request, is_past
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.envelope import envelope_size

REPLIES: Final = "replies"  # with accounts, only <account> may read below replies/<account>
CLAIM: Final = "by"  # the key of a request's ``meta``


def digest_of(request: Request) -> str:
    """What must be equal in a repeat of an id: program, stdin, args, and a name of its own.

    SHA-256, hexadecimal. The default's name is as if none was given, since it means the same.
    """
    texts: list[object] = [request.program, request.stdin, request.args]
    if request.name not in (None, limits.DEFAULT_NAME):
        texts.append({"name": request.name})
    return hashlib.sha256(dumps(texts).encode()).hexdigest()


def check_repeat(request: Request, known: Command) -> None:
    """Raises ``Refused`` where the id belongs to another program."""
    if not known.orphan and digest_of(request) != known.digest:
        raise Refused(
            Code.ID_REUSED,
            f"the id {known.id} belongs to another program, stdin, args or name of {known.user}",
            "take a new id for a new command",
        )


def check_new(record: Record, request: Request, moment: Moment, rules: Rules) -> None:
    """Raises ``Refused`` where nobody could ever be sent it."""
    if is_past(request.expires_at, moment):
        raise Refused(
            Code.BAD_PAYLOAD,
            f"'expires_at' is {request.expires_at:.3f}, and it is {moment.wall:.3f} already",
            "name a later time, in seconds since 1970 (Unix time), or leave the key out",
        )
    rules.allowance.fits(request)
    command = Command(record.user, request.id or "i" * 64, request)
    waits = replace(record, current=command)
    if above := above_broker(waits, rules.max_message, signed=rules.signed):
        raise Refused(
            Code.TOO_LARGE,
            f"the program cannot be sent: {above}",
            "a shorter program or input, or a larger limit of the broker",
        )


def above_broker(record: Record, most: int, *, signed: bool) -> str:
    """What its envelope has against a limit of the broker; empty where it can be sent."""
    if most >= limits.MAX_MESSAGE:
        return ""
    length = envelope_size(record, signed=signed)
    if length <= most:
        return ""
    return f"its message has {length} bytes, and the broker takes at most {most}"


def accept(
    record: Record, event: Requested, moment: Moment, rules: Rules
) -> tuple[Record, Command]:
    """The command that a new request makes, and the record that has counted it.

    Raises ``Refused`` where too much of what came before led to nothing, or came lately. What is
    counted is counted here only: at once, or when it goes to the queue.
    """
    idle.accepts(record, moment, rules.allowance)
    command = _new_command(record, event, moment, rules)
    recent = rules.allowance.counted(record, moment)
    return replace(record, count=command.number, recent=recent), command


def _new_command(record: Record, event: Requested, moment: Moment, rules: Rules) -> Command:
    request, number = event.request, record.count + 1
    return Command(
        record.user,
        request.id or f"{number}-{moment.nonce}",
        replace(request, analysis=request.analysis or rules.analysis),
        digest=digest_of(request),
        number=number,
        issued=moment.wall,
        replies=(event.reply,) if event.reply else (),
        doubtful=_may_be_from_before(request, moment, rules),
        asker=asker_of(request, event.reply),
        program_sha256=hashlib.sha256(request.program.encode()).hexdigest(),
    )


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
    if reply is not None:
        first, _, rest = reply.topic.partition("/")
        account = rest.partition("/")[0]
        if first == REPLIES and limits.is_user(account):
            return Asker(account, KnownBy.REPLY_TOPIC)
    meta = loads(request.meta)
    claim = meta.get(CLAIM) if isinstance(meta, dict) else None
    if isinstance(claim, str) and 0 < size(claim) <= limits.MAX_CLAIM:
        return Asker(claim, KnownBy.CLAIM)
    return None
