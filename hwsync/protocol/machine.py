"""One event, one record: what the record becomes (docs/protocol.md, section 2).

The law: only the table moves a record (``moves.TABLE``). Before it stand the rules for events that
name an id: copies change nothing, an event of an earlier command is stored with that command, and a
result is settled whatever becomes of it (``named``). ``decide`` takes a record, an event and a
moment, and returns what the record becomes, the row for the log and what to publish; it performs
nothing.
"""

from __future__ import annotations

from hwsync.protocol import idle, limits, named, replies, starts, waiting
from hwsync.protocol.admission import check_repeat
from hwsync.protocol.analysis import noted
from hwsync.protocol.answers import answers, implied_effects, refuse
from hwsync.protocol.effects import ClearKept, Decision, LogEntry, PublishStatus
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import (
    Analysed,
    Collected,
    DeadlinePassed,
    Event,
    LeftOut,
    NextInQueue,
    Queried,
    Requested,
    ResetAsked,
    Restored,
    Returned,
    StartFixed,
)
from hwsync.protocol.jsons import size
from hwsync.protocol.moves import TABLE, Move
from hwsync.protocol.record import (
    Command,
    Moment,
    Record,
    Request,
    State,
    Verb,
    ends_at,
    is_past,
    replace,
)
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.envelope import above_limit


def decide(
    record: Record, event: Event, moment: Moment, known: Command | None, rules: Rules
) -> Decision:
    """What follows from an event for one record, and for ``known``.

    ``known`` is this user's command with the event's id, None where there is none (or where the
    event names no id). Never raises ``Refused``: a refusal is part of the decision, and whoever
    called it saves and publishes it like any other. What the change means to other records, and to
    the queue when it is at rest, is ``core.decide``'s.
    """
    try:
        decision = _decide(record, event, moment, known, rules)
        return idle.within(record, known, decision, moment, rules.allowance)
    except Refused as refusal:
        return refuse(record, about(refusal, event), known)


def about(refusal: Refused, event: Event) -> Refused:
    """The refusal with the event's id and journal on it."""
    journal = event.journal if isinstance(event, (Collected, Returned)) else None
    return refusal.about(event.id, journal)


def _decide(
    record: Record, event: Event, moment: Moment, known: Command | None, rules: Rules
) -> Decision:
    """By what kind of event it is; each way ends at the table, or before it."""
    if isinstance(event, Queried):
        return _queried(record, event, known)
    if isinstance(event, Requested):
        return _requested(record, event, moment, known, rules)
    if isinstance(event, ResetAsked) and event.forget:
        return _forgotten(record, moment)
    if isinstance(event, DeadlinePassed | NextInQueue | StartFixed | LeftOut | Restored):
        # The coordinator's own.
        return _by_table(record, event, moment, rules)
    if event.id is None:
        _unambiguous(record, event, moment)
        return _by_table(record, event, moment, rules)
    return _named(record, event, moment, known, rules)


def _queried(record: Record, event: Queried, known: Command | None) -> Decision:
    if event.id is not None and known is None:
        raise named.unknown_id(record, event.id)
    return Decision(record, effects=answers(record, known, query=True, files=event.files))


def _requested(
    record: Record, event: Requested, moment: Moment, known: Command | None, rules: Rules
) -> Decision:
    """A known id starts nothing; a new request begins, waits in the queue, or is refused."""
    if known is not None:
        check_repeat(event, known)
        return replies.repeated(record, known, event.reply, answers(record, known))
    if event.part is None:
        check_new(record, event.request, moment, rules, of_batch=False)
    elif event.part.waits:
        return waiting.join_batch(record, event, moment, rules)
    if event.request.queue and record.state is not State.REST:
        return waiting.join(record, event, moment, rules)
    return _by_table(record, event, moment, rules)


def check_new(
    record: Record, request: Request, moment: Moment, rules: Rules, *, of_batch: bool
) -> None:
    """Raises ``Refused`` where nobody could ever be sent it."""
    if is_past(request.expires_at, moment):
        raise Refused(
            Code.BAD_PAYLOAD,
            f"'expires_at' is {request.expires_at:.3f}, and it is {moment.wall:.3f} already",
            "name a later time, in seconds since 1970 (Unix time), or leave the key out",
        )
    starts.check(request, moment, of_batch=of_batch)
    length, most = size(request.program), rules.allowance.max_program
    if length > most:
        raise Refused(
            Code.TOO_LARGE,
            f"the program has {length} bytes",
            f"this coordinator takes at most {most} bytes of UTF-8",
        )
    command = Command(record.user, request.id or "i" * 64, request)
    waits = replace(record, current=command)
    if above := above_limit(waits, rules.max_message, signed=rules.signed):
        raise Refused(
            Code.TOO_LARGE,
            f"the program cannot be sent: {above}",
            "a shorter program or input, or a larger limit of the broker",
        )


def _named(
    record: Record, event: named.Named, moment: Moment, known: Command | None, rules: Rules
) -> Decision:
    """An event with an id: for a command that this user never had, another one, or its own."""
    if known is None:
        return named.decide_unknown(record, event, moment)
    # A device is told no ends: it acts on the status alone.
    device = isinstance(event, Collected | Returned)
    published = answers(record, None if device else known)
    if named.is_outdated(event, known):
        return Decision(record, effects=published)
    if record.is_waiting(known.id):
        return named.decide_for_queued(record, event, known, moment, published)
    if named.is_duplicate(event, known):
        return named.decide_copy(record, event, known, moment, published)
    if isinstance(event, Analysed):
        _is_of_its_end(event, known)
    if known.id != record.id:
        return named.decide_for_earlier(record, event, known, moment, published)
    return _by_table(record, event, moment, rules)


def _is_of_its_end(event: Analysed, known: Command) -> None:
    """Raises ``Refused`` where an analysis judges an end that was corrected since."""
    report = known.report
    if report is None:
        return
    judged = (event.outcome or report.outcome, event.ran or report.ran)
    if judged != (report.outcome, report.ran):
        raise Refused(
            Code.NOT_CURRENT,
            f"{known.id} has another end than was judged: it is {report.outcome}, ran {report.ran}",
            "look at its result again, and judge that",
        )


def _by_table(record: Record, event: Event, moment: Moment, rules: Rules) -> Decision:
    """What the table says of an event for the record as it stands; a hole is a refusal."""
    move = TABLE.get((event.verb, record.state))
    command = record.current or Command(record.user, "", Request(""))
    if move is not None and move.guard is not None:
        guard = move.guard
        if not guard.holds(record, command, event, moment):
            if guard.otherwise is not None:
                return guard.otherwise(record, command, event, moment)
            move = None
    if move is None:
        return _in_hole(record, command, event, moment, rules)
    return _moved(record, move.step(record, command, event, moment, rules), event, moment, move)


def _in_hole(
    record: Record, command: Command, event: Event, moment: Moment, rules: Rules
) -> Decision:
    if isinstance(event, DeadlinePassed):
        return Decision(record)  # of a state that has ended: nobody asked, nobody is refused
    refusal = hole(record, event, rules)
    if isinstance(event, named.Named) and event.id is not None:
        return named.refuse_or_correct(record, event, command, moment, refusal)
    raise refusal


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
    after = replace(after, deadline_wall=ends_at(after, moment))
    # In the log too, whose hashes show a change of it.
    asker = command.asker if command is not None and event.verb is Verb.REQUEST else None
    note = asker.note if asker else _of_analysis(event, after.current)
    entry = LogEntry(event.verb, before.state, after.state, after.id, note=note)
    changed = before.state is not after.state
    effects = implied_effects(after) if changed else (PublishStatus(after),)
    was = before.current
    if command is not None and command.report and not (was and was.report):
        effects += replies.of(after, command)
    return Decision(after, entry, None, effects)


def _of_analysis(event: Event, command: Command | None) -> str:
    """What the log says of an analysis, or that there is none."""
    if isinstance(event, Analysed):
        return noted(event.by, event.text) if event.by else ""
    ended = isinstance(event, DeadlinePassed) and command is not None and command.no_analysis
    return f"no analysis: {command.no_analysis}" if command is not None and ended else ""


def _forgotten(record: Record, moment: Moment) -> Decision:
    """Nothing of the user is published any more, until something new is asked. All of it stays."""
    waits = len(record.queue) + len(record.batched)
    if record.state is not State.REST or waits:
        why = f"{record.id} is in state {int(record.state)}" if record.state else f"{waits} wait"
        raise Refused(
            Code.WRONG_STATE,
            f"{record.user} is not at rest: {why}",
            f"wait for its end, or hwsync reset {record.user} --queue first",
        )
    entry = None
    if record.seq and not record.forgotten:
        record = replace(
            record, seq=record.seq + 1, verb=Verb.RESET, time=moment.wall, forgotten=True
        )
        entry = LogEntry(Verb.RESET, State.REST, State.REST, record.id, note="forgotten")
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
