"""How a request waits, and how it leaves: behind the present command, or for a place in its batch.

The law: while it waits, nobody can have run it, and the state does not move. Whose turn it is, is
decided in ``turns``; taking it is a move of the table (docs/protocol.md, section 2, "The queue").
"""

from __future__ import annotations

from typing import Final

from hwsync.protocol import idle, limits, replies
from hwsync.protocol.admission import accept
from hwsync.protocol.answers import answers
from hwsync.protocol.batch import NOT_BEGUN, Batch, is_shared
from hwsync.protocol.effects import Decision, Effect, LogEntry, PublishResult, PublishStatus
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import Requested
from hwsync.protocol.record import (
    Command,
    Moment,
    Outcome,
    Ran,
    Record,
    RunReport,
    State,
    Verb,
    replace,
)
from hwsync.protocol.rules import Rules

TOO_LATE: Final = "not collected before its expires_at"  # why it expired, by the wall clock


def join(record: Record, event: Requested, moment: Moment, rules: Rules) -> Decision:
    """The request waits behind the present command; the state does not move.

    Raises ``Refused`` where there is no room (``queue_full``), or it may not be accepted now.
    """
    bytes = idle.weight(event.request)
    _check_room(record, bytes, rules.allowance.max_queue)
    counted, command = accept(record, event, moment, rules)
    after = replace(
        counted,
        seq=record.seq + 1,
        time=moment.wall,
        queue=(*record.queue, command.id),
        queue_bytes=record.queue_bytes + bytes,
    )
    note = f"queued at place {len(after.queue)}"
    note += f"; {command.asker.note}" if command.asker else ""
    entry = LogEntry(Verb.REQUEST, record.state, record.state, command.id, note=note)
    return Decision(after, entry, command, answers(after, command))


def join_batch(record: Record, event: Requested, moment: Moment, rules: Rules) -> Decision:
    """The request of a batch's member waits for its place there; the state does not move.

    Raises ``Refused`` as ``join`` does.
    """
    assert event.part is not None
    bytes = idle.weight(event.request)
    _check_room(record, bytes, limits.MAX_QUEUE)
    counted, command = accept(record, event, moment, rules)
    after = replace(
        counted,
        seq=record.seq + 1,
        time=moment.wall,
        batched=(*record.batched, (command.id, event.part.key)),
        queue_bytes=record.queue_bytes + bytes,
    )
    note = "waits for its place in the batch"
    note += f"; {command.asker.note}" if command.asker else ""
    entry = LogEntry(Verb.REQUEST, record.state, record.state, command.id, note=note)
    return Decision(after, entry, command, (PublishStatus(after),))


def _check_room(record: Record, bytes: int, most: int) -> None:
    """Raises ``Refused`` where no further request, or none of so many bytes, may wait."""
    number = len(record.queue) + len(record.batched)
    waiting = f"{number} requests wait for {record.user} already"
    full = record.queue_bytes + bytes > limits.MAX_QUEUE_BYTES
    if full:
        waiting += f", with {record.queue_bytes} bytes, and this one has {bytes}"
    if full or number >= min(most, limits.MAX_QUEUE):
        raise Refused(
            Code.QUEUE_FULL,
            waiting,
            "wait until some have ended, cancel some, or reset the queue",
        )


def cancel(record: Record, known: Command, moment: Moment, *, asked: bool) -> Decision:
    """It leaves the queue, and has provably not run; ``asked``: of this board, by its id."""
    report = RunReport(
        Outcome.CANCELLED, Ran.NO, f"cancelled while it waited {_where(record, known)}"
    )
    ended = replace(
        known, report=known.without_false_no(report), accepted=known.accepted | {Verb.CANCEL}
    )
    return _leave(record, ended, Verb.CANCEL, moment, asked=asked)


def expire(record: Record, known: Command, moment: Moment) -> Decision:
    """It leaves the queue: its turn comes when the wall clock says that nobody may collect it."""
    reason = f"{TOO_LATE}: it waited {_where(record, known)}"
    if not record.place(known.id):
        reason = f"{NOT_BEGUN}: {reason}"
    return _expired(record, known, moment, reason)


def abort(record: Record, known: Command, moment: Moment, batch: Batch) -> Decision:
    """It leaves its batch, of which too many have not ended well."""
    many = f"{batch.bad} of {len(batch.members)} boards ended without ok"
    return _expired(
        record, known, moment, f"{NOT_BEGUN}: {many} (abort {batch.options.abort:.12g})"
    )


def _expired(record: Record, known: Command, moment: Moment, reason: str) -> Decision:
    report = RunReport(Outcome.EXPIRED, Ran.NO, reason)
    ended = replace(known, report=known.without_false_no(report))
    return _leave(record, ended, Verb.EXPIRE, moment)


def _where(record: Record, known: Command) -> str:
    return "in the queue" if record.place(known.id) else "for its place in the batch"


def lose(record: Record, known: Command, moment: Moment) -> Decision:
    """It leaves the queue, since an older database was put back: it may have run already."""
    lost = RunReport(Outcome.LOST, Ran.MAYBE, "an older database was put back while it waited")
    ended = replace(known, report=lost, doubtful=True)
    return _leave(record, ended, Verb.RESTORE, moment)


def _leave(
    record: Record, ended: Command, verb: Verb, moment: Moment, *, asked: bool = False
) -> Decision:
    """The end of a member of a group's batch is in the batch's status, unless it was asked for.

    Else the same program would go out once for each member at the same moment.
    """
    after = replace(without(record, ended), seq=record.seq + 1, time=moment.wall)
    note = "left the queue" if record.place(ended.id) else "left its batch before it began"
    entry = LogEntry(verb, record.state, record.state, ended.id, note=note)
    effects: tuple[Effect, ...] = (PublishStatus(after),)
    if asked or not is_shared(ended.batch):
        effects = (*effects, PublishResult(ended, State.REST))
    return Decision(after, entry, ended, (*effects, *replies.of(after, ended)))


def without(record: Record, command: Command) -> Record:
    """The record without a command that waits, wherever it does."""
    return replace(
        record,
        queue=tuple(id for id in record.queue if id != command.id),
        batched=tuple(pair for pair in record.batched if pair[0] != command.id),
        queue_bytes=record.queue_bytes - idle.weight(command.request),
    )
