"""The table, cell by cell, and the rules for events that name an id."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from hwsync.protocol.admission import digest_of
from hwsync.protocol.answers import implied_effects
from hwsync.protocol.effects import (
    Analyse,
    Decision,
    PublishEnvelope,
    PublishError,
    PublishResult,
    PublishStatus,
)
from hwsync.protocol.errors import Code
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
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
from hwsync.protocol.limits import DEFAULT_NAME
from hwsync.protocol.machine import decide
from hwsync.protocol.moves import TABLE
from hwsync.protocol.record import (
    AnalysedBy,
    Command,
    Moment,
    Outcome,
    Ran,
    Record,
    Request,
    RunReport,
    Start,
    State,
    Verb,
)
from hwsync.protocol.rules import Rules

RULES = Rules()
OK = RunReport(Outcome.OK, Ran.YES, response="42\n", exit_code=0)
REJECTED = RunReport(Outcome.REJECTED, Ran.NO, "another device holds the grant")
NOW = Moment(1_000.0, 50.0, "0123456789abcdef")


def at(ticks: float) -> Moment:
    return Moment(1_000.0 + ticks, ticks, "0123456789abcdef")


def step(
    record: Record,
    event: Event,
    moment: Moment = NOW,
    known: Command | None = None,
    rules: Rules = RULES,
) -> Decision:
    """Decide; a named event finds the record's own command as the store would."""
    if known is None and record.current is not None and event.id == record.id:
        known = record.current
    return decide(record, event, moment, known, rules)


def record_in(state: State, **keys: object) -> Record:
    """A record of pi1 with the command c1 in that state, collected by the journal j1, boot 3."""
    record = step(Record("pi1"), Requested(Request("print(6*7)", "c1", **keys))).record  # type: ignore[arg-type]
    if state is State.REQUESTED:
        return record
    record = step(record, Collected("c1", "j1", 3)).record
    if state is State.COLLECTED:
        return record
    record = step(record, Returned(OK, "c1", "j1", 3)).record
    if state is State.RETURNED:
        return record
    return step(record, Analysed("right")).record


def together(record: Record) -> Record:
    """The same, and it begins when the members of its batch are ready."""
    assert record.current is not None
    request = replace(record.current.request, start=Start())
    return replace(record, current=replace(record.current, request=request))


EVENTS: dict[Verb, Event] = {
    Verb.REQUEST: Requested(Request("print(1)", "c2")),
    Verb.RETRIEVAL: Collected("c1", "j1", 4),
    Verb.RESPONSE: Returned(OK, "c1", "j1", 3),
    Verb.ANALYSIS: Analysed("fine"),
    Verb.CANCEL: CancelAsked(),
    Verb.RESET: ResetAsked(),
    Verb.EXPIRE: DeadlinePassed("c1"),
    Verb.RESTORE: Restored(7),
    Verb.START: StartFixed("c1", 1_000_000_000, "life"),
    Verb.LEFT_OUT: LeftOut("c1", "not ready"),
    Verb.NEXT: NextInQueue(Command("pi1", "c3", Request("print(3)", "c3"))),
}
LATE = at(1e9)


@pytest.mark.parametrize(("verb", "state"), sorted(TABLE))
def test_each_cell_leads_where_the_table_says(verb: Verb, state: State) -> None:
    before = record_in(state)
    if verb is Verb.NEXT:
        before = replace(before, queue=("c3",))
    if (verb, state) == (Verb.RESPONSE, State.REQUESTED):
        assert before.current is not None
        before = replace(before, current=replace(before.current, doubtful=True))
    if verb in (Verb.START, Verb.LEFT_OUT):
        before = together(before)
    after = step(before, EVENTS[verb], LATE if verb is Verb.EXPIRE else NOW)
    assert after.refused is None
    assert after.record.state is TABLE[verb, state].to
    assert after.record.seq == before.seq + 1
    assert after.record.verb is (Verb.REQUEST if verb is Verb.NEXT else verb)
    assert after.entry is not None
    assert (after.entry.before, after.entry.after) == (state, after.record.state)
    assert after.effects[0] == PublishStatus(after.record)


PERSONS: dict[Verb, Event] = {
    Verb.REQUEST: Requested(Request("print(1)")),
    Verb.RETRIEVAL: Collected(),
    Verb.RESPONSE: Returned(OK),
    Verb.ANALYSIS: Analysed("fine"),
    Verb.CANCEL: CancelAsked(),
}
HOLES = [(verb, state) for verb in PERSONS for state in State if (verb, state) not in TABLE]
HOLES.append((Verb.RESPONSE, State.REQUESTED))  # a person names no id


@pytest.mark.parametrize(("verb", "state"), HOLES)
def test_each_hole_refuses_a_person_and_changes_nothing(verb: Verb, state: State) -> None:
    before = record_in(state)
    after = step(before, PERSONS[verb])
    assert after.record is before
    assert after.entry is None
    assert after.refused is not None
    assert after.refused.code is (Code.BUSY if verb is Verb.REQUEST else Code.WRONG_STATE)
    assert "pi1 is in state" in after.refused.message
    assert "hw/pi1" in after.refused.hint
    assert [type(effect) for effect in after.effects] == [PublishError]


OVERDUE = Command("pi1", "c3", Request("print(3)", "c3", expires_at=NOW.wall))
OTHERWISE: dict[tuple[Verb, State], tuple[Event, Code | None]] = {
    (Verb.NEXT, State.REST): (NextInQueue(OVERDUE), None),
    (Verb.RETRIEVAL, State.REQUESTED): (Collected("c1", "j1", 3), Code.WRONG_STATE),
    (Verb.RETRIEVAL, State.COLLECTED): (Collected("c1", "j2", 9), Code.NOT_CURRENT),
    (Verb.RESPONSE, State.REQUESTED): (Returned(OK, "c1", "j1", 3), Code.WRONG_STATE),
    (Verb.RESPONSE, State.COLLECTED): (Returned(OK, "c1", "j2", 1), Code.NOT_CURRENT),
    (Verb.START, State.COLLECTED): (StartFixed("c1", 5, "life"), Code.WRONG_STATE),
    (Verb.LEFT_OUT, State.COLLECTED): (LeftOut("c1", "not ready"), Code.WRONG_STATE),
    (Verb.ANALYSIS, State.RETURNED): (
        Analysed("{}", "c1", AnalysedBy("check1", "1"), regrade=True),
        None,
    ),
    (Verb.CANCEL, State.COLLECTED): (CancelAsked(), None),
    (Verb.EXPIRE, State.REQUESTED): (DeadlinePassed("c1"), None),
    (Verb.EXPIRE, State.COLLECTED): (DeadlinePassed("c1"), None),
    (Verb.EXPIRE, State.RETURNED): (DeadlinePassed("c1"), None),
}


def test_each_condition_of_the_table_is_tried() -> None:
    assert set(OTHERWISE) == {cell for cell, move in TABLE.items() if move.guard}


@pytest.mark.parametrize("cell", sorted(OTHERWISE))
def test_a_cell_whose_condition_does_not_hold_moves_nothing(cell: tuple[Verb, State]) -> None:
    verb, state = cell
    before = replace(record_in(state), queue=("c3",) if verb is Verb.NEXT else ())
    if cell == (Verb.RETRIEVAL, State.REQUESTED):
        before = record_in(state, expires_at=NOW.wall + 1.0)
    if verb is Verb.CANCEL:
        before = step(before, CancelAsked()).record
    event, code = OTHERWISE[cell]
    after = step(before, event, replace(NOW, wall=NOW.wall + 1.0))
    assert (after.refused and after.refused.code) == code
    assert after.record.state is state
    assert after.record.current == before.current or verb in (Verb.RESPONSE, Verb.ANALYSIS)
    if code is None and verb not in (Verb.NEXT, Verb.ANALYSIS):
        assert after.record is before
    assert after.entry is None or (after.entry.before, after.entry.after) == (state, state)


def test_the_hint_in_state_3_gives_the_line_to_type() -> None:
    refused = step(record_in(State.RETURNED), Requested(Request("1"))).refused
    assert refused is not None
    assert "mosquitto_pub -q 1 -t hw/pi1/analysis -m TEXT" in refused.hint


def test_a_query_changes_nothing_and_is_answered() -> None:
    for state in State:
        before = record_in(state)
        named = step(before, Queried("c1"))
        assert named.record is before
        assert named.effects[0] == PublishStatus(before)
        assert isinstance(named.effects[1], PublishResult)
        assert step(before, Queried()).effects == (PublishStatus(before),)
        assert step(before, Queried("nope")).refused is not None


def test_a_request_without_id_gets_a_number_and_random_bits() -> None:
    record = step(Record("pi1"), Requested(Request("1"))).record
    assert record.id == "1-0123456789abcdef"


def test_entering_state_1_publishes_the_status_and_then_the_envelope() -> None:
    decision = step(Record("pi1"), Requested(Request("1", "c1")))
    assert decision.effects == (PublishStatus(decision.record), PublishEnvelope(decision.record))
    assert implied_effects(decision.record) == decision.effects


def test_a_repeated_request_makes_one_command() -> None:
    for state in State:
        before = record_in(state)
        again = step(before, Requested(Request("print(6*7)", "c1", timeout=99.0)))
        assert again.record is before
        assert again.refused is None
        assert again.effects == (PublishStatus(before),)


@pytest.mark.parametrize(
    "other", [Request("2", "c1"), Request("print(6*7)", "c1", stdin="x"),
              Request("print(6*7)", "c1", args=("x",)), Request("print(6*7)", "c1", name="a.py")]
)  # fmt: skip
def test_a_known_id_with_another_text_is_reused(other: Request) -> None:
    for state in State:
        refused = step(record_in(state), Requested(other)).refused
        assert refused is not None
        assert refused.code is Code.ID_REUSED


def test_what_a_repeat_must_equal() -> None:
    plain, named = Request("p", stdin="i", args=("a",)), Request("p", name="a.py")
    # As databases of before have it.
    assert digest_of(plain) == hashlib.sha256(b'["p","i",["a"]]').hexdigest()
    others = [replace(named, name=name) for name in (None, "b.py")]
    assert len({digest_of(one) for one in (named, *others)}) == 3
    same = replace(named, timeout=1.0, grace=2.0, expires=3.0, expires_at=4.0, meta="[]", id="x")
    assert digest_of(same) == digest_of(named)
    assert digest_of(replace(named, name=DEFAULT_NAME)) == digest_of(replace(named, name=None))


def test_a_repeat_that_gives_no_name_is_no_repeat_of_one_that_did() -> None:
    record = record_in(State.REQUESTED, name="a.py")
    assert step(record, Requested(Request("print(6*7)", "c1", name="a.py"))).refused is None
    refused = step(record, Requested(Request("print(6*7)", "c1"))).refused
    assert refused is not None
    assert refused.code is Code.ID_REUSED
    assert "name" in refused.message


def test_the_grant_moves_to_a_later_boot_only() -> None:
    record = record_in(State.COLLECTED)
    moved = step(record, Collected("c1", "j1", 4), at(60.0)).record
    assert moved.current is not None
    assert moved.current.boot == 4
    assert moved.deadline_ticks == record.deadline_ticks
    for other in (Collected("c1", "j2", 9), Collected()):
        refused = step(record, other).refused
        assert refused is not None
        assert refused.code is Code.NOT_CURRENT
        assert "two devices answer for pi1" in refused.message
    for boot in (2, 3):
        copy = step(record, Collected("c1", "j1", boot))
        assert (copy.record, copy.refused) == (record, None)


def test_a_result_from_elsewhere_is_refused_and_settled() -> None:
    record = record_in(State.COLLECTED)
    decision = step(record, Returned(REJECTED, "c1", "j2", 1))
    assert decision.refused is not None
    assert decision.refused.code is Code.NOT_CURRENT
    assert decision.record.state is State.COLLECTED
    assert ("c1", "j2") in decision.record.settled
    assert decision.record.deadline_ticks == record.deadline_ticks
    again = step(decision.record, Returned(REJECTED, "c1", "j2", 1))
    assert again.refused is None
    assert again.record is decision.record


def test_a_person_answers_only_what_a_person_collected() -> None:
    assert step(record_in(State.COLLECTED), Returned(OK)).refused is not None
    by_hand = step(record_in(State.REQUESTED), Collected()).record
    answered = step(by_hand, Returned(OK)).record
    assert answered.state is State.RETURNED
    late = step(answered, Returned(OK, "c1", "j9", 1))
    assert late.refused is not None
    assert ("c1", "j9") in late.record.settled


def test_a_result_before_anybody_collected_is_refused_and_settled() -> None:
    decision = step(record_in(State.REQUESTED), Returned(REJECTED, "c1", "j1", 1))
    assert decision.refused is not None
    assert decision.record.state is State.REQUESTED
    assert ("c1", "j1") in decision.record.settled
    granted = step(decision.record, Collected("c1", "j1", 2)).record
    assert granted.settled == (), "the device would forget a result that is still to come"
    assert step(granted, Returned(OK, "c1", "j1", 2)).record.state is State.RETURNED


def test_the_deadline_counts_from_each_state() -> None:
    waiting = record_in(State.REQUESTED, expires=7.0)
    assert waiting.deadline_ticks == NOW.ticks + 7.0
    assert record_in(State.REQUESTED, expires=0.0).deadline_ticks is None
    assert record_in(State.COLLECTED, timeout=3.0, grace=4.0).deadline_ticks == NOW.ticks + 7.0
    assert record_in(State.RETURNED).deadline_ticks == NOW.ticks + 3_600.0
    forever = Rules(analysis_within=0.0)
    done = step(record_in(State.COLLECTED), Returned(OK, "c1", "j1", 3), rules=forever)
    assert done.record.deadline_ticks is None


def test_a_deadline_that_has_not_come_changes_nothing() -> None:
    record = record_in(State.REQUESTED)
    assert step(record, DeadlinePassed("c1"), at(51.0)).record is record
    assert step(record, DeadlinePassed("other"), LATE).record is record


def test_a_set_deadline_is_always_accepted() -> None:
    for state in (State.REQUESTED, State.COLLECTED, State.RETURNED):
        record = record_in(state)
        assert record.deadline_ticks is not None
        assert (
            step(record, DeadlinePassed("c1"), at(record.deadline_ticks)).record.state is not state
        )


def test_expired_did_not_run_and_lost_may_have() -> None:
    expired = step(record_in(State.REQUESTED), DeadlinePassed("c1"), LATE).record
    lost = step(record_in(State.COLLECTED), DeadlinePassed("c1"), LATE).record
    assert report(expired).ran is Ran.NO
    assert report(lost).ran is Ran.MAYBE
    assert lost.state is State.RETURNED


def report(record: Record) -> RunReport:
    assert record.current is not None
    assert record.current.report is not None
    return record.current.report


def test_a_cancel_lowers_the_deadline_and_the_answer_ends_it() -> None:
    record = record_in(State.COLLECTED, timeout=1_000.0, grace=5.0)
    cancelling = step(record, CancelAsked("c1"), at(60.0)).record
    assert cancelling.cancelling
    assert cancelling.deadline_ticks == 65.0
    copy = step(cancelling, CancelAsked("c1"), at(64.0))
    assert (copy.record, copy.refused) == (cancelling, None)
    stopped = RunReport(Outcome.CANCELLED, Ran.YES)
    ended = step(cancelling, Returned(stopped, "c1", "j1", 3)).record
    assert ended.state is State.RETURNED
    assert not ended.cancelling
    assert step(ended, CancelAsked("c1")).refused is None


def lost() -> Record:
    return step(record_in(State.COLLECTED), DeadlinePassed("c1"), LATE).record


def test_a_late_result_of_the_grant_corrects_a_lost_command() -> None:
    for said in (OK, REJECTED, RunReport(Outcome.INTERRUPTED, Ran.MAYBE)):
        decision = step(lost(), Returned(said, "c1", "j1", 3))
        assert decision.refused is None
        assert decision.record.state is State.RETURNED
        assert report(decision.record) == said
        assert ("c1", "j1") in decision.record.settled
        assert decision.entry is not None
        assert decision.entry.late


def test_another_journal_corrects_to_yes_but_never_to_no() -> None:
    yes = step(lost(), Returned(OK, "c1", "j2", 1))
    assert report(yes.record).ran is Ran.YES
    no = step(lost(), Returned(REJECTED, "c1", "j2", 1))
    assert report(no.record).ran is Ran.MAYBE
    assert no.refused is not None
    assert ("c1", "j2") in no.record.settled


def test_a_device_corrects_to_yes_what_it_has_said_of_a_database_that_is_no_more() -> None:
    maybe = RunReport(Outcome.REJECTED, Ran.MAYBE)  # a no, doubted after a restore
    before = step(record_in(State.COLLECTED), Returned(maybe, "c1", "j1", 3)).record
    after = step(before, Returned(OK, "c1", "j1", 3))
    assert report(after.record) == OK
    assert step(after.record, Returned(OK, "c1", "j1", 3)).entry is None  # this one is a copy


def test_a_device_that_did_run_it_corrects_an_interrupted_one_to_yes() -> None:
    maybe = RunReport(Outcome.INTERRUPTED, Ran.MAYBE)
    record = step(record_in(State.COLLECTED), Returned(maybe, "c1", "j1", 3)).record
    assert report(step(record, Returned(OK, "c1", "j2", 1)).record) == OK
    refused = step(record, Returned(REJECTED, "c1", "j2", 1))
    assert report(refused.record) == maybe


def test_a_rejection_of_an_expired_command_agrees() -> None:
    expired = step(record_in(State.REQUESTED), DeadlinePassed("c1"), LATE).record
    decision = step(expired, Returned(REJECTED, "c1", "j1", 1))
    assert decision.refused is None
    assert report(decision.record).outcome is Outcome.EXPIRED
    assert ("c1", "j1") in decision.record.settled


def test_a_reset_in_state_2_is_corrected_by_the_device() -> None:
    reset = step(record_in(State.COLLECTED), ResetAsked()).record
    assert report(reset).outcome is Outcome.LOST
    stopped = RunReport(Outcome.CANCELLED, Ran.YES, response="half")
    after = step(reset, Returned(stopped, "c1", "j1", 3)).record
    assert after.state is State.REST
    assert report(after) == stopped


def test_events_of_an_earlier_command_are_stored_with_it() -> None:
    first = lost().current
    assert first is not None
    record = step(lost(), ResetAsked()).record
    record = step(record, Requested(Request("2", "c2"))).record
    late = step(record, Returned(OK, "c1", "j1", 3), known=first)
    assert late.record.state is State.REQUESTED
    assert late.record.seq == record.seq + 1
    assert late.record.current is record.current
    assert late.command is not None
    assert late.command.report == OK
    assert late.command.late
    collected = step(record, Collected("c1", "j7", 1), known=first)
    assert collected.command is not None
    again = step(collected.record, Collected("c1", "j7", 1), known=collected.command)
    assert again.entry is None
    analysed = step(record, Analysed("good", "c1"), known=first)
    assert analysed.command is not None
    assert analysed.command.analysis == "good"
    assert any(isinstance(effect, PublishResult) for effect in analysed.effects)
    cancelled = step(record, CancelAsked("c1"), known=first)
    assert cancelled.record is record
    assert cancelled.refused is None
    assert isinstance(cancelled.effects[1], PublishResult)


@pytest.mark.parametrize(
    ("said", "boot", "accepted"),
    [
        (REJECTED, 2, False),
        (REJECTED, 3, True),
        (OK, 2, True),
    ],
    ids=["a no from before the grant", "the grant's own no", "a yes"],
)
def test_a_no_from_an_earlier_boot_than_the_grants_is_outdated(
    said: RunReport, boot: int, accepted: bool
) -> None:
    granted = record_in(State.COLLECTED)
    decision = step(granted, Returned(said, "c1", "j1", boot), known=granted.current)
    assert decision.refused is None
    assert (decision.record is granted) is not accepted
    assert decision.record.state is (State.RETURNED if accepted else State.COLLECTED)
    assert isinstance(decision.effects[0], PublishStatus)


def test_an_orphan_that_says_no_is_doubted() -> None:
    """Another device may have been granted it: an older database does not know whom."""
    said = RunReport(Outcome.REJECTED, Ran.NO, "not granted to this device")
    decision = step(Record("pi1"), Returned(said, "old", "j2", 1))
    assert decision.command is not None
    assert decision.command.report is not None
    assert (decision.command.report.outcome, decision.command.report.ran) == (
        Outcome.REJECTED, Ran.MAYBE,
    )  # fmt: skip
    corrected = step(decision.record, Returned(OK, "old", "j1", 1), known=decision.command)
    assert corrected.command is not None
    assert corrected.command.report is not None
    assert corrected.command.report.ran is Ran.YES


def test_an_orphan_is_kept_settled_and_known() -> None:
    decision = step(Record("pi1"), Returned(OK, "old", "j1", 1))
    assert decision.refused is None
    assert decision.command is not None
    assert decision.command.orphan
    assert decision.record.settled == (("old", "j1"),)
    known = decision.command
    repeat = step(decision.record, Requested(Request("any", "old")), known=known)
    assert repeat.record is decision.record
    assert isinstance(repeat.effects[1], PublishResult)
    for event in (Collected("old2", "j1", 1), Analysed("x", "old2"), CancelAsked("old2")):
        refused = step(decision.record, event).refused
        assert refused is not None
        assert refused.code is Code.NOT_CURRENT


def test_settled_keeps_the_last_four_and_puts_a_forgotten_one_back() -> None:
    record, commands = Record("pi1"), {}
    for number in range(6):
        decision = step(record, Returned(OK, f"o{number}", "j1", 1))
        record = decision.record
        commands[f"o{number}"] = decision.command
    assert [pair[0] for pair in record.settled] == ["o2", "o3", "o4", "o5"]
    back = step(record, Returned(OK, "o0", "j1", 1), known=commands["o0"])
    assert back.record.settled[-1] == ("o0", "j1")
    assert back.refused is None


def test_analysis_by_name_is_due_in_state_3_only() -> None:
    record = record_in(State.COLLECTED, analysis="outcome")
    decision = step(record, Returned(OK, "c1", "j1", 3))
    assert decision.record.current is not None
    assert decision.effects[1] == Analyse(decision.record.current)
    rested = step(decision.record, Analysed("ok: exit 0", "c1")).record
    assert implied_effects(rested) == (PublishStatus(rested),)


def test_a_late_analysis_is_stored_once() -> None:
    unread = step(record_in(State.RETURNED), DeadlinePassed("c1"), LATE).record
    late = step(unread, Analysed("right", "c1"))
    assert late.record.state is State.REST
    assert late.record.current is not None
    assert late.record.current.analysis == "right"
    assert step(late.record, Analysed("right", "c1")).refused is None
    assert step(late.record, Analysed("wrong", "c1")).refused is not None
    assert step(unread, Analysed("right")).refused is not None


def test_a_regrade_of_the_boards_newest_command_stands_beside_its_analysis() -> None:
    by = AnalysedBy("check1", "1")
    rested = step(record_in(State.RETURNED), Analysed("right", "c1")).record
    decision = step(rested, Analysed("{}", "c1", by, regrade=True))
    assert decision.refused is None
    assert decision.record.state is State.REST
    assert decision.record.current is not None
    assert decision.record.current.analysis == "right"
    assert decision.record.current.regraded == (by.key,)
    assert decision.regrade is not None


def test_a_named_refusal_publishes_the_status_again() -> None:
    record = record_in(State.COLLECTED)
    decision = step(record, Requested(Request("2", "c9")))
    assert [type(effect) for effect in decision.effects] == [PublishError, PublishStatus]


def test_the_machine_never_moves_a_record_in_place() -> None:
    record = record_in(State.COLLECTED)
    copy = replace(record)
    step(record, Returned(OK, "c1", "j1", 3))
    assert record == copy
