"""Whatever comes: the record moves only along the table, and copies change nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hwsync.protocol.effects import PublishStatus
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
    Returned,
)
from hwsync.protocol.machine import decide
from hwsync.protocol.moves import TABLE
from hwsync.protocol.named import is_outdated
from hwsync.protocol.record import (
    RAN_BY_OUTCOME,
    Command,
    Moment,
    Outcome,
    Ran,
    Record,
    Request,
    RunReport,
    State,
)
from hwsync.protocol.rules import Rules

ids = st.sampled_from(["a", "b", "c"])
some_id = st.one_of(st.none(), ids)
journals = st.sampled_from(["j1", "j2"])
boots = st.integers(1, 3)
accounts = st.sampled_from(
    [RunReport(outcome, ran) for outcome, ran in RAN_BY_OUTCOME.items()
     if outcome not in (Outcome.EXPIRED, Outcome.LOST)]
    + [RunReport(Outcome.CANCELLED, ran) for ran in Ran]
)  # fmt: skip
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        lambda id, text, queue: Requested(Request(text, id, queue=queue and id is not None)),
        some_id,
        st.sampled_from("xy"),
        st.booleans(),
    ),
    st.just(Collected()),
    st.builds(Collected, ids, journals, boots),
    st.builds(Returned, accounts),
    st.builds(Returned, accounts, ids, journals, boots),
    st.builds(Analysed, st.sampled_from("uv"), some_id),
    st.builds(CancelAsked, some_id),
    st.builds(ResetAsked, some_id),
    st.builds(Queried, some_id),
    st.builds(DeadlinePassed, ids),
)
steps = st.lists(st.tuples(events, st.floats(0.0, 500.0)), max_size=40)


@settings(max_examples=400)
@given(steps)
def test_every_sequence_keeps_the_promises(steps: list[tuple[Event, float]]) -> None:
    record, known, ticks = Record("pi1"), dict[str, Command](), 0.0
    waiting: list[str] = []
    for number, (event, pause) in enumerate(steps):
        ticks += pause
        moment = Moment(1e9 + ticks, ticks, f"{number:016x}")
        found = known.get(event.id or "")
        decision = decide(record, event, moment, found, Rules())
        after = decision.record
        if after.state is not record.state:
            assert TABLE[event.verb, record.state].to is after.state
        assert (after is record) == (decision.entry is None)
        assert after.seq == record.seq + (after is not record)
        if event.id is not None and not isinstance(event, DeadlinePassed):
            assert any(isinstance(effect, PublishStatus) for effect in decision.effects)
        if isinstance(event, Returned) and event.id is not None:
            if found is not None and is_outdated(event, found):
                # Its device has opened the command again since: nobody waits for an answer to it.
                assert after is record
            else:
                assert (event.id, event.journal) in after.settled
        if (after.state is State.REST) == (after.deadline_ticks is not None):
            raise AssertionError("a deadline stands exactly outside of rest")
        for command in (after.current, decision.command):
            if command is None:
                continue
            before = known.get(command.id)
            if before and before.report and command.report:
                _told_truly(before, command)
            known[command.id] = command
        copy = decide(after, event, moment, known.get(event.id or ""), Rules())
        if decision.refused is None and event.id is not None:
            assert copy.record is after, "a copy of an accepted event changed something"
            assert copy.refused is None
        # The plain model of the queue: in order of asking, less what was cancelled.
        waiting = [id for id in waiting if decision.command is None or id != decision.command.id]
        if decision.command is not None and decision.command.id in after.queue:
            waiting.append(decision.command.id)
        assert list(after.queue) == waiting
        assert all(known[id].report is None for id in waiting)
        if after.state is State.REST and waiting:
            taken = decide(after, NextInQueue(known[waiting[0]]), moment, None, Rules())
            after = taken.record
            assert (after.state, after.id) == (State.REQUESTED, waiting.pop(0))
            assert list(after.queue) == waiting
        record = after


def _told_truly(before: Command, after: Command) -> None:
    """A correction: never away from yes, and to no only by the journal of the grant."""
    assert before.report is not None
    assert after.report is not None
    if before.report.ran is Ran.YES:
        assert after.report.ran is Ran.YES
    if before.report.ran is Ran.MAYBE and after.report.ran is Ran.NO:
        assert after.answered_by == before.journal
