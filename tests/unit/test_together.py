"""A batch whose members begin together: each mixture of members, by a plain rule beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import pytest

from hwsync.protocol import limits, together
from hwsync.protocol.batch import Batch
from hwsync.protocol.core import begin_together, decide
from hwsync.protocol.draft import Draft
from hwsync.protocol.effects import BatchDecision, Decision
from hwsync.protocol.errors import Code
from hwsync.protocol.events import Collected, HeartbeatReceived
from hwsync.protocol.record import (
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
    replace,
)
from hwsync.protocol.rules import Rules

S = 1_000_000  # microseconds
NOON = 1_764_500_000 * S  # of lab time
KEY, ID = "@lab1 b1", "b1"
USERS = ("pi1", "pi2", "pi3")
WAIT_UNTIL = 55.0  # in ticks
START = Start(0.1, None, 5.0, 1.0, 1)


def moment(ticks: float = 51.0) -> Moment:
    return Moment(1e9 + ticks, ticks, "0" * 16, NOON + round(ticks * S), "life-1")


@dataclass
class Known:
    """A database with one batch."""

    records: dict[str, Record] = field(default_factory=dict)
    devices: dict[str, HeartbeatReceived] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    epoch: int = 0

    def record(self, user: str) -> Record | None:
        return self.records.get(user)

    def command(self, user: str, id: str) -> Command | None:
        record = self.records.get(user)
        return record.current if record and record.id == id else None

    def count(self) -> int:
        return len(self.records)

    def device(self, user: str) -> HeartbeatReceived | None:
        return self.devices.get(user)

    def batch(self, key: str) -> Batch | None:
        return self.batches.get(key)

    def newest(self, group: str) -> Batch | None:
        return None

    def open_batches(self) -> list[Batch]:
        return [one for one in self.batches.values() if one.ended is None]


READY = ("ready", "ready, online", "ready, another device", "ready, an old boot has gone")
BEHIND = ("requested", "cancelling", "gone", "started anew")
ENDED = ("ended", "refused")
KINDS = (*READY, *BEHIND, *ENDED, "absent")


def put(known: Known, user: str, kind: str, start: Start) -> None:
    """A member that is so far."""
    request = Request("print(1)", ID, timeout=10.0, grace=5.0, start=start)
    command = Command(user, ID, request, batch=KEY, journal="j1", boot=2)
    record = Record(user, State.COLLECTED, 0, 7, current=command, deadline_ticks=100.0)
    if kind == "requested":
        command = replace(command, journal=None, boot=None)
        record = replace(record, state=State.REQUESTED, current=command)
    elif kind == "cancelling":
        record = replace(record, cancelling=True)
    elif kind == "ended":
        ended = replace(command, report=RunReport(Outcome.REJECTED, Ran.NO))
        record = replace(record, state=State.RETURNED, current=ended)
    elif kind in ("absent", "refused"):
        record = Record(user)
    beats = {
        "ready, online": (True, "j1", 2),
        "ready, another device": (False, "j9", 9),
        "ready, an old boot has gone": (False, "j1", 1),
        "gone": (False, "j1", 2),
        "started anew": (True, "j1", 3),
    }
    if kind in beats:
        known.devices[user] = HeartbeatReceived(*beats[kind])
    known.records[user] = record


def lab(kinds: Sequence[str], start: Start = START) -> Known:
    known = Known()
    for user, kind in zip(USERS, kinds, strict=False):
        put(known, user, kind, start)
    refused = {
        user: Code.BUSY for user, kind in zip(USERS, kinds, strict=False) if kind == "refused"
    }
    begun = sum(kind in (*READY, *BEHIND) for kind in kinds)
    known.batches[KEY] = Batch(
        *(KEY, "lab1", ID, USERS[: len(kinds)]),
        refused=refused,
        start=start,
        wait_until=WAIT_UNTIL,
        begun=begun,
        bad=list(kinds).count("ended"),
    )
    return known


def look(known: Known, at: Moment) -> tuple[Draft, frozenset[str]]:
    begun = begin_together([KEY], at, known, Rules())
    draft = Draft(known)
    for decision in begun.decisions:
        draft.take(decision)
    return draft, begun.users


def mixtures() -> Iterator[tuple[tuple[str, ...], bool, int]]:
    for kinds in product(KINDS, repeat=3):
        for over, need in ((False, 1), (True, 1), (False, 2), (True, 2), (True, 3)):
            yield kinds, over, need


def test_each_mixture_of_members_is_decided_as_the_rule_says() -> None:
    for kinds, over, need in mixtures():
        start = replace(START, need=need)
        known = lab(kinds, start)
        at = moment(WAIT_UNTIL if over else WAIT_UNTIL - 0.001)
        draft, started = look(known, at)
        batch = draft.batch(KEY)
        assert batch is not None
        waits = not over and any(kind in (*BEHIND, "absent") for kind in kinds)
        ready = {user for user, kind in zip(USERS, kinds, strict=True) if kind in READY}
        if waits:
            assert (started, draft.decisions) == (frozenset(), []), (kinds, over, need)
            continue
        expected = ready if len(ready) >= need else set()
        assert started == expected, (kinds, over, need)
        assert batch.wait_until is None
        instants = set()
        for user, kind in zip(USERS, kinds, strict=True):
            record, before = draft.record_of(user), known.records[user]
            if user in started:
                assert (record.state, record.verb) == (State.COLLECTED, Verb.START)
                assert record.current is not None
                instants.add((record.current.start_at_us, record.current.start_life))
            elif kind in (*READY, *BEHIND):
                assert record.current is not None
                report = record.current.report
                assert report is not None
                outcome = Outcome.EXPIRED if kind == "requested" else Outcome.CANCELLED
                assert (report.outcome, report.ran) == (outcome, Ran.NO)
                assert report.reason.startswith("not begun: ")
                assert (record.state, record.verb) == (State.REST, Verb.LEFT_OUT)
            else:
                assert record == before
            assert (batch.refused.get(user) is Code.WRONG_STATE) is (kind == "absent")
        assert instants == ({(batch.start_at_us, "life-1")} if started else set())
        assert (batch.start_at_us is None) is not bool(started)
        assert (batch.ended is None) is bool(started)
        # Once, and never again.
        assert begin_together([KEY], moment(1e6), draft, Rules()).decisions == []


def test_the_instant_is_the_lead_away_and_as_long_as_it_takes_to_say_it() -> None:
    at = moment()
    draft, _ = look(lab(("ready",) * 3), at)
    batch = draft.batch(KEY)
    assert batch is not None
    assert batch.start_at_us is not None
    ahead = batch.start_at_us - at.lab_us
    assert 1_003_000 < ahead < 1_003_000 + 10_000
    large = Request("x" * limits.MAX_PROGRAM, ID, start=START)
    starting = [Command(f"pi{n}", ID, large, program_sha256="x") for n in range(40)]
    assert together.lead_us(START, starting) > (1.0 + 0.04 + 10.0) * S
    assert together.lead_us(replace(START, lead=60.0), []) == 60 * S


def test_a_later_boot_of_the_journal_gets_the_same_instant() -> None:
    draft, _ = look(lab(("ready",)), moment())
    before = draft.record_of("pi1").current
    for decision in decide("pi1", Collected(ID, "j1", 3), moment(52.0), draft, Rules()):
        draft.take(decision)
    after = draft.record_of("pi1").current
    assert before is not None
    assert before.start_at_us is not None
    assert after == replace(before, boot=3)


def deadline(draft: Draft, user: str = "pi1") -> float:
    ticks = draft.record_of(user).deadline_ticks
    assert ticks is not None
    return ticks


def test_state_2_has_the_time_till_the_instant_before_it_is_fixed_and_after() -> None:
    known = lab(("requested", "requested"), replace(START, lead=3.0))
    draft = Draft(known)
    for decision in decide("pi1", Collected(ID, "j1", 2), moment(51.0), draft, Rules()):
        draft.take(decision)
    assert deadline(draft) == WAIT_UNTIL + 3.0 + 15.0
    for decision in decide("pi2", Collected(ID, "j1", 2), moment(60.0), draft, Rules()):
        draft.take(decision)
    assert deadline(draft, "pi2") == 60.0 + 15.0  # the grant was later
    draft, _ = look(lab(("ready",), replace(START, lead=59.0)), moment(51.0))
    assert deadline(draft) == pytest.approx(51.0 + 59.0 + 15.0, abs=0.01)


def test_a_member_that_may_have_run_before_a_restore_may_have_run() -> None:
    known = lab(("requested",))
    record = known.records["pi1"]
    assert record.current is not None
    known.records["pi1"] = replace(record, current=replace(record.current, doubtful=True))
    draft, _ = look(known, moment(WAIT_UNTIL))
    after = draft.record_of("pi1").current
    assert after is not None
    assert after.report is not None
    assert (after.report.outcome, after.report.ran) == (Outcome.EXPIRED, Ran.MAYBE)


def test_who_is_left_out_makes_room_for_his_own_queue_in_the_same_transaction() -> None:
    known = lab(("ready", "requested"))
    queued = Command("pi2", "q1", Request("print(2)", "q1", queue=True))
    known.records["pi2"] = replace(known.records["pi2"], queue=("q1",))
    found = known.command
    known.command = lambda user, id: queued if id == "q1" else found(user, id)  # type: ignore[method-assign]
    draft, started = look(known, moment(WAIT_UNTIL))
    assert started == {"pi1"}
    assert (draft.record_of("pi2").state, draft.record_of("pi2").id) == (State.REQUESTED, "q1")


def test_the_coordinators_own_decisions_keep_no_message() -> None:
    begun = begin_together([KEY], moment(WAIT_UNTIL), lab(("ready", "requested")), Rules())
    for one in begun.decisions:
        assert isinstance(one, BatchDecision) or one.turn
    assert sum(isinstance(one, Decision) for one in begun.decisions) == 2
