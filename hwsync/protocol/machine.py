"""The table, and what follows from it (docs/protocol.md, section 2).

The law: ``TABLE`` is the only way a record's state moves. A pair of verb and state that is not in
it is a hole, and a hole is a refusal. ``decide`` takes a record, an event and a moment, and returns
what the record becomes, the row for the log and what to publish; it performs nothing. ``due`` says
of a record alone what everybody should have been told, so that after a crash nothing needs
remembering.

Around the table stand the rules for events that name an id: copies change nothing, an event of an
earlier command is stored with that command, and a result is settled whatever becomes of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from hwsync.protocol import idle, late, limits, replies
from hwsync.protocol.allowance import FULL, Allowance
from hwsync.protocol.analysis import MANUAL
from hwsync.protocol.asker import asker_of
from hwsync.protocol.effects import (
    Analyse,
    ClearKept,
    Decision,
    Effect,
    Entry,
    PublishEnvelope,
    PublishError,
    PublishResult,
    PublishStatus,
)
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
    Collected,
    DeadlinePassed,
    Event,
    NextInQueue,
    Queried,
    Requested,
    ResetAsked,
    Restored,
    Returned,
)
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import (
    Account,
    Command,
    Moment,
    Outcome,
    Ran,
    Record,
    Request,
    State,
    Verb,
    ends_at,
    envelope_size,
    is_past,
)
from hwsync.protocol.topics import DEFAULT_ROOT


@dataclass(frozen=True, slots=True)
class Rules:
    """What the coordinator was started with."""

    root: str = DEFAULT_ROOT
    analysis: str = MANUAL  # the analyser of a request that names none
    analysis_within: float = limits.DEFAULT_ANALYSIS_WITHIN_S  # seconds in state 3; 0: for ever
    restored_at: float | None = None  # in ticks; at the last rise of the epoch
    allowance: Allowance = FULL
    max_message: int = limits.MAX_MESSAGE  # bytes that the broker is said to take
    sendable: int = limits.MAX_MESSAGE  # and as far as was learned
    signed: bool = False  # whether envelopes are


Step = Callable[[Record, Command, Event, Moment, Rules], Record]


@dataclass(frozen=True, slots=True)
class Move:
    """One cell of the table: the state it leads to, what it does, and one line for the reader."""

    to: State
    step: Step
    note: str


def digest_of(request: Request) -> str:
    """What must be equal in a repeat of an id: program, stdin, args, and a name of its own.

    SHA-256, hexadecimal. The default's name is as if none was given, since it means the same.
    """
    texts: list[object] = [request.program, request.stdin, request.args]
    if request.name not in (None, limits.DEFAULT_NAME):
        texts.append({"name": request.name})
    return hashlib.sha256(dumps(texts).encode()).hexdigest()


def decide(
    record: Record, event: Event, moment: Moment, known: Command | None, rules: Rules
) -> Decision:
    """What follows from an event.

    ``known`` is this user's command with the event's id, None where there is none (or where the
    event names no id). Never raises ``Refused``: a refusal is part of the decision.
    """
    try:
        decision = _decide(record, event, moment, known, rules)
        return idle.within(record, known, decision, moment, rules.allowance)
    except Refused as refusal:
        return refuse(record, replace_ids(refusal, event), known)


def due(record: Record) -> tuple[Effect, ...]:
    """What everybody should have been told of this record: published again on every connect."""
    effects: list[Effect] = [PublishStatus(record)]
    command = record.current
    if record.state is State.REQUESTED:
        effects.append(PublishEnvelope(record))
    if record.state is State.RETURNED and command and command.analyser != MANUAL:
        effects.append(Analyse(command))
    return tuple(effects)


def refuse(record: Record, refusal: Refused, known: Command | None = None) -> Decision:
    """The decision that a refusal makes; who named an id hears the status again as well."""
    effects: list[Effect] = [PublishError(refusal, record.state)]
    if refusal.id is not None:
        effects += answers(record, known)
    return Decision(record, None, None, tuple(effects), refusal)


def replace_ids(refusal: Refused, event: Event) -> Refused:
    """The refusal with the event's id and journal on it."""
    journal = event.journal if isinstance(event, (Collected, Returned)) else None
    return Refused(refusal.code, refusal.message, refusal.hint, id=event.id, journal=journal)


def _decide(
    record: Record, event: Event, moment: Moment, known: Command | None, rules: Rules
) -> Decision:
    own = known is not None and known.id == record.id
    if isinstance(event, Queried):
        if event.id is not None and known is None:
            raise late.never_had(record, event.id)
        return Decision(record, effects=answers(record, known, query=True))
    if isinstance(event, ResetAsked) and event.forget:
        return _forgotten(record, moment)
    if isinstance(event, DeadlinePassed) and not (
        event.id == record.id and _is_due(record, moment)
    ):
        return Decision(record)
    if isinstance(event, NextInQueue) and is_past(event.command.request.expires_at, moment):
        return late.overdue(record, event.command, moment)
    if isinstance(event, Requested):
        if known is not None:
            _same_request(event.request, known)
            return replies.repeated(record, known, event.reply, answers(record, known))
        _not_past(event.request, moment)
        rules.allowance.fits(event.request)
        _fits_broker(record, event.request, rules)
        if event.request.queue and record.state is not State.REST:
            return _queued(record, event, moment, rules)
    elif isinstance(event, DeadlinePassed | NextInQueue | Restored):
        pass
    elif event.id is None:
        _unambiguous(record, event, moment)
        if isinstance(event, CancelAsked) and record.cancelling:
            return Decision(record, effects=answers(record, None))
    else:
        if known is None:
            return late.unknown(record, event, moment)
        told = answers(record, None if isinstance(event, Collected | Returned) else known)
        if late.is_outdated(event, known):
            return Decision(record, effects=told)
        if record.place(known.id):
            return late.waiting(record, event, known, moment, told)
        if late.is_duplicate(event, known):
            return late.again(record, event, known, moment, told)
        if not own:
            return late.stored(record, event, known, moment, told)
    move = TABLE.get((event.verb, record.state))
    if isinstance(event, Returned) and record.state is State.REQUESTED:
        before = own and known is not None and known.doubtful and event.account.ran is not Ran.NO
        move = move if before else None
    if move is None:
        if own and known is not None and isinstance(event, late.Named):
            return late.own_hole(record, event, known, moment, hole(record, event, rules))
        raise hole(record, event, rules)
    command = record.current or Command(record.user, "", Request(""))
    foreign = isinstance(event, Returned) and event.journal != command.journal
    if isinstance(event, Returned) and foreign and record.state is State.COLLECTED:
        return late.foreign(record, event, command, moment)
    return _moved(record, move.step(record, command, event, moment, rules), event, moment, move)


def _moved(before: Record, after: Record, event: Event, moment: Moment, move: Move) -> Decision:
    """The record after a transition: its number grows, its deadline is told in wall time."""
    command = after.current
    if command is not None and event.verb in (Verb.CANCEL, Verb.RESET):
        command = replace(command, accepted=command.accepted | {event.verb})
    after = replace(
        after,
        state=move.to,
        seq=before.seq + 1,
        verb=Verb.REQUEST if event.verb is Verb.NEXT else event.verb,
        time=moment.wall,
        cancelling=after.cancelling and move.to is State.COLLECTED,
        forgotten=before.forgotten and event.verb is Verb.RESTORE,
        current=command,
    )
    after = replace(after, deadline=ends_at(after, moment))
    # In the log too, whose hashes show a change of it.
    asker = command.asker if command is not None and event.verb is Verb.REQUEST else None
    note = asker.note if asker else ""
    entry = Entry(event.verb, before.state, after.state, after.id, note=note)
    changed = before.state is not after.state
    effects = due(after) if changed else (PublishStatus(after),)
    was = before.current
    if command is not None and command.account and not (was and was.account):
        effects += replies.of(after, command)
    return Decision(after, entry, None, effects)


def answers(record: Record, known: Command | None, *, query: bool = False) -> tuple[Effect, ...]:
    """The status again; for another command than the record's own, or a query, its end too."""
    effects: list[Effect] = [PublishStatus(record)]
    if known is not None and (query or known.id != record.id):
        state = record.state if known.id == record.id else State.REST
        effects.append(PublishResult(known, state, record.place(known.id)))
    return tuple(effects)


def _forgotten(record: Record, moment: Moment) -> Decision:
    """Nothing of the user is published any more, until something new is asked. All of it stays."""
    if record.state is not State.REST or record.queue:
        raise Refused(
            Code.WRONG_STATE,
            f"{record.user} is not at rest: {record.id} is in state {int(record.state)}",
            f"wait for its end, or hwsync reset {record.user} --queue first",
        )
    entry = None
    if record.seq and not record.forgotten:
        record = replace(
            record, seq=record.seq + 1, verb=Verb.RESET, time=moment.wall, forgotten=True
        )
        entry = Entry(Verb.RESET, State.REST, State.REST, record.id, note="forgotten")
    return Decision(record, entry, None, (PublishStatus(record), ClearKept()))


def _unambiguous(record: Record, event: Event, moment: Moment) -> None:
    """Raises ``Refused`` where a person may mean the command before the present one."""
    taken = record.taken_at
    if taken is None or moment.ticks - taken >= limits.AMBIGUOUS_S:
        return
    raise Refused(
        Code.AMBIGUOUS,
        f"{record.id} was taken from the queue a moment ago: {event.verb} may mean the one before",
        f'name the command: {{"id": "{record.id}"}}',
    )


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


def _queued(record: Record, event: Requested, moment: Moment, rules: Rules) -> Decision:
    """The request waits behind the present command; the state does not move."""
    bytes = idle.weight(event.request)
    rules.allowance.has_room(record, bytes)
    idle.accepts(record, moment, rules.allowance)
    command = _new_command(record, event, moment, rules)
    after = replace(
        record,
        seq=record.seq + 1,
        time=moment.wall,
        count=command.number,
        queue=(*record.queue, command.id),
        queue_bytes=record.queue_bytes + bytes,
        recent=rules.allowance.counted(record, moment),
    )
    note = f"queued at place {len(after.queue)}"
    note += f"; {command.asker.note}" if command.asker else ""
    entry = Entry(Verb.REQUEST, record.state, record.state, command.id, note=note)
    return Decision(after, entry, command, answers(after, command))


def _same_request(request: Request, known: Command) -> None:
    if not known.orphan and digest_of(request) != known.digest:
        raise Refused(
            Code.ID_REUSED,
            f"the id {known.id} belongs to another program, stdin, args or name of {known.user}",
            "take a new id for a new command",
        )


def _not_past(request: Request, moment: Moment) -> None:
    if is_past(request.expires_at, moment):
        raise Refused(
            Code.BAD_PAYLOAD,
            f"'expires_at' is {request.expires_at:.3f}, and it is {moment.wall:.3f} already",
            "name a later time, in seconds since 1970 (Unix time), or leave the key out",
        )


def _above_broker(record: Record, most: int, *, signed: bool) -> str:
    """What its envelope has against a limit of the broker; empty where it can be sent."""
    if most >= limits.MAX_MESSAGE:
        return ""
    length = envelope_size(record, signed=signed)
    if length <= most:
        return ""
    return f"its message has {length} bytes, and the broker takes at most {most}"


def _fits_broker(record: Record, request: Request, rules: Rules) -> None:
    command = Command(record.user, request.id or "i" * 64, request)
    waits = replace(record, current=command)
    if above := _above_broker(waits, rules.max_message, signed=rules.signed):
        raise Refused(
            Code.TOO_LARGE,
            f"the program cannot be sent: {above}",
            "a shorter program or input, or a larger limit of the broker",
        )


def _is_due(record: Record, moment: Moment) -> bool:
    """Whether the present state ends: by the time of connection, or by the wall clock."""
    ticking = record.due_at is not None and record.due_at <= moment.ticks
    return ticking or is_past(record.expires_at, moment)


def hole(record: Record, event: Event, rules: Rules) -> Refused:
    """Why the table refuses this event now, and what would be accepted."""
    user, state, topic = record.user, record.state, f"{rules.root}/{record.user}"
    publish = f"mosquitto_pub -q 1 -t {topic}"
    hint = {
        State.REST: f"{user} is at rest: it waits for a request ({publish}/request -m PROGRAM)",
        State.REQUESTED: f"it waits to be collected; to take it back: {publish}/cancel -n",
        State.COLLECTED: f"it waits for the device's response; to stop it: {publish}/cancel -n",
        State.RETURNED: f"it waits for its analysis: {publish}/analysis -m TEXT",
    }[state]
    at = f"{user} is in state {int(state)} ({state.name.lower()})"
    if event.verb is Verb.REQUEST:
        hint += '; a request with an id may wait behind it: {"queue": true}'
        return Refused(Code.BUSY, f"{at} with the command {record.id}", hint)
    return Refused(Code.WRONG_STATE, f"{event.verb} is not accepted now: {at}", hint)


def _request(record: Record, _: Command, event: Event, moment: Moment, rules: Rules) -> Record:
    assert isinstance(event, Requested)
    idle.accepts(record, moment, rules.allowance)
    command = _new_command(record, event, moment, rules)
    recent = rules.allowance.counted(record, moment)
    after = replace(record, count=command.number, taken_at=None, recent=recent)
    return _waits(after, command, moment)


def _next(record: Record, _: Command, event: Event, moment: Moment, __: Rules) -> Record:
    assert isinstance(event, NextInQueue)
    assert record.queue[:1] == (event.id,)
    left = record.queue_bytes - idle.weight(event.command.request)
    after = replace(record, queue=record.queue[1:], queue_bytes=left, taken_at=moment.ticks)
    return _waits(after, event.command, moment)


def _waits(record: Record, command: Command, moment: Moment) -> Record:
    """The command waits to be collected, from now on."""
    expires = command.request.expires
    return replace(record, current=command, due_at=moment.ticks + expires if expires else None)


def _collect(record: Record, command: Command, event: Event, moment: Moment, _: Rules) -> Record:
    assert isinstance(event, Collected)
    if is_past(record.expires_at, moment):
        raise Refused(
            Code.WRONG_STATE,
            f"{command.id} had to be collected before {record.expires_at:.3f}",
            "it ends as expired: nobody runs it",
        )
    return replace(
        record,
        current=replace(command, journal=event.journal, boot=event.boot),
        # What was settled of it before the grant was a refusal: its result is still to come.
        settled=tuple(pair for pair in record.settled if pair[0] != command.id),
        due_at=moment.ticks + command.request.timeout + command.request.grace,
    )


def _move_grant(record: Record, command: Command, event: Event, _: Moment, __: Rules) -> Record:
    assert isinstance(event, Collected)
    later = (
        event.journal is not None
        and event.journal == command.journal
        and event.boot is not None
        and command.boot is not None
        and event.boot > command.boot
    )
    if not later:
        holder = f"the journal {command.journal}" if command.journal else "a person, by hand"
        raise Refused(
            Code.NOT_CURRENT,
            f"two devices answer for {record.user}: {command.id} was collected by {holder}",
            "give one of them another name, or reset",
        )
    return replace(record, current=replace(command, boot=event.boot))


def _return(record: Record, command: Command, event: Event, moment: Moment, rules: Rules) -> Record:
    assert isinstance(event, Returned)
    return late.with_account(replace(record, due_at=_analysis_due(moment, rules)), command, event)


def _analysis_due(moment: Moment, rules: Rules) -> float | None:
    return moment.ticks + rules.analysis_within if rules.analysis_within else None


def _analyse(record: Record, command: Command, event: Event, _: Moment, __: Rules) -> Record:
    assert isinstance(event, Analysed)
    return replace(record, current=replace(command, analysis=event.text), due_at=None)


def _ended(record: Record, command: Command, outcome: Outcome, ran: Ran, reason: str) -> Record:
    account = command.told(Account(outcome, ran, reason))
    return replace(record, current=replace(command, account=account), due_at=None)


def _restore(record: Record, command: Command, event: Event, _: Moment, __: Rules) -> Record:
    assert isinstance(event, Restored)
    after = replace(record, epoch=event.epoch)
    if record.state in (State.REQUESTED, State.COLLECTED):
        lost = "an older database was put back while it was open"
        doubtful = replace(command, doubtful=True)
        return _ended(after, doubtful, Outcome.LOST, Ran.MAYBE, lost)
    return after


def _cancel_waiting(record: Record, command: Command, _: Event, __: Moment, ___: Rules) -> Record:
    reason = "cancelled before it was collected"
    return _ended(record, command, Outcome.CANCELLED, Ran.NO, reason)


def _cancel_running(
    record: Record, command: Command, _: Event, moment: Moment, __: Rules
) -> Record:
    latest = moment.ticks + command.request.grace
    due_at = latest if record.due_at is None else min(record.due_at, latest)
    return replace(record, cancelling=True, due_at=due_at)


def _expire_waiting(
    record: Record, command: Command, _: Event, moment: Moment, rules: Rules
) -> Record:
    reason = f"not collected within {command.request.expires:.12g} s"
    if is_past(record.expires_at, moment):
        reason = late.TOO_LATE
    if above := _above_broker(record, rules.sendable, signed=rules.signed):
        reason += f": {above}"
    return _ended(record, command, Outcome.EXPIRED, Ran.NO, reason)


def _expire_running(
    record: Record, command: Command, _: Event, moment: Moment, rules: Rules
) -> Record:
    request = command.request
    within = f"no answer within {request.timeout + request.grace:.12g} s of its collection"
    if record.cancelling:
        within = f"no answer within {request.grace:g} s of its cancel"
    after = _ended(record, command, Outcome.LOST, Ran.MAYBE, within)
    return replace(after, due_at=_analysis_due(moment, rules))


def _rest(record: Record, _: Command, __: Event, ___: Moment, ____: Rules) -> Record:
    return replace(record, due_at=None)


def _reset_running(record: Record, command: Command, _: Event, __: Moment, ___: Rules) -> Record:
    reason = "reset after it was collected"
    return _ended(record, command, Outcome.LOST, Ran.MAYBE, reason)


def _reset_waiting(record: Record, command: Command, _: Event, __: Moment, ___: Rules) -> Record:
    reason = "reset before it was collected"
    return _ended(record, command, Outcome.CANCELLED, Ran.NO, reason)


_R, _Q, _C, _T = State.REST, State.REQUESTED, State.COLLECTED, State.RETURNED

TABLE: Final[Mapping[tuple[Verb, State], Move]] = {
    (Verb.REQUEST, _R): Move(_Q, _request, ""),
    (Verb.NEXT, _R): Move(_Q, _next, ""),
    (Verb.RETRIEVAL, _Q): Move(_C, _collect, "the grant"),
    (Verb.RETRIEVAL, _C): Move(_C, _move_grant, "a later boot of the same journal"),
    (Verb.RESPONSE, _Q): Move(_T, _return, "after a restore, where it ran before"),
    (Verb.RESPONSE, _C): Move(_T, _return, "from the grant's journal, or by hand"),
    (Verb.ANALYSIS, _T): Move(_R, _analyse, ""),
    (Verb.CANCEL, _Q): Move(_R, _cancel_waiting, "cancelled, ran no"),
    (Verb.CANCEL, _C): Move(_C, _cancel_running, "cancelling; at most the grace is left"),
    (Verb.EXPIRE, _Q): Move(_R, _expire_waiting, "expired, ran no"),
    (Verb.EXPIRE, _C): Move(_T, _expire_running, "lost, ran maybe"),
    (Verb.EXPIRE, _T): Move(_R, _rest, "no analysis"),
    (Verb.RESET, _R): Move(_R, _rest, ""),
    (Verb.RESET, _Q): Move(_R, _reset_waiting, "cancelled, ran no"),
    (Verb.RESET, _C): Move(_R, _reset_running, "lost, ran maybe"),
    (Verb.RESET, _T): Move(_R, _rest, ""),
    (Verb.RESTORE, _R): Move(_R, _restore, ""),
    (Verb.RESTORE, _Q): Move(_R, _restore, "lost, ran maybe"),
    (Verb.RESTORE, _C): Move(_R, _restore, "lost, ran maybe"),
    (Verb.RESTORE, _T): Move(_T, _restore, ""),
}
"""Every move there is; a query moves nothing and is accepted in every state."""
