"""What a device decides: what an event means to the command in hand (docs/protocol.md, section 5).

The law: ``decide`` performs nothing. It returns the next state, what must be in the journal
before that state counts, and what is to be done then. Where the journal refuses, the same event is
decided once more, from the same state, with ``unwritten``.

hwsync-device, the simulation's microcontroller and small boards run this same text, in the Python
that MicroPython has; so this package imports nothing but itself.
"""

from hwsync.protocol.device import moves, values
from hwsync.protocol.device.moves import Case, move, publish_results
from hwsync.protocol.device.values import (
    ARMED,
    CLOSED,
    DEAF_S,
    FINISHED,
    NEW,
    PREPARING,
    RECEIVED,
    SETTLED,
    UNKNOWN_S,
    Action,
    Decision,
    Event,
    Known,
    Moment,
    Offered,
    State,
    StatusReceived,
    repetition,
)


def decide(state: State, event: Event, moment: Moment) -> Decision:
    """What follows from an event of ``values``.

    Its caller performs ``Decision.writes`` first, which are the journal's; only when all of them
    are on disk does ``Decision.state`` count, and are ``Decision.actions`` performed, in their
    order. Where a write fails, it sets ``event.unwritten`` to the reason and decides the same event
    again on the old state: where writes are left then, nothing of the event counts. Where
    ``Decision.again`` is set, the event is made anew, of what is known now, and decided once more.

    ``moment``: seconds of a clock that never jumps, and a number from 0 to 1 drawn for it. Raises
    ``TypeError`` for what is no event of ``values``: a bug of the caller.
    """
    decision = Decision(state)
    if isinstance(event, Offered):
        _offered(decision, event, moment)
    elif isinstance(event, StatusReceived):
        _status_received(decision, event, moment)
    elif isinstance(event, values.FormerStatusReceived):
        _former_status_received(decision, event, moment)
    elif isinstance(event, values.Connected):
        _connected(decision, moment)
    elif isinstance(event, values.Tick):
        _tick(decision, moment)
    elif isinstance(event, values.Owed):
        decision.change(results=repetition(moment) if event.any else None)
    elif isinstance(event, values.Stopping):
        decision.change(stopping=True)
        move(decision, moves.HALT, state.stage, Case(state.id), moment)
    elif isinstance(event, values.Prepared):
        move(decision, moves.PREPARED, state.stage, Case(state.id), moment)
        _ready(decision, moment, certain=event.certain)
    elif isinstance(event, values.ClockChanged):
        _clock_changed(decision, event, moment)
    else:
        _of_a_run(decision, event, moment)
    return decision


def due_at(state: State) -> "float | None":
    """When ``Tick`` has something to say again, in seconds; None: never."""
    times = [each.at for each in (state.collect, state.results) if each is not None]
    if state.stage == PREPARING and state.prepared:
        times.append(state.patience)
    return min(times) if times else None


# -- what an event means ---------------------------------------------------------------------------


def _offered(decision: Decision, event: Offered, moment: Moment) -> None:
    """Which row of the table an envelope is, and in which column its command stands."""
    state, known, doubt = decision.state, event.known, event.doubt
    held = state.id == event.id
    if known is not None and known.another and not held:
        # The result that is kept answers another board's command: this one is refused like a new
        # one (docs/protocol.md, section 5, point 5).
        doubt = "the journal has a command " + known.id + " of " + known.another
        known = None
    stage = NEW
    if held:
        stage = state.stage
    elif known is not None and known.stage != RECEIVED:  # which a crash left beside another one
        stage = known.stage
    new = False
    if doubt:
        word = moves.DOUBTED_OFFER if event.answer else moves.MISSENT_OFFER
    elif stage == NEW or _is_newer(state, event):
        new = True
        word = moves.OFFER if stage == NEW else moves.NEWER_OFFER
        if event.timed and not event.unwritten:
            word = moves.TIMED_OFFER
    else:
        word = moves.SAME_OFFER
    taken = state.id != "" or state.stopping or not event.room
    if taken and not held and (stage == NEW or new):
        word = moves.BUSY_OFFER  # it comes again
    # Then the next boot: its `rejected` may be under way, and must not answer the new grant.
    reopened = event.known is not None and event.known.was_closed
    reason = event.unwritten or doubt
    move(decision, word, stage, Case(event.id, event.order, reason, reopened=reopened), moment)


def _is_newer(state: State, event: Offered) -> bool:
    """Than the envelope in hand, or than the status that closed the command."""
    if state.id == event.id:
        # A forged copy that came first does not stand in the way of the true one.
        return event.order > state.order or (event.signed and state.refusal != "")
    closing = event.known.closing if event.known is not None else None
    return closing is not None and event.order > closing


def _status_received(decision: Decision, event: StatusReceived, moment: Moment) -> None:
    if _is_stale(decision, event, moment):
        return
    decision.change(newest=event.order, stale_since=None)
    risen = event.order[0] > event.own.epoch
    if risen:
        decision.do(Action(values.BEGIN_EPOCH, number=event.order[0]))
        publish_results(decision, moment)
    _settled(decision, event.settled, moment, unsettled=risen)
    state = decision.state
    if state.id:
        word, reason = _meaning(state, event, moment)
        case = Case(
            *(state.id, event.order, reason), start_at=event.start_at, life=event.start_life
        )
        move(decision, word, state.stage, case, moment)


def _is_stale(decision: Decision, event: StatusReceived, moment: Moment) -> bool:
    """Whether it is older than one that was seen.

    Whoever hears nothing but older ones has seen what was nobody's word, and begins anew, as after
    a restart: with the next boot.
    """
    state = decision.state
    if event.order >= state.newest:
        return False
    since = moment.now if state.stale_since is None else state.stale_since
    decision.change(stale_since=since)
    if moment.now - since >= DEAF_S and not state.runs and not event.unwritten:
        decision.write(Action(values.NOTE_DEAFNESS, order=event.order))
        decision.write(Action(values.NEXT_BOOT))
        if event.order[0] < event.own.epoch:  # what was noted of it was nobody's either
            decision.write(Action(values.WRITE_EPOCH, number=event.order[0]))
        decision.change(newest=event.order, stale_since=None)
        _connected(decision, moment)
        decision.again = True
    return True


def _meaning(state: State, event: StatusReceived, moment: Moment) -> "tuple[str, str]":
    """What a status says to the command in hand, and why that cannot run, where it cannot."""
    waits = state.stage in (PREPARING, RECEIVED)
    if waits and event.order < state.order:
        # A status that is older than our envelope. Where only such ones answer `collected` for
        # UNKNOWN_S, the coordinator does not know this command.
        collect = state.collect
        if collect is None or moment.now - collect.since < UNKNOWN_S:
            return moves.PENDING, ""
        return moves.UNHEARD_OF, state.refusal or "the coordinator does not know it"
    own = event.own
    if event.id == state.id and event.state == 1:
        return moves.PENDING, ""
    if (event.id, event.state, event.journal) != (state.id, 2, own.journal):
        return moves.OTHER, state.refusal or "not granted to this device"
    if event.boot != own.boot or (state.stopping and waits):
        return moves.PENDING, ""  # the next life collects it
    if event.cancelling:
        return moves.CANCEL, "cancelled before it began"
    if state.timed:
        return _timed_meaning(state, event)
    barred = state.refusal or event.distrust
    return (moves.BARRED_GRANT, barred) if barred else (moves.GRANT, "")


def _timed_meaning(state: State, event: StatusReceived) -> "tuple[str, str]":
    """The same of a status that holds our grant, where the command begins at an instant."""
    if state.stage == ARMED:
        if (event.start_at, event.start_life) != (state.start_at, state.life):
            return moves.OTHER, "granted for another instant"
        return moves.TIMED_GRANT, ""
    # Who cannot begin says so before the instant is fixed: nobody counts on him then.
    barred = state.refusal or event.distrust
    if barred:
        return moves.BARRED_GRANT, barred
    if event.start_at is None:
        return moves.PENDING, ""
    barred = event.unwritten
    if not barred and not event.clock_life:
        barred = "lab time is not known here"
    if not barred and event.clock_life != event.start_life:
        barred = "lab time has begun a new life since its instant was fixed"
    return (moves.BARRED_GRANT, barred) if barred else (moves.TIMED_GRANT, "")


def _ready(decision: Decision, moment: Moment, *, certain: bool) -> None:
    """It is said to be ready once the time is known as well, or has been waited for."""
    state = decision.state
    if state.prepared and (certain or state.patience <= moment.now):
        move(decision, moves.READY, state.stage, Case(state.id), moment)


def _clock_changed(decision: Decision, event: values.ClockChanged, moment: Moment) -> None:
    state = decision.state
    _ready(decision, moment, certain=event.certain)
    if event.life and state.life != event.life:
        move(decision, moves.NEW_LIFE, state.stage, Case(state.id), moment)


def _settled(
    decision: Decision, settled: "tuple[Known, ...]", moment: Moment, *, unsettled: bool
) -> None:
    """``unsettled``: a new epoch began, in which nothing is settled yet."""
    for known in settled:
        stage = known.stage
        if stage == SETTLED and unsettled:
            stage = FINISHED if known.closing is None else CLOSED
        move(decision, moves.SETTLING, stage, Case(known.id), moment)
    decision.do(Action(values.NOTE_ANSWER, ids=tuple([known.id for known in settled])))


def _former_status_received(
    decision: Decision, event: values.FormerStatusReceived, moment: Moment
) -> None:
    _settled(decision, event.settled, moment, unsettled=False)
    if event.first:
        publish_results(decision, moment)


def _connected(decision: Decision, moment: Moment) -> None:
    decision.do(Action(values.BEGIN_CONNECTION), Action(values.PUBLISH_HEARTBEAT))
    if decision.state.stage == RECEIVED:
        decision.do(Action(values.PUBLISH_COLLECTED, decision.state.id))
        decision.change(collect=repetition(moment))
    publish_results(decision, moment)


def _tick(decision: Decision, moment: Moment) -> None:
    _ready(decision, moment, certain=False)
    state = decision.state
    if state.collect is not None and state.collect.at <= moment.now:
        decision.do(Action(values.PUBLISH_COLLECTED, state.id))
        decision.change(collect=state.collect.later(moment))
    if state.results is not None and state.results.at <= moment.now:
        decision.do(Action(values.RETRY_WRITES), Action(values.PUBLISH_RESULTS_AGAIN))
        decision.change(results=state.results.later(moment))


def _of_a_run(decision: Decision, event: Event, moment: Moment) -> None:
    state = decision.state
    stage, case = state.stage, Case(state.id)
    if isinstance(event, values.Started):
        word = moves.START
    elif isinstance(event, values.Ended):
        word = moves.END
        case = Case(state.id, reason=event.reason, outcome=event.outcome, began=event.began)
    elif isinstance(event, values.NotStarted):
        word, case = moves.FAILURE, Case(state.id, reason=event.reason, outcome="rejected")
    elif isinstance(event, values.TimeOver):
        word = moves.TIME_OVER
    elif isinstance(event, values.Restored):
        word, stage, case = moves.RESTART, event.stage, Case(event.id, event.order)
        if event.renamed:
            word = moves.RENAMED
            case = Case(event.id, event.order, "this board is called " + event.renamed + " now")
        elif event.timed and stage == RECEIVED:
            word = moves.TIMED_RESTART
    else:
        raise TypeError("no event of a device: " + repr(event))
    move(decision, word, stage, case, moment)
