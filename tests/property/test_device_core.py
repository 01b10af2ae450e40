"""The device's core on a journal of a few lines: a restart changes nothing, and nothing runs twice.

The device may die between any two things that it does. What counts then is what its journal has.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from hwsync.protocol.device import core, values
from hwsync.protocol.device.values import Event, Known, Moment, Offered, Own, State, StatusReceived

IDS = ("a", "b")


@dataclass(frozen=True)
class Entry:
    """One command in the journal."""

    stage: str  # RECEIVED, RUNNING, FINISHED or CLOSED
    order: tuple[int, int]
    closing: tuple[int, int] | None = None
    result: tuple[str, str] = ("", "")
    settled: bool = False

    def known(self, id: str) -> Known:
        stage = values.SETTLED if self.settled else self.stage
        return Known(id, stage, self.closing, was_closed=self.closing is not None)


class Died(Exception):
    """Between two things that it did."""


@dataclass
class Device:
    """What is done as the core wants it; ``lives``: how many things are done until it dies."""

    journal: dict[str, Entry] = field(default_factory=dict)
    boot: int = 1
    epoch: int = 0
    state: State = field(default_factory=State)
    starting: bool = False  # START_RUN was done, and it has not ended
    now: float = 100.0
    lives: int | None = None
    started: list[str] = field(default_factory=list)  # by every life
    done: list[str] = field(default_factory=list)

    def happen(self, event: Event, order: tuple[int, int] = (0, 0)) -> None:
        decision = core.decide(self.state, event, Moment(self.now, 0.0))
        for action in decision.writes:
            self.do(action, order)
        self.state = decision.state
        for action in decision.actions:
            self.do(action, order)

    def do(self, action: values.Action, order: tuple[int, int]) -> None:
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                raise Died
        self.done.append(action.do)
        before = self.journal.get(action.id)
        if action.do == values.NEXT_BOOT:
            self.boot += 1
        elif action.do in (values.BEGIN_EPOCH, values.WRITE_EPOCH):
            self.epoch = action.number
            self.journal = {id: replace(one, settled=False) for id, one in self.journal.items()}
        elif action.do == values.WRITE_RECEIVED:
            assert before is None or before.stage in (values.RECEIVED, values.CLOSED)
            self.journal[action.id] = Entry(values.RECEIVED, order)
        elif action.do == values.WRITE_STARTED:
            assert before is not None
            assert before.stage == values.RECEIVED
            self.journal[action.id] = replace(before, stage=values.RUNNING)
            self.started.append(action.id)
        elif action.do == values.WRITE_END:
            assert before is not None
            stage = values.FINISHED if action.order is None else values.CLOSED
            result = (action.outcome, action.ran)
            self.journal[action.id] = Entry(stage, before.order, action.order, result)
        elif action.do == values.WRITE_SETTLED:
            assert before is not None
            self.journal[action.id] = replace(before, settled=True)
        elif action.do == values.START_RUN:
            self.starting = True

    def restart(self) -> None:
        """A kill, and the next life on the same journal."""
        self.boot += 1
        self.state, self.starting, self.lives = State(), False, None
        for id, one in list(self.journal.items()):
            if one.stage in (values.RECEIVED, values.RUNNING):
                self.happen(values.Restored(id, one.stage, one.order))

    def envelope(self, id: str, seq: int) -> None:
        one = self.journal.get(id)
        self.happen(Offered(id, (0, seq), one.known(id) if one else None), (0, seq))

    def status(self, seq: int, said: Said) -> None:
        settled = [(id, self.journal[id]) for id in said.settled if id in self.journal]
        journal, boot = ("j", self.boot + said.boot) if said.state > 1 else (None, None)
        grant = (said.id, said.state, said.journal or journal, boot)
        self.happen(
            StatusReceived(
                Own("j", self.boot, self.epoch), (said.epoch, seq), grant,
                cancelling=said.cancelling, settled=tuple(one.known(id) for id, one in settled),
            )
        )  # fmt: skip

    def run(self, how: str) -> None:
        """What a runner says, where it has something to say."""
        if how == "started" and self.state.stage in (values.STARTING, values.ENDING):
            if self.journal[self.state.id].stage == values.RECEIVED:
                self.happen(values.Started())
        elif how == "ended" and self.state.runs:
            began = self.journal[self.state.id].stage == values.RUNNING
            self.happen(values.Ended("ok" if began else "cancelled", "", began=began))
            self.starting = False


@dataclass(frozen=True)
class Said:
    """A status, but for its number."""

    id: str
    state: int
    boot: int
    journal: str | None
    cancelling: bool
    settled: tuple[str, ...]
    epoch: int = 0


Step = tuple[str, object]

statuses = st.builds(
    Said,
    id=st.sampled_from((*IDS, "")),
    state=st.sampled_from((0, 1, 2, 2, 2, 3)),
    boot=st.sampled_from((0, 0, 0, -1)),
    journal=st.sampled_from((None, None, None, "another")),
    cancelling=st.sampled_from((False, False, True)),
    settled=st.lists(st.sampled_from(IDS), unique=True, max_size=2).map(tuple),
)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(
            st.just("envelope"), st.tuples(st.sampled_from(IDS), st.sampled_from((0, 0, 0, 3)))
        ),
        st.tuples(st.just("status"), statuses),
        st.tuples(st.just("run"), st.sampled_from(("started", "ended"))),
        st.tuples(st.just("tick"), st.floats(0.0, 20.0)),
    ),
    max_size=25,
)


def take(device: Device, number: int, step: Step) -> None:
    """Each status is newer than those before it; an envelope may be ahead of them."""
    what, about = step
    if what == "envelope":
        assert isinstance(about, tuple)
        id, ahead = about
        device.envelope(id, number + ahead)
    elif what == "status":
        assert isinstance(about, Said)
        device.status(number, about)
    elif what == "run":
        device.run(str(about))
    else:
        assert isinstance(about, float)
        device.now += about
        device.happen(values.Tick())


def hand(device: Device) -> tuple[object, ...]:
    state = device.state
    return state.id, state.stage, state.order, state.newest, state.collect, state.results


@settings(max_examples=200, deadline=None)
@given(steps, steps, st.floats(0.0, 20.0))
def test_a_restart_leads_to_the_same_where_nothing_ran(
    before: list[Step], after: list[Step], later: float
) -> None:
    one = Device()
    for number, step in enumerate(before, 1):
        take(one, number, step)
    if one.state.runs:
        one.run("started")
        one.run("ended")
    other = copy.deepcopy(one)
    other.restart()
    for device in (one, other):
        device.now += later
        device.happen(values.Connected())
        # The status that is kept comes first, on any connection.
        take(device, len(before) + 1, ("status", Said("", 1, 0, None, False, ())))
        for number, step in enumerate(after, len(before) + 2):
            take(device, number, step)
    assert other.journal == one.journal
    assert hand(other) == hand(one)
    assert other.started == one.started
    assert other.boot == one.boot + 1


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(steps, st.integers(0, 6)), max_size=5))
def test_nothing_runs_twice_wherever_it_dies(lives: list[tuple[list[Step], int]]) -> None:
    device, number = Device(), 0
    for life, end in lives:
        device.happen(values.Connected())
        for step in life[:-1]:
            number += 1
            take(device, number, step)
        device.lives = end
        try:
            for step in life[-1:]:
                number += 1
                take(device, number, step)
        except Died:
            pass
        device.lives = None
        was = dict(device.journal)
        device.restart()
        for id, entry in was.items():
            after = device.journal[id]
            if entry.stage == values.RUNNING:
                assert (after.stage, after.result) == (values.FINISHED, ("interrupted", "maybe"))
            else:
                assert after == entry, "a restart changes nothing else"
        assert device.done.count(values.START_RUN) >= len(device.started)
        assert not device.state.runs
    assert len(set(device.started)) == len(device.started), "at most once"
    for id in device.started:
        assert device.journal[id].result[1] != "no"


def test_the_steps_lead_somewhere() -> None:
    """Else both properties would hold of a device that does nothing."""
    device = Device()
    granted = Said("a", 2, 0, None, False, ())
    for number, step in enumerate(
        [("envelope", ("a", 0)), ("status", granted), ("run", "started"), ("run", "ended")], 1
    ):
        take(device, number, step)
    take(device, 9, ("status", replace(granted, state=3, settled=("a",))))
    assert device.started == ["a"]
    assert device.journal["a"] == Entry(values.FINISHED, (0, 1), None, ("ok", "yes"), settled=True)
