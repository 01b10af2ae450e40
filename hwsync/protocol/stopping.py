"""How several boards are stopped at once: the cancel of a batch, and stop-all.

The law: first whoever waits is taken out, and only then what has begun is ended, all in one
transaction: nobody's end is the turn of one who is about to be stopped (docs/protocol.md, section
9, "To stop it").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hwsync.protocol import limits, turns
from hwsync.protocol.batch import Batch
from hwsync.protocol.draft import Draft
from hwsync.protocol.effects import AnswerBatch, BatchDecision
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import CancelAsked, ResetAsked
from hwsync.protocol.groups import ALL, SIGN
from hwsync.protocol.record import Moment, State, replace
from hwsync.protocol.rules import Rules


def cancel(draft: Draft, batch: Batch, event: CancelAsked, moment: Moment, rules: Rules) -> None:
    """Nobody of the batch begins any more, and whoever has begun is cancelled.

    Raises ``Refused`` where the event names no id, and may mean the batch before.
    """
    if event.id is None and _is_ambiguous(batch, moment):
        raise Refused(
            Code.AMBIGUOUS,
            f"{batch.id} was asked of {SIGN}{batch.group} a moment ago: it may be the one before "
            "it that is meant",
            f'name the batch: {{"id": "{batch.id}"}}',
        )
    for user in batch.members:
        if _waits_of(draft, user, batch):
            draft.take(turns.one(draft, user, CancelAsked(batch.id, of_group=True), moment, rules))
    _cancel_begun(draft, batch.members, batch.key, moment, rules)
    turns.of_batches(draft, moment, rules)
    draft.take(BatchDecision(None, (AnswerBatch(batch.key),)))


def cancel_all(draft: Draft, members: Sequence[str], moment: Moment, rules: Rules) -> None:
    """Whatever waits for these boards or has begun there is cancelled, whichever batch it is of."""
    _take_out(draft, members, moment, rules)
    _cancel_begun(draft, members, None, moment, rules)
    turns.of_batches(draft, moment, rules)
    draft.take(BatchDecision(None))


def stop_all(
    draft: Draft,
    group: str,
    event: ResetAsked,
    members: Sequence[str],
    moment: Moment,
    rules: Rules,
) -> None:
    """Each member at rest, its queue empty, and in no batch any more in which it has not begun.

    Raises ``Refused`` where the event asks for more than that.
    """
    if event.forget or event.id is not None:
        raise Refused(
            Code.BAD_PAYLOAD,
            f"a reset of {SIGN}{group} stops all of its boards, and names no command",
            "send it empty",
        )
    _take_out(draft, members, moment, rules)
    _leave_lists(draft, None if group == ALL else set(members))
    for user in members:
        record = draft.record(user)
        if record is not None and record.state is not State.REST:
            draft.take(turns.one(draft, user, ResetAsked(record.id), moment, rules))
    turns.of_batches(draft, moment, rules)
    newest = draft.newest(group)
    draft.take(BatchDecision(None, (AnswerBatch(newest.key),) if newest else ()))


def _take_out(draft: Draft, users: Iterable[str], moment: Moment, rules: Rules) -> None:
    """Whatever waits for these, in a queue or in a batch, is cancelled."""
    for user in users:
        record = draft.record_of(user)
        for id in (*record.queue, *(id for id, _ in record.batched)):
            draft.take(turns.one(draft, user, CancelAsked(id, of_group=True), moment, rules))


def _leave_lists(draft: Draft, users: set[str] | None) -> None:
    """These (None: all) are in no batch any more that they have not joined.

    Their requests come too late.
    """
    for batch in draft.open_batches():
        late = (
            ()
            if batch.group
            else [
                user
                for user in batch.members
                if (users is None or user in users)
                and user not in batch.refused
                and not _has_joined(draft, user, batch)
            ]
        )
        if late:
            refused = {**batch.refused, **dict.fromkeys(late, Code.WRONG_STATE)}
            draft.take(BatchDecision(replace(batch, refused=refused, seq=batch.seq + 1)))
            draft.touched[batch.key] = None


def _cancel_begun(
    draft: Draft, users: Iterable[str], key: str | None, moment: Moment, rules: Rules
) -> None:
    """What has begun of these, of that batch or (None) of any, is cancelled; then turns follow."""
    users = list(users)
    for user in users:
        record = draft.record(user)
        own = record.current if record is not None else None
        if own is not None and own.report is None and key in (None, own.batch):
            draft.take(turns.one(draft, user, CancelAsked(own.id, of_group=True), moment, rules))
    for user in users:
        turns.of_queue(draft, user, moment, rules)


def _waits_of(draft: Draft, user: str, batch: Batch) -> bool:
    """Whether a member's command of that batch has not begun."""
    record = draft.record_of(user)
    return record.is_waiting(batch.id) and _has_joined(draft, user, batch)


def _has_joined(draft: Draft, user: str, batch: Batch) -> bool:
    command = draft.command(user, batch.id)
    return command is not None and command.batch == batch.key


def _is_ambiguous(batch: Batch, moment: Moment) -> bool:
    """Whether a person may mean the batch before the newest one."""
    asked = batch.ticks
    return batch.follows and asked is not None and moment.ticks - asked < limits.AMBIGUOUS_S
