"""The table of transitions, and what each of its cells does (docs/protocol.md, section 2).

The law: ``TABLE`` is the only way a record's state moves. A pair of verb and state that is not in
it is a hole, and a hole is a refusal. A cell may have a condition (``Guard``): it stands in the
cell, with what happens where it does not hold, so that the table alone says when a record moves.
What comes before the table, copies and events of other commands, moves nothing (``machine``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hwsync.protocol import named, offers, starts, waiting
from hwsync.protocol.admission import accept
from hwsync.protocol.answers import answers
from hwsync.protocol.effects import Decision
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import (
    Analysed,
    Collected,
    Event,
    LeftOut,
    NextInQueue,
    Requested,
    Restored,
    Returned,
    StartFixed,
)
from hwsync.protocol.record import (
    Command,
    Moment,
    Outcome,
    Ran,
    Record,
    RunReport,
    State,
    Verb,
    is_over,
    is_past,
    replace,
)
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.envelope import above_limit

Step = Callable[[Record, Command, Event, Moment, Rules], Record]
Holds = Callable[[Record, Command, Event, Moment], bool]
Otherwise = Callable[[Record, Command, Event, Moment], Decision]


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition of a cell; where it does not hold, the cell is a hole, or ``otherwise`` decides.

    ``when`` and ``instead`` say both to a reader, who reads "if WHEN, else INSTEAD".
    """

    holds: Holds
    when: str
    otherwise: Otherwise | None = None
    instead: str = "-"


@dataclass(frozen=True, slots=True)
class Move:
    """One cell of the table: the state it leads to, what it does, and one line for the reader."""

    to: State
    step: Step
    note: str
    guard: Guard | None = None


# -- conditions ---------------------------------------------------------------------------------


def _is_due(record: Record, _: Command, event: Event, moment: Moment) -> bool:
    """Whether the present state ends: by the time of connection, the wall clock or lab time."""
    ticking = record.due_ticks is not None and record.due_ticks <= moment.ticks
    return event.id == record.id and (ticking or is_over(record, moment))


def _stays(record: Record, _: Command, __: Event, ___: Moment) -> Decision:
    return Decision(record)


def _may_still_wait(_: Record, __: Command, event: Event, moment: Moment) -> bool:
    assert isinstance(event, NextInQueue)
    return not is_past(event.command.request.expires_at, moment)


def _leaves_queue(record: Record, _: Command, event: Event, moment: Moment) -> Decision:
    assert isinstance(event, NextInQueue)
    return waiting.expire(record, event.command, moment)


def _may_be_collected(record: Record, _: Command, __: Event, moment: Moment) -> bool:
    return not is_over(record, moment)


def _refuse_too_late(record: Record, command: Command, _: Event, moment: Moment) -> Decision:
    late = f"{command.id} had to be collected before "
    if is_past(record.expires_at, moment):
        late += f"{record.expires_at:.3f}"
    else:
        late += "its start"
    raise Refused(Code.WRONG_STATE, late, "it ends as expired: nobody runs it")


def _moves_grant(_: Record, command: Command, event: Event, __: Moment) -> bool:
    return isinstance(event, Collected) and named.moves_grant(event, command)


def _refuse_second_device(_: Record, command: Command, __: Event, ___: Moment) -> Decision:
    holder = f"the journal {command.journal}" if command.journal else "a person, by hand"
    hint = f"{named.RENAME_ONE}, or reset"
    raise named.two_devices(command, f"was collected by {holder}", hint)


def _may_have_run_before(_: Record, command: Command, event: Event, __: Moment) -> bool:
    """Nobody holds a grant in state 1: only a device that ran it before a restore has a result."""
    assert isinstance(event, Returned)
    return event.id is not None and command.doubtful and event.report.ran is not Ran.NO


def _is_grantees(_: Record, command: Command, event: Event, __: Moment) -> bool:
    assert isinstance(event, Returned)
    return event.journal == command.journal


def _settle_foreign(record: Record, command: Command, event: Event, moment: Moment) -> Decision:
    assert isinstance(event, Returned)
    return named.refuse_foreign(record, event, command, moment)


def _waits_for_instant(_: Record, command: Command, event: Event, __: Moment) -> bool:
    start = command.request.start
    return event.id == command.id and start is not None and command.start_at_us is None


def _may_be_fixed(record: Record, command: Command, event: Event, moment: Moment) -> bool:
    return _waits_for_instant(record, command, event, moment) and not record.cancelling


def _is_first_cancel(record: Record, _: Command, __: Event, ___: Moment) -> bool:
    return not record.cancelling


def _answer(record: Record, _: Command, __: Event, ___: Moment) -> Decision:
    return Decision(record, effects=answers(record, None))


def _is_no_regrade(_: Record, __: Command, event: Event, ___: Moment) -> bool:
    assert isinstance(event, Analysed)
    return not event.regrade


def _regrade(record: Record, command: Command, event: Event, moment: Moment) -> Decision:
    assert isinstance(event, Analysed)
    return named.regrade(record, event, command, moment)


REFUSED_AND_SETTLED: Final = "2: refused, and settled where a device sent it"
DUE: Final = Guard(_is_due, "it is due", _stays, "no change")
WAITS: Final = Guard(_waits_for_instant, "its instant is not fixed")


# -- steps --------------------------------------------------------------------------------------


def _request(record: Record, _: Command, event: Event, moment: Moment, rules: Rules) -> Record:
    assert isinstance(event, Requested)
    counted, command = accept(record, event, moment, rules)
    return _waits(replace(counted, taken_at=None), command, moment)


def _next(record: Record, _: Command, event: Event, moment: Moment, __: Rules) -> Record:
    assert isinstance(event, NextInQueue)
    assert record.queue[:1] == (event.id,) or not record.queue
    after = replace(waiting.without(record, event.command), taken_at=moment.ticks)
    return _waits(after, event.command, moment)


def _waits(record: Record, command: Command, moment: Moment) -> Record:
    """The command waits to be collected, from now on."""
    expires = command.request.expires
    return replace(
        record, current=command, deadline_ticks=moment.ticks + expires if expires else None
    )


def _collect(record: Record, command: Command, event: Event, moment: Moment, _: Rules) -> Record:
    assert isinstance(event, Collected)
    return replace(
        record,
        current=replace(command, journal=event.journal, boot=event.boot),
        # What was settled of it before the grant was a refusal: its result is still to come.
        settled=tuple(pair for pair in record.settled if pair[0] != command.id),
        # What is left till a start counts from here on like the rest: in seconds of connection.
        deadline_ticks=_begins_by(command, event, moment)
        + command.request.timeout
        + command.request.grace,
    )


def _begins_by(command: Command, event: Collected, moment: Moment) -> float:
    """In ticks: at the grant, at its instant, or when that will have been fixed at the latest."""
    by = moment.ticks + starts.ahead_s(command, moment)
    start = command.request.start
    if start is None or event.wait_until is None or command.start_at_us is not None:
        return by
    return max(by, event.wait_until + start.lead)


def _fix_start(record: Record, command: Command, event: Event, moment: Moment, _: Rules) -> Record:
    assert isinstance(event, StartFixed)
    fixed = replace(command, start_at_us=event.at_us, start_life=event.life)
    latest = moment.ticks + starts.ahead_s(fixed, moment)
    latest += command.request.timeout + command.request.grace
    return replace(record, current=fixed, deadline_ticks=max(record.deadline_ticks or 0.0, latest))


def _leave_out_waiting(
    record: Record, command: Command, event: Event, _: Moment, __: Rules
) -> Record:
    assert isinstance(event, LeftOut)
    return _ended(record, command, Outcome.EXPIRED, Ran.NO, event.reason)


def _leave_out_ready(
    record: Record, command: Command, event: Event, _: Moment, __: Rules
) -> Record:
    """Nobody runs in state 2 what has no instant yet."""
    assert isinstance(event, LeftOut)
    return _ended(record, command, Outcome.CANCELLED, Ran.NO, event.reason)


def _move_grant(record: Record, command: Command, event: Event, _: Moment, __: Rules) -> Record:
    assert isinstance(event, Collected)
    return replace(record, current=replace(command, boot=event.boot))


def _return(record: Record, command: Command, event: Event, moment: Moment, rules: Rules) -> Record:
    assert isinstance(event, Returned)
    waits = offers.waits_for_analysis(record, command, moment, rules)
    return named.with_report(waits, command, event)


def _analyse(record: Record, command: Command, event: Event, _: Moment, __: Rules) -> Record:
    assert isinstance(event, Analysed)
    analysed = named.with_analysis(command, event)
    return replace(record, current=analysed, deadline_ticks=None, unoffered_ticks=None)


def _ended(record: Record, command: Command, outcome: Outcome, ran: Ran, reason: str) -> Record:
    report = command.without_false_no(RunReport(outcome, ran, reason))
    return replace(record, current=replace(command, report=report), deadline_ticks=None)


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
    deadline_ticks = latest if record.deadline_ticks is None else min(record.deadline_ticks, latest)
    return replace(record, cancelling=True, deadline_ticks=deadline_ticks)


def _expire_waiting(
    record: Record, command: Command, _: Event, moment: Moment, rules: Rules
) -> Record:
    reason = f"not collected within {command.request.expires:.12g} s"
    if is_past(record.expires_at, moment):
        reason = waiting.TOO_LATE
    elif is_over(record, moment):
        reason = starts.too_late(command, moment)
    if above := above_limit(record, rules.sendable, signed=rules.signed):
        reason += f": {above}"
    return _ended(record, command, Outcome.EXPIRED, Ran.NO, reason)


def _expire_running(
    record: Record, command: Command, _: Event, moment: Moment, rules: Rules
) -> Record:
    request = command.request
    began = "its collection" if command.start_at_us is None else "its start"
    within = f"no answer within {request.timeout + request.grace:.12g} s of {began}"
    if record.cancelling:
        within = f"no answer within {request.grace:g} s of its cancel"
    after = _ended(record, command, Outcome.LOST, Ran.MAYBE, within)
    return offers.waits_for_analysis(after, command, moment, rules)


def _unanalysed(record: Record, command: Command, _: Event, moment: Moment, rules: Rules) -> Record:
    why = offers.why_unanalysed(record, command, moment, rules)
    after = replace(record, current=replace(command, no_analysis=why))
    return replace(after, deadline_ticks=None, unoffered_ticks=None)


def _rest(record: Record, _: Command, __: Event, ___: Moment, ____: Rules) -> Record:
    return replace(record, deadline_ticks=None, unoffered_ticks=None)


def _reset_running(record: Record, command: Command, _: Event, __: Moment, ___: Rules) -> Record:
    reason = "reset after it was collected"
    return _ended(record, command, Outcome.LOST, Ran.MAYBE, reason)


def _reset_waiting(record: Record, command: Command, _: Event, __: Moment, ___: Rules) -> Record:
    reason = "reset before it was collected"
    return _ended(record, command, Outcome.CANCELLED, Ran.NO, reason)


TABLE: Final[Mapping[tuple[Verb, State], Move]] = {
    (Verb.REQUEST, State.REST): Move(State.REQUESTED, _request, ""),
    (Verb.NEXT, State.REST): Move(
        *(State.REQUESTED, _next, ""),
        Guard(_may_still_wait, "before its `expires_at`", _leaves_queue, "0: expired, ran no"),
    ),
    (Verb.RETRIEVAL, State.REQUESTED): Move(
        *(State.COLLECTED, _collect, "the grant"),
        Guard(_may_be_collected, "before its `expires_at` and start", _refuse_too_late),
    ),
    (Verb.RETRIEVAL, State.COLLECTED): Move(
        *(State.COLLECTED, _move_grant, "the grant moves"),
        Guard(_moves_grant, "from a later boot of its journal", _refuse_second_device),
    ),
    (Verb.START, State.COLLECTED): Move(
        *(State.COLLECTED, _fix_start, "its instant is fixed"),
        Guard(_may_be_fixed, "it has none, and is not cancelling"),
    ),
    (Verb.LEFT_OUT, State.REQUESTED): Move(State.REST, _leave_out_waiting, "expired, ran no"),
    (Verb.LEFT_OUT, State.COLLECTED): Move(
        *(State.REST, _leave_out_ready, "cancelled, ran no"),
        WAITS,
    ),
    (Verb.RESPONSE, State.REQUESTED): Move(
        *(State.RETURNED, _return, ""),
        Guard(_may_have_run_before, "it may have run before a restore"),
    ),
    (Verb.RESPONSE, State.COLLECTED): Move(
        *(State.RETURNED, _return, ""),
        Guard(_is_grantees, "from who collected it", _settle_foreign, REFUSED_AND_SETTLED),
    ),
    (Verb.ANALYSIS, State.RETURNED): Move(
        *(State.REST, _analyse, ""),
        Guard(_is_no_regrade, "it is no regrade", _regrade, "3: kept, and no analysis"),
    ),
    (Verb.CANCEL, State.REQUESTED): Move(State.REST, _cancel_waiting, "cancelled, ran no"),
    (Verb.CANCEL, State.COLLECTED): Move(
        *(State.COLLECTED, _cancel_running, "cancelling; at most the grace is left"),
        Guard(_is_first_cancel, "it is the first", _answer, "no change"),
    ),
    (Verb.EXPIRE, State.REQUESTED): Move(State.REST, _expire_waiting, "expired, ran no", DUE),
    (Verb.EXPIRE, State.COLLECTED): Move(State.RETURNED, _expire_running, "lost, ran maybe", DUE),
    (Verb.EXPIRE, State.RETURNED): Move(State.REST, _unanalysed, "no analysis", DUE),
    (Verb.RESET, State.REST): Move(State.REST, _rest, ""),
    (Verb.RESET, State.REQUESTED): Move(State.REST, _reset_waiting, "cancelled, ran no"),
    (Verb.RESET, State.COLLECTED): Move(State.REST, _reset_running, "lost, ran maybe"),
    (Verb.RESET, State.RETURNED): Move(State.REST, _rest, ""),
    (Verb.RESTORE, State.REST): Move(State.REST, _restore, ""),
    (Verb.RESTORE, State.REQUESTED): Move(State.REST, _restore, "lost, ran maybe"),
    (Verb.RESTORE, State.COLLECTED): Move(State.REST, _restore, "lost, ran maybe"),
    (Verb.RESTORE, State.RETURNED): Move(State.RETURNED, _restore, ""),
}
"""Every move there is; a query moves nothing and is accepted in every state."""
