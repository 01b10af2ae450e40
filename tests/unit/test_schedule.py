"""The clock of deadlines, the agenda and the pauses between repetitions, each by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsync.coordinator.schedule import SPARE, Agenda, ConnectedClock
from hwsync.protocol import limits
from hwsync.protocol.device.values import pause


def test_the_clock_stands_still_before_the_first_connection() -> None:
    clock = ConnectedClock(hold_deadlines_s=10.0)
    assert clock.ticks(5.0) == clock.ticks(500.0) == 0.0


def test_the_clock_counts_connected_seconds_only() -> None:
    clock = ConnectedClock(hold_deadlines_s=10.0)
    clock.connect(100.0)
    assert clock.ticks(103.0) == 3.0
    clock.disconnect(104.0)
    assert clock.ticks(900.0) == 4.0
    clock.connect(900.0)
    assert clock.ticks(901.5) == 5.5


def test_a_second_disconnect_takes_nothing_away() -> None:
    clock = ConnectedClock(hold_deadlines_s=0.0)
    clock.connect(100.0)
    clock.disconnect(104.0)
    clock.disconnect(200.0)
    assert clock.ticks(300.0) == 4.0


def test_a_second_connect_loses_no_time_and_settles_anew() -> None:
    clock = ConnectedClock(hold_deadlines_s=10.0)
    clock.connect(100.0)
    clock.connect(120.0)
    assert clock.ticks(121.0) == 21.0
    assert clock.wait(121.0, 0.0) == 9.0


def test_nothing_may_fire_without_a_connection() -> None:
    clock = ConnectedClock(hold_deadlines_s=0.0)
    assert clock.wait(100.0, 0.0) is None
    clock.connect(100.0)
    clock.disconnect(200.0)
    assert clock.wait(200.0, 1.0) is None


@pytest.mark.parametrize(
    ("now", "due_at", "wait"),
    [
        (101.0, 0.5, 9.0),  # past already, held back until the clock has settled
        (101.0, 5.0, 9.0),  # would be due within the settling time
        (101.0, 25.0, 24.0),  # due later than that
        (110.0, 10.0, 0.0),  # at once, to the tick
        (150.0, 20.0, 0.0),  # overdue is never negative
    ],
)
def test_a_deadline_waits_for_its_moment_and_for_the_settling_time(
    now: float, due_at: float, wait: float
) -> None:
    clock = ConnectedClock(hold_deadlines_s=10.0)
    clock.connect(100.0)
    assert clock.wait(now, due_at) == wait


def test_the_agenda_gives_those_whose_moment_has_come_the_earliest_first() -> None:
    agenda = Agenda()
    for moment, user in [(3.0, "c"), (1.0, "a"), (2.0, "b"), (9.0, "z")]:
        agenda.set(user, moment)
    assert agenda.nearest() == 1.0
    assert agenda.passed(0.9) == []
    assert agenda.passed(3.0) == ["a", "b", "c"]


def test_what_has_passed_stays_until_it_is_set_anew() -> None:
    agenda = Agenda()
    agenda.set("a", 1.0)
    assert agenda.passed(1.0) == agenda.passed(1.0) == ["a"]
    agenda.set("a", 2.0)
    assert agenda.passed(1.0) == []
    agenda.set("a", None)
    assert agenda.passed(9.0) == []
    assert agenda.nearest() is None


def test_an_empty_agenda_has_nothing_near() -> None:
    agenda = Agenda()
    assert agenda.nearest() is None
    assert agenda.passed(1e9) == []


def test_an_agenda_that_is_set_again_and_again_does_not_grow() -> None:
    agenda = Agenda()
    for number in range(10_000):
        agenda.set(f"pi{number % 10}", 1e6 - number)
    assert len(agenda._heap) <= 2 * 10 + SPARE
    assert agenda.nearest() == 1e6 - 9_999


@pytest.mark.parametrize(
    ("attempt", "full"), list(enumerate([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]))
)
def test_a_pause_doubles_from_a_second_to_half_a_minute(attempt: int, full: float) -> None:
    assert pause(attempt, 0.0) == full
    assert pause(attempt, 0.5) == 0.875 * full


@given(st.integers(0, 10**9), st.floats(0.0, 1.0))
def test_a_pause_is_never_longer_than_its_limit_nor_shortened_by_more_than_a_quarter(
    attempt: int, chance: float
) -> None:
    full = min(limits.REPEAT_FIRST_S * 2.0 ** min(attempt, 64), limits.REPEAT_MAX_S)
    assert 0.75 * full <= pause(attempt, chance) <= full


@given(
    st.lists(st.tuples(st.none() | st.floats(0, 100), st.sampled_from("abc"))), st.floats(0, 100)
)
def test_an_agenda_knows_the_last_moment_of_each_user(
    entries: list[tuple[float | None, str]], moment: float
) -> None:
    agenda = Agenda()
    for at, user in entries:
        agenda.set(user, at)
    last = {user: at for at, user in entries}
    moments = sorted((at, user) for user, at in last.items() if at is not None)
    assert agenda.nearest() == min((at for at, _ in moments), default=None)
    assert agenda.passed(moment) == [user for at, user in moments if at <= moment]
