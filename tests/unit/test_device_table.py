"""The device's table, cell by cell: what it moves, what is written, and what is done then."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsync.protocol import device_table
from hwsync.protocol.device import core, values
from hwsync.protocol.device.moves import (
    BARRED_GRANT,
    BUSY_OFFER,
    CANCEL,
    DOUBTED_OFFER,
    END,
    FAILURE,
    GRANT,
    HALT,
    MISSENT_OFFER,
    NEW_LIFE,
    NEWER_OFFER,
    OFFER,
    OTHER,
    PENDING,
    PREPARED,
    RAN,
    READY,
    RENAMED,
    RESTART,
    SAME_OFFER,
    SETTLING,
    START,
    TABLE,
    TIME_OVER,
    TIMED_GRANT,
    TIMED_OFFER,
    TIMED_RESTART,
    UNHEARD_OF,
    WORDS,
)
from hwsync.protocol.device.values import (
    ARMED,
    CLOSED,
    ENDING,
    FINISHED,
    NEW,
    PREPARING,
    RECEIVED,
    RUNNING,
    SETTLED,
    STAGES,
    STARTING,
    Decision,
    Event,
    Known,
    Moment,
    Offered,
    Own,
    Repetition,
    State,
    StatusReceived,
)
from hwsync.protocol.record import RAN_BY_OUTCOME

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
NOW = Moment(100.0, 0.0)
OWN = Own("j", 2, 0)
HELD = (PREPARING, RECEIVED, STARTING, RUNNING, ARMED, ENDING)
GRANTED = ("a", 2, "j", 2)
START_AT = (1_700_000_000_000_000, "l")


def state(stage: str, **changes: object) -> State:
    """``a`` came so far; where it is over, nothing is in hand."""
    if stage not in HELD:
        return State().but(**changes)
    held = State().but(id="a", stage=stage, order=(0, 5), newest=(0, 5))
    if stage == RECEIVED:
        held = held.but(collect=Repetition(101.0, 1, 90.0))
    if stage == PREPARING:
        held = held.but(timed=True, patience=101.0)
    if stage == ARMED:
        held = held.but(timed=True, prepared=True, start_at=START_AT[0], life=START_AT[1])
    return held.but(**changes)


def known(stage: str) -> Known | None:
    """What is known of ``a`` then; what is closed or settled was closed by the status 0, 5."""
    if stage == NEW:
        return None
    closing = (0, 5) if stage in (CLOSED, SETTLED) else None
    written = {
        PREPARING: RECEIVED, STARTING: RECEIVED, ARMED: RUNNING, ENDING: RUNNING,
    }.get(stage, stage)  # fmt: skip
    return Known("a", written, closing, was_closed=closing is not None)


def status(
    order: tuple[int, int], grant: tuple[str, int, str | None, int | None], **more: object
) -> StatusReceived:
    return StatusReceived(OWN, order, grant, **{"cancelling": False, **more})  # type: ignore[arg-type]


def event(word: str, stage: str) -> tuple[State, Event]:
    """What means this word to ``a``, where such a thing can happen."""
    before, of = state(stage), known(stage)
    order = (0, 5) if stage == NEW else (0, 6)
    offers = {
        OFFER: Offered("a", order, of),
        NEWER_OFFER: Offered("a", order, of),
        TIMED_OFFER: Offered("a", order, of, timed=True),
        SAME_OFFER: Offered("a", (0, 5), of),
        DOUBTED_OFFER: Offered("a", order, of, doubt="why"),
        MISSENT_OFFER: Offered("a", order, of, doubt="why", answer=False),
        BUSY_OFFER: Offered("a", order, of, room=False),
    }
    if word in offers:
        return before, offers[word]
    neutral = ("a", 1, None, None) if stage == RECEIVED else GRANTED  # it moves nothing
    start = {"start": START_AT, "clock_life": "l"} if stage == ARMED else {}
    told = {
        GRANT: status((0, 6), GRANTED, **start),
        TIMED_GRANT: status((0, 6), GRANTED, start=START_AT, clock_life="l"),
        BARRED_GRANT: status((0, 6), GRANTED, distrust="why", **start),
        CANCEL: status((0, 6), GRANTED, cancelling=True),
        PENDING: status((0, 6), ("a", 1, None, None)),
        OTHER: status((0, 6), ("a", 3, "j", 2)),
        UNHEARD_OF: status((0, 4), ("", 0, None, None)),
        SETTLING: status((0, 6), neutral, settled=(of,) if of else (), **start),
    }
    if word == TIMED_GRANT and stage == RECEIVED:
        before = before.but(timed=True, prepared=True)
    if word in told:
        return before.but(newest=(0, 4)), told[word]
    own = {
        PREPARED: values.Prepared(certain=False),
        READY: values.Prepared(certain=True),
        NEW_LIFE: values.ClockChanged("m", certain=False),
        HALT: values.Stopping(),
        START: values.Started(),
        END: values.Ended("ok", "", began=True),
        FAILURE: values.NotStarted("why"),
        TIME_OVER: values.TimeOver(),
    }
    if word in own:
        return before, own[word]
    renamed = "v" if word == RENAMED else ""
    timed = word == TIMED_RESTART
    return State(), values.Restored("a", stage, (0, 5), renamed=renamed, timed=timed)


def said(decision: Decision) -> list[str]:
    return [each.do for each in decision.writes + decision.actions]


def end(decision: Decision) -> tuple[str, str, str, tuple[int, int] | None]:
    (one,) = [each for each in decision.actions if each.do == values.WRITE_END]
    return one.outcome, one.ran, one.reason, one.order


COLLECTED = [values.PUBLISH_COLLECTED, values.PUBLISH_HEARTBEAT]
ANSWERED = [values.WRITE_END, values.PUBLISH_HEARTBEAT, values.PUBLISH_RESULT]
TAKEN = [values.WRITE_RECEIVED, *COLLECTED]
REOPENED = [values.NEXT_BOOT, *TAKEN]
REFUSED = [values.NOTE_REFUSAL, values.KEEP_REFUSED, *COLLECTED]
AGAIN = [values.PUBLISH_COLLECTED]
RESULT = [values.PUBLISH_RESULT]
STOPPED = [values.STOP_RUN]
DROPPED = [values.DROP_RUN, *ANSWERED]
MADE = [values.WRITE_RECEIVED, values.PUBLISH_HEARTBEAT, values.PREPARE_RUN]

CELLS: dict[tuple[str, str], tuple[str, list[str]]] = {
    (OFFER, NEW): (RECEIVED, TAKEN),
    (NEWER_OFFER, PREPARING): (RECEIVED, [TAKEN[0], values.DROP_RUN, *TAKEN[1:]]),
    (NEWER_OFFER, RECEIVED): (RECEIVED, TAKEN),
    (NEWER_OFFER, CLOSED): (RECEIVED, REOPENED),
    (NEWER_OFFER, SETTLED): (RECEIVED, REOPENED),
    **{(TIMED_OFFER, stage): (PREPARING, MADE) for stage in (NEW, PREPARING, RECEIVED)},
    **{(TIMED_OFFER, stage): (PREPARING, [values.NEXT_BOOT, *MADE]) for stage in (CLOSED, SETTLED)},
    **{(SAME_OFFER, stage): (stage, RESULT) for stage in (FINISHED, CLOSED, SETTLED)},
    (SAME_OFFER, RECEIVED): (RECEIVED, AGAIN),
    **{(DOUBTED_OFFER, stage): (stage, RESULT) for stage in (FINISHED, CLOSED, SETTLED)},
    (DOUBTED_OFFER, NEW): (RECEIVED, REFUSED),
    (DOUBTED_OFFER, RECEIVED): (RECEIVED, AGAIN),
    **{(MISSENT_OFFER, stage): (stage, RESULT) for stage in (FINISHED, CLOSED, SETTLED)},
    (MISSENT_OFFER, NEW): (NEW, [values.NOTE_REFUSAL, values.PUBLISH_HEARTBEAT]),
    (MISSENT_OFFER, RECEIVED): (RECEIVED, AGAIN),
    (GRANT, RECEIVED): (STARTING, [values.START_RUN]),
    (TIMED_GRANT, RECEIVED): (ARMED, [values.WRITE_STARTED, values.ARM_RUN]),
    **{(word, PREPARING): (CLOSED, DROPPED) for word in (CANCEL, OTHER)},
    **{(word, RECEIVED): (CLOSED, ANSWERED) for word in (BARRED_GRANT, CANCEL, OTHER, UNHEARD_OF)},
    **{
        (word, stage): (ENDING, STOPPED)
        for word in (CANCEL, PENDING, OTHER)
        for stage in (STARTING, RUNNING, ARMED)
    },
    **{(SETTLING, stage): (SETTLED, [values.WRITE_SETTLED]) for stage in (FINISHED, CLOSED)},
    (PREPARED, PREPARING): (PREPARING, []),
    (READY, PREPARING): (RECEIVED, AGAIN),
    **{(word, ARMED): (ARMED, [values.DISARM_RUN]) for word in (NEW_LIFE, HALT)},
    (START, STARTING): (RUNNING, [values.WRITE_STARTED]),
    (START, ENDING): (ENDING, [values.WRITE_STARTED, *STOPPED]),
    **{(END, stage): (FINISHED, ANSWERED) for stage in (STARTING, RUNNING, ARMED, ENDING)},
    (FAILURE, PREPARING): (RECEIVED, [values.NOTE_REFUSAL, values.PUBLISH_COLLECTED]),
    **{(FAILURE, stage): (FINISHED, ANSWERED) for stage in (STARTING, RUNNING, ARMED, ENDING)},
    **{(TIME_OVER, stage): (stage, STOPPED) for stage in (STARTING, RUNNING, ARMED, ENDING)},
    (TIMED_RESTART, RECEIVED): (PREPARING, [values.PREPARE_RUN]),
    (RESTART, RECEIVED): (RECEIVED, []),
    (RESTART, RUNNING): (FINISHED, [values.END_LEFTOVERS, values.WRITE_END]),
    (RENAMED, RECEIVED): (CLOSED, [values.WRITE_END]),
    (RENAMED, RUNNING): (FINISHED, [values.END_LEFTOVERS, values.WRITE_END]),
}
"""What docs/protocol.md, section 5, says of each."""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("word", WORDS)
def test_each_cell_and_each_hole(word: str, stage: str) -> None:
    before, happens = event(word, stage)
    decision = core.decide(before, happens, NOW)
    actions = [each for each in said(decision) if each != values.NOTE_ANSWER]
    if (word, stage) in CELLS:
        to, expected = CELLS[word, stage]
        assert TABLE[word, stage][0] == to
        assert actions == expected
        assert decision.state.stage == (to if to in HELD else NEW)
        assert decision.state.id == ("a" if to in HELD else "")
    elif (word, stage) not in UNREACHABLE:
        assert (word, stage) not in TABLE
        assert actions == []
        assert decision.state.stage == before.stage


UNREACHABLE = frozenset(
    [
        *((OFFER, stage) for stage in STAGES if stage != NEW),  # known, so newer or the same
        *((word, NEW) for word in (NEWER_OFFER, SAME_OFFER)),
        *((word, FINISHED) for word in (NEWER_OFFER, TIMED_OFFER)),  # no status closed what ran
        (BUSY_OFFER, PREPARING),
        (BUSY_OFFER, RECEIVED),  # it is in hand itself
        (BUSY_OFFER, FINISHED),
        (UNHEARD_OF, STARTING), (UNHEARD_OF, RUNNING), (UNHEARD_OF, ENDING),  # it had its grant
        (UNHEARD_OF, ARMED),
        (TIMED_RESTART, RUNNING),  # however it began
    ]
)  # fmt: skip
"""What no event can mean there; the table has none of them."""


def test_what_cannot_be_is_in_no_cell() -> None:
    assert not UNREACHABLE & TABLE.keys()
    assert TABLE.keys() == CELLS.keys()
    assert {word for word, _ in TABLE} == set(WORDS) - {BUSY_OFFER}


def test_a_value_is_not_changed_by_a_decision() -> None:
    for word, stage in CELLS:
        before, happens = event(word, stage)
        copy = before.but()
        core.decide(before, happens, NOW)
        assert before == copy


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (BARRED_GRANT, ("rejected", "no", "why", (0, 6))),
        (CANCEL, ("cancelled", "no", "cancelled before it began", (0, 6))),
        (OTHER, ("rejected", "no", "not granted to this device", (0, 6))),
        (UNHEARD_OF, ("rejected", "no", "the coordinator does not know it", (0, 4))),
    ],
)
def test_what_is_closed_says_why_and_by_which_status(
    word: str, expected: tuple[str, str, str, tuple[int, int]]
) -> None:
    assert end(core.decide(*event(word, RECEIVED), NOW)) == expected


@pytest.mark.parametrize("word", [OTHER, UNHEARD_OF, GRANT])
def test_what_was_refused_says_its_own_reason(word: str) -> None:
    before, happens = event(word, RECEIVED)
    decision = core.decide(before.but(refusal="the disk is full"), happens, NOW)
    assert end(decision)[:3] == ("rejected", "no", "the disk is full")


@pytest.mark.parametrize("outcome", RAN_BY_OUTCOME)
def test_ran_follows_from_the_outcome_as_everywhere(outcome: str) -> None:
    if outcome in ("rejected", "expired", "lost"):
        return  # no runner says so
    assert RAN[outcome] == RAN_BY_OUTCOME[outcome]  # type: ignore[index]


@pytest.mark.parametrize(
    ("stage", "began", "expected"),
    [
        (RUNNING, True, ("interrupted", "maybe")),
        (RUNNING, False, ("cancelled", "no")),
        (ENDING, True, ("cancelled", "yes")),
    ],
)
def test_what_a_stop_ended_is_interrupted_but_for_what_was_cancelled_before(
    stage: str, began: bool, expected: tuple[str, str]
) -> None:
    before = state(stage, stopping=True)
    decision = core.decide(before, values.Ended("cancelled", "why", began=began), NOW)
    assert end(decision)[:2] == expected


# -- a start at an instant ------------------------------------------------------------------------

READY_STATE = state(RECEIVED, timed=True, prepared=True)


def test_a_start_is_written_with_its_instant_before_it_is_armed() -> None:
    decision = core.decide(*event(TIMED_GRANT, RECEIVED), NOW)
    assert decision.writes == [values.Action(values.WRITE_STARTED, "a")]
    assert values.Action(values.ARM_RUN, "a", number=START_AT[0]) in decision.actions
    assert (decision.state.start_at, decision.state.life) == START_AT


def test_it_is_collected_only_when_it_is_ready_and_the_time_is_known() -> None:
    prepared = core.decide(state(PREPARING), values.Prepared(certain=False), NOW).state
    assert (prepared.stage, core.due_at(prepared)) == (PREPARING, 101.0)
    assert said(core.decide(prepared, values.Tick(), NOW)) == []
    known_by_then = core.decide(prepared, values.ClockChanged("l", certain=True), NOW)
    assert (said(known_by_then), known_by_then.state.stage) == (AGAIN, RECEIVED)
    waited = core.decide(prepared, values.Tick(), Moment(101.0, 0.0))
    assert (said(waited), waited.state.stage) == (AGAIN, RECEIVED)


def test_the_time_alone_makes_nothing_ready() -> None:
    decision = core.decide(state(PREPARING), values.ClockChanged("l", certain=True), NOW)
    assert (said(decision), decision.state.stage) == ([], PREPARING)
    assert core.due_at(decision.state) is None
    late = core.decide(state(PREPARING), values.Tick(), Moment(110.0, 0.0))
    assert said(late) == []


def test_state_2_without_an_instant_starts_nothing() -> None:
    decision = core.decide(READY_STATE, status((0, 6), GRANTED, clock_life="l"), NOW)
    assert said(decision) == [values.NOTE_ANSWER]
    assert decision.state.stage == RECEIVED


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"clock_life": ""}, "lab time is not known here"),
        ({"clock_life": "m"}, "lab time has begun a new life since its instant was fixed"),
        ({"clock_life": "l", "distrust": "its key"}, "its key"),
    ],
)
def test_what_stands_against_its_instant_at_the_grant(changes: dict[str, str], why: str) -> None:
    happens = status((0, 6), GRANTED, start=START_AT, **changes)
    decision = core.decide(READY_STATE, happens, NOW)
    assert end(decision) == ("rejected", "no", why, (0, 6))
    assert values.DROP_RUN in said(decision)


def test_one_that_cannot_be_written_as_started_is_rejected() -> None:
    happens = status((0, 6), GRANTED, start=START_AT, clock_life="l")
    happens.unwritten = "the disk is full"
    decision = core.decide(READY_STATE, happens, NOW)
    assert decision.writes == []
    assert end(decision)[:3] == ("rejected", "no", "the disk is full")


@pytest.mark.parametrize("start", [(None, ""), (START_AT[0] + 1, "l"), (START_AT[0], "m")])
def test_a_grant_for_another_instant_takes_it_back(start: tuple[int | None, str]) -> None:
    happens = status((0, 6), GRANTED, start=start, clock_life="l")
    decision = core.decide(state(ARMED), happens, NOW)
    assert said(decision) == [values.NOTE_ANSWER, *STOPPED]
    assert decision.state.stage == ENDING


def test_the_life_that_it_was_armed_in_takes_nothing_back() -> None:
    for life in ("l", ""):
        decision = core.decide(state(ARMED), values.ClockChanged(life, certain=False), NOW)
        assert said(decision) == []


@pytest.mark.parametrize("stage", [ARMED, ENDING])
def test_what_was_not_released_ran_no_also_after_started(stage: str) -> None:
    """It is rejected; where it was told to end before, it is cancelled."""
    decision = core.decide(state(stage), values.NotStarted("not released"), NOW)
    assert end(decision) == ("rejected", "no", "not released", None)
    stopped = values.Ended("cancelled", "cancelled before it began", began=False)
    assert end(core.decide(state(stage), stopped, NOW))[:2] == ("cancelled", "no")


def test_what_was_taken_back_at_a_stop_is_rejected() -> None:
    stopping = core.decide(state(ARMED), values.Stopping(), NOW).state
    decision = core.decide(stopping, values.NotStarted("taken back"), NOW)
    assert end(decision)[:2] == ("rejected", "no")


def test_a_crash_after_started_is_interrupted_as_ever() -> None:
    decision = core.decide(State(), values.Restored("a", RUNNING, (0, 5), timed=True), NOW)
    assert end(decision)[:2] == ("interrupted", "maybe")


def test_a_start_that_cannot_be_written_as_received_is_refused() -> None:
    offered = Offered("a", (0, 5), None, timed=True)
    offered.unwritten = "the disk is full"
    decision = core.decide(State(), offered, NOW)
    assert (decision.writes, said(decision)) == ([], [values.KEEP_REFUSED, *COLLECTED])


# -- one command at a time ------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [NEW, CLOSED, SETTLED])
@pytest.mark.parametrize(
    ("taken", "room"),
    [(state(RECEIVED), True), (state(ENDING), True), (state(NEW, stopping=True), True),
     (state(NEW), False)],
    ids=["one waits", "one runs", "it stops", "no room"],
)  # fmt: skip
def test_no_other_command_is_taken(taken: State, room: bool, stage: str) -> None:
    of = known(stage)
    offered = Offered("b", (0, 9), Known("b", of.stage, of.closing) if of else None, room=room)
    decision = core.decide(taken, offered, NOW)
    assert (said(decision), decision.state) == ([], taken)


def test_a_known_result_is_told_however_busy_it_is() -> None:
    offered = Offered("b", (0, 5), Known("b", CLOSED, (0, 5)))
    assert said(core.decide(state(RUNNING), offered, NOW)) == RESULT


def test_what_a_crash_left_beside_another_command_is_as_new() -> None:
    offered = Offered("b", (0, 5), Known("b", RECEIVED))
    assert said(core.decide(state(RUNNING), offered, NOW)) == []
    assert said(core.decide(State(), offered, NOW)) == TAKEN


def test_an_id_of_another_users_command_is_refused() -> None:
    offered = Offered("a", (0, 5), Known("a", FINISHED, another="w"))
    decision = core.decide(State(), offered, NOW)
    assert said(decision) == REFUSED
    assert decision.state.refusal == "the journal has a command a of w"


def test_a_forged_copy_does_not_stand_in_the_way_of_the_true_one() -> None:
    before = state(RECEIVED, refusal="not signed")
    true = Offered("a", (0, 5), known(RECEIVED), signed=True)
    assert said(core.decide(before, true, NOW)) == TAKEN
    assert said(core.decide(before, Offered("a", (0, 5), known(RECEIVED)), NOW)) == AGAIN


# -- what the journal refuses ---------------------------------------------------------------------


def test_what_cannot_be_written_as_received_is_refused() -> None:
    offered = Offered("a", (0, 5), None)
    offered.unwritten = "the disk is full"
    decision = core.decide(State(), offered, NOW)
    assert (decision.writes, said(decision)) == ([], [values.KEEP_REFUSED, *COLLECTED])
    assert (decision.state.stage, decision.state.refusal) == (RECEIVED, "the disk is full")


def test_a_start_insists_on_being_written() -> None:
    started = values.Started()
    started.unwritten = "the disk is full"
    assert core.decide(state(STARTING), started, NOW).writes


# -- which statuses are believed ------------------------------------------------------------------


def deaf(**changes: object) -> State:
    return state(RECEIVED, newest=(9, 1), stale_since=100.0 - values.DEAF_S).but(**changes)


def test_older_statuses_alone_are_believed_after_a_while_with_the_next_boot() -> None:
    happens = StatusReceived(Own("j", 2, 9), (0, 6), GRANTED, cancelling=False)
    decision = core.decide(deaf(), happens, NOW)
    writes = [each.do for each in decision.writes]
    assert writes == [values.NOTE_DEAFNESS, values.NEXT_BOOT, values.WRITE_EPOCH]
    assert (decision.again, decision.state.newest) == (True, (0, 6))
    # The grant is to the boot that is over now.
    after = core.decide(
        decision.state, StatusReceived(Own("j", 3, 0), (0, 6), GRANTED, cancelling=False), NOW
    )
    assert (after.again, after.state.stage) == (False, RECEIVED)


@pytest.mark.parametrize("before", [deaf(stale_since=None), deaf(stale_since=41.0)])
def test_not_before(before: State) -> None:
    decision = core.decide(before, status((0, 6), GRANTED), NOW)
    assert (said(decision), decision.again, decision.state.newest) == ([], False, (9, 1))


def test_nobody_is_believed_where_the_next_boot_cannot_be_written() -> None:
    happens = status((0, 6), GRANTED)
    happens.unwritten = "the disk is full"
    decision = core.decide(deaf(), happens, NOW)
    assert (said(decision), decision.state) == ([], deaf())


def test_a_new_epoch_unsettles_what_the_same_status_may_settle_again() -> None:
    before = Known("b", SETTLED)
    happens = StatusReceived(OWN, (7, 1), ("", 0, None, None), cancelling=False, settled=(before,))
    decision = core.decide(State(), happens, NOW)
    assert said(decision) == [
        values.BEGIN_EPOCH, values.PUBLISH_RESULTS, values.WRITE_SETTLED, values.NOTE_ANSWER
    ]  # fmt: skip


def test_an_event_that_is_none_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="no event of a device"):
        core.decide(State(), Event(), NOW)


# -- docs/protocol.md ------------------------------------------------------------------------------


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def test_table_and_diagram_are_the_codes() -> None:
    assert device_table.rewrite(text()) == text(), "run scripts/protocol-table"


@pytest.mark.parametrize(("word", "stage"), [(word, stage) for word in WORDS for stage in STAGES])
def test_a_changed_cell_is_found(word: str, stage: str) -> None:
    changed = dict(TABLE)
    if (word, stage) in TABLE:
        del changed[word, stage]
    else:
        changed[word, stage] = (NEW, TABLE[OFFER, NEW][1], "")
    assert device_table.markdown_table(changed) not in text()


def test_an_arrow_that_leads_elsewhere_is_found() -> None:
    changed = dict(TABLE)
    _, step, note = TABLE[GRANT, RECEIVED]
    changed[GRANT, RECEIVED] = (RUNNING, step, note)
    assert device_table.mermaid(changed) not in text()


@pytest.mark.parametrize("name", ["device table", "device diagram"])
@pytest.mark.parametrize("side", ["begin", "end"])
def test_a_missing_marker_is_named(name: str, side: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {side}"):
        device_table.rewrite(text().replace(f"<!-- {name}: {side} -->", ""))
