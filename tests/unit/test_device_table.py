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
    MISSENT_OFFER,
    NEWER_OFFER,
    OFFER,
    OTHER,
    PENDING,
    RAN,
    RENAMED,
    RESTART,
    SAME_OFFER,
    SETTLING,
    START,
    TABLE,
    TIME_OVER,
    UNHEARD_OF,
    WORDS,
)
from hwsync.protocol.device.values import (
    CLOSED,
    ENDING,
    FINISHED,
    NEW,
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
HELD = (RECEIVED, STARTING, RUNNING, ENDING)
GRANTED = ("a", 2, "j", 2)


def state(stage: str, **changes: object) -> State:
    """``a`` came so far; where it is over, nothing is in hand."""
    if stage not in HELD:
        return State().but(**changes)
    held = State().but(id="a", stage=stage, order=(0, 5), newest=(0, 5))
    if stage == RECEIVED:
        held = held.but(collect=Repetition(101.0, 1, 90.0))
    return held.but(**changes)


def known(stage: str) -> Known | None:
    """What is known of ``a`` then; what is closed or settled was closed by the status 0, 5."""
    if stage == NEW:
        return None
    closing = (0, 5) if stage in (CLOSED, SETTLED) else None
    written = {STARTING: RECEIVED, ENDING: RUNNING}.get(stage, stage)
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
        SAME_OFFER: Offered("a", (0, 5), of),
        DOUBTED_OFFER: Offered("a", order, of, doubt="why"),
        MISSENT_OFFER: Offered("a", order, of, doubt="why", answer=False),
        BUSY_OFFER: Offered("a", order, of, room=False),
    }
    if word in offers:
        return before, offers[word]
    neutral = ("a", 1, None, None) if stage == RECEIVED else GRANTED  # it moves nothing
    told = {
        GRANT: status((0, 6), GRANTED),
        BARRED_GRANT: status((0, 6), GRANTED, distrust="why"),
        CANCEL: status((0, 6), GRANTED, cancelling=True),
        PENDING: status((0, 6), ("a", 1, None, None)),
        OTHER: status((0, 6), ("a", 3, "j", 2)),
        UNHEARD_OF: status((0, 4), ("", 0, None, None)),
        SETTLING: status((0, 6), neutral, settled=(of,) if of else ()),
    }
    if word in told:
        return before.but(newest=(0, 4)), told[word]
    own = {
        START: values.Started(),
        END: values.Ended("ok", "", began=True),
        FAILURE: values.NotStarted("why"),
        TIME_OVER: values.TimeOver(),
    }
    if word in own:
        return before, own[word]
    renamed = "v" if word == RENAMED else ""
    return State(), values.Restored("a", stage, (0, 5), renamed=renamed)


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

CELLS: dict[tuple[str, str], tuple[str, list[str]]] = {
    (OFFER, NEW): (RECEIVED, TAKEN),
    (NEWER_OFFER, RECEIVED): (RECEIVED, TAKEN),
    (NEWER_OFFER, CLOSED): (RECEIVED, REOPENED),
    (NEWER_OFFER, SETTLED): (RECEIVED, REOPENED),
    **{(SAME_OFFER, stage): (stage, RESULT) for stage in (FINISHED, CLOSED, SETTLED)},
    (SAME_OFFER, RECEIVED): (RECEIVED, AGAIN),
    **{(DOUBTED_OFFER, stage): (stage, RESULT) for stage in (FINISHED, CLOSED, SETTLED)},
    (DOUBTED_OFFER, NEW): (RECEIVED, REFUSED),
    (DOUBTED_OFFER, RECEIVED): (RECEIVED, AGAIN),
    **{(MISSENT_OFFER, stage): (stage, RESULT) for stage in (FINISHED, CLOSED, SETTLED)},
    (MISSENT_OFFER, NEW): (NEW, [values.NOTE_REFUSAL, values.PUBLISH_HEARTBEAT]),
    (MISSENT_OFFER, RECEIVED): (RECEIVED, AGAIN),
    (GRANT, RECEIVED): (STARTING, [values.START_RUN]),
    **{(word, RECEIVED): (CLOSED, ANSWERED) for word in (BARRED_GRANT, CANCEL, OTHER, UNHEARD_OF)},
    **{
        (word, stage): (ENDING, STOPPED)
        for word in (CANCEL, PENDING, OTHER)
        for stage in (STARTING, RUNNING)
    },
    **{(SETTLING, stage): (SETTLED, [values.WRITE_SETTLED]) for stage in (FINISHED, CLOSED)},
    (START, STARTING): (RUNNING, [values.WRITE_STARTED]),
    (START, ENDING): (ENDING, [values.WRITE_STARTED, *STOPPED]),
    **{(END, stage): (FINISHED, ANSWERED) for stage in (STARTING, RUNNING, ENDING)},
    **{(FAILURE, stage): (FINISHED, ANSWERED) for stage in (STARTING, RUNNING, ENDING)},
    **{(TIME_OVER, stage): (stage, STOPPED) for stage in (STARTING, RUNNING, ENDING)},
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
        (NEWER_OFFER, FINISHED),  # what ran was closed by no status
        (BUSY_OFFER, RECEIVED),  # it is in hand itself
        (BUSY_OFFER, FINISHED),
        (UNHEARD_OF, STARTING), (UNHEARD_OF, RUNNING), (UNHEARD_OF, ENDING),  # it had its grant
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
