"""Whose turn it is: of those that wait in a board's queue, and of those that wait in a batch.

The law: who waits begins in the same transaction in which it becomes possible, and never in a later
one: his record is at rest, and his batch has a place for him. A record's own queue comes first. A
batch whose members have all ended ends here. ``one`` is how an event changes one record, within the
number of users that may be.
"""

from __future__ import annotations

from hwsync.protocol import idle, limits, machine, waiting
from hwsync.protocol.admission import cannot
from hwsync.protocol.answers import refuse
from hwsync.protocol.batch import Batch
from hwsync.protocol.draft import Draft
from hwsync.protocol.effects import BatchDecision, Decision, Effect, PublishBatch, ReplyBatch
from hwsync.protocol.errors import Code, DatabaseError, Refused
from hwsync.protocol.events import Collected, Event, NextInQueue, Requested, Returned
from hwsync.protocol.files import only_asked_for
from hwsync.protocol.record import Command, Moment, Record, Request, RunReport, State, replace
from hwsync.protocol.rules import Rules


def one(draft: Draft, user: str, event: Event, moment: Moment, rules: Rules) -> Decision:
    """What one event does to one record."""
    command = None if event.id is None else draft.command(user, event.id)
    if isinstance(event, Requested) and command is None:
        refusal = cannot(event.request, draft.device(user))
        if refusal is not None:
            return refuse(draft.record_of(user), machine.about(refusal, event))
    if isinstance(event, Returned) and event.report.files:
        asked = command if event.id is not None else draft.record_of(user).current
        if asked is not None and not asked.orphan:
            event = replace(event, report=_as_asked(event.report, asked.request))
    if isinstance(event, Collected) and command is not None:
        batch = draft.batch(command.batch) if command.batch else None
        event = replace(event, wait_until=batch.wait_until if batch else None)
    decision = machine.decide(draft.record_of(user), event, moment, command, rules)
    if is_one_too_many(draft, decision):
        return _one_too_many(draft, user, event)
    return decision


def _as_asked(report: RunReport, request: Request) -> RunReport:
    """The same without files that nobody asked for: a board may only say that there are some."""
    files, not_kept = only_asked_for(request.collect, report.files, report.not_kept)
    return replace(report, files=files, not_kept=not_kept)


def within(
    draft: Draft, decision: Decision, command: Command | None, moment: Moment, rules: Rules
) -> Decision:
    """A decision that is not the table's, as far as its user has room."""
    before = draft.record_of(decision.record.user)
    return idle.within(before, command, decision, moment, rules.allowance)


def of_queue(draft: Draft, user: str, moment: Moment, rules: Rules) -> None:
    """Where the user's record is at rest, the first of its queue follows, until one may run."""
    while (command := _next_in_queue(draft.record_of(user), draft)) is not None:
        batch = draft.batch(command.batch) if command.batch else None
        if batch is not None and batch.is_aborted:
            _let_nobody_begin(draft, batch, moment, rules)
        else:
            _turn(draft, command, moment, rules)


def of_batches(draft: Draft, moment: Moment, rules: Rules) -> None:
    """Each batch that was touched: who may begin now, and whether it has ended."""
    while draft.touched:
        key = next(iter(draft.touched))
        while _go_on(draft, key, moment, rules):
            pass
        draft.touched.pop(key, None)
        if (batch := draft.batch(key)) is not None:
            draft.take(settled(batch, moment))


def settled(batch: Batch, moment: Moment) -> BatchDecision:
    """The batch as its members leave it; its end, once all of them have ended."""
    effects: tuple[Effect, ...] = (PublishBatch(batch.key),)
    if batch.is_over and batch.ended is None:
        batch = replace(batch, ended=moment.wall)
        if batch.replies:
            effects = (*effects, ReplyBatch(batch.key, batch.replies))
    return BatchDecision(batch, effects)


def lose_waiting(draft: Draft, user: str, moment: Moment, rules: Rules) -> None:
    """What waits here is lost: a new epoch begins, and it may have run before."""
    record = draft.record_of(user)
    for id in (*record.queue, *(id for id, _ in record.batched)):
        command = draft.command(user, id)
        if command is not None:
            lost = waiting.lose(draft.record_of(user), command, moment)
            draft.take(within(draft, lost, command, moment, rules))


def is_one_too_many(draft: Draft, decision: Decision) -> bool:
    """Whether this would be the record of one user more than may be."""
    new = decision.entry is not None and draft.record(decision.record.user) is None
    return new and draft.count() >= limits.MAX_USERS


def without_record(record: Record, refusal: Refused) -> Decision:
    """A result is settled in a status that is published once, and kept by nobody."""
    settled = idle.turned_away(record, refusal.id or "", refusal.journal or "", refusal)
    return replace(settled, unlogged=False)


def _one_too_many(draft: Draft, user: str, event: Event) -> Decision:
    """A message that would make one record too many: refused, a result settled too."""
    refusal = Refused(
        Code.NOT_ALLOWED,
        f"{user} is new, and there are records of {limits.MAX_USERS} boards already",
        "is its name right? hwsync status lists the boards",
    )
    refusal, record = machine.about(refusal, event), draft.record_of(user)
    if refusal.id and refusal.journal:
        return without_record(record, refusal)
    return refuse(record, refusal)


def _go_on(draft: Draft, key: str, moment: Moment, rules: Rules) -> bool:
    """One of the batch begins, or ends without; whether somebody did."""
    batch = draft.batch(key)
    if batch is None:
        return False
    if batch.is_aborted:
        return _let_nobody_begin(draft, batch, moment, rules)
    free = (user for user in batch.waiting if draft.record_of(user).state is State.REST)
    chosen = next(free, None) if batch.has_place else None
    if chosen is None:
        return False
    _turn(draft, _waiting(draft, chosen, batch.id), moment, rules)
    return True


def _let_nobody_begin(draft: Draft, batch: Batch, moment: Moment, rules: Rules) -> bool:
    """Whoever has not begun leaves the batch, or his queue, all for the same reason.

    Whether there was somebody.
    """
    if not batch.waiting and not batch.queued:
        return False
    for user in batch.members:
        record = draft.record_of(user)
        command = draft.command(user, batch.id) if record.is_waiting(batch.id) else None
        if command is not None and command.batch == batch.key:
            left = waiting.abort(record, command, moment, batch)
            draft.take(replace(within(draft, left, command, moment, rules), turn=True))
    return True


def _turn(draft: Draft, command: Command, moment: Moment, rules: Rules) -> None:
    taken = one(draft, command.user, NextInQueue(command), moment, rules)
    draft.take(replace(taken, turn=True))


def _next_in_queue(record: Record, draft: Draft) -> Command | None:
    """The command that follows where a record is at rest and requests wait; None: none does."""
    if record.state is not State.REST or not record.queue:
        return None
    return _waiting(draft, record.user, record.queue[0])


def _waiting(draft: Draft, user: str, id: str) -> Command:
    """A command that waits. Raises ``DatabaseError`` where it is not known."""
    command = draft.command(user, id)
    if command is None:
        raise DatabaseError(f"{id} waits for {user}, and is lost")
    return command
