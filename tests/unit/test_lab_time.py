"""Lab time: what it is now, when a life of it ends, and which life a restart goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsync import raw_clock
from hwsync.coordinator.lab_time import APART_US, SUSPENDED_US, LabTime
from hwsync.protocol.errors import StoreError
from hwsync.store.api import LabLife
from tests.support.coordinator import Clock, Lab


class Lives:
    """A database that has room for one life; ``full``: it takes none."""

    def __init__(self) -> None:
        self.saved: list[LabLife] = []
        self.full = False

    def life(self) -> LabLife | None:
        return self.saved[-1] if self.saved else None

    def save_life(self, life: LabLife) -> None:
        if self.full:
            raise StoreError("disk full")
        self.saved.append(life)


@pytest.fixture
def lives() -> Lives:
    return Lives()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def begin(lives: Lives, clock: Clock) -> LabTime:
    """As at a coordinator's start, and its first round."""
    lab_time = LabTime(lives, clock)
    lab_time.look()
    return lab_time


def test_it_begins_as_the_wall_clock_and_goes_on_as_the_raw_one(lives: Lives, clock: Clock) -> None:
    lab_time = begin(lives, clock)
    began, life = lab_time.us(), lab_time.life
    assert began == round(clock.wall() * 1e6)
    assert life
    for jump in (0.4, -0.4):  # a little, as NTP sets it
        clock.jump = jump
        clock.now += 10.000001
        before = lab_time.us()
        lab_time.look()
        assert (lab_time.us(), lab_time.life) == (before, life)
    assert lab_time.us() - began == 20_000_002
    assert lab_time.ahead_us == 400_000
    assert len(lives.saved) == 1


@pytest.mark.parametrize("jump", [0.6, -0.6, 3e8, -3e5])
def test_a_wall_clock_that_was_set_begins_a_new_life_unless_a_start_is_pending(
    lives: Lives, clock: Clock, jump: float
) -> None:
    lab_time = begin(lives, clock)
    life = lab_time.life
    lab_time.pending = lambda: True
    clock.jump = jump
    before = lab_time.us()
    lab_time.look()
    assert (lab_time.us(), lab_time.life, len(lives.saved)) == (before, life, 1)
    assert abs(lab_time.ahead_us) > APART_US
    lab_time.pending = lambda: False
    lab_time.look()
    assert lab_time.life != life
    assert lab_time.us() == round(clock.wall() * 1e6)
    assert [one.name for one in lives.saved] == [life, lab_time.life]


def test_a_suspended_machine_begins_a_new_life_also_while_a_start_is_pending(
    lives: Lives, clock: Clock
) -> None:
    lab_time = begin(lives, clock)
    life = lab_time.life
    lab_time.pending = lambda: True
    clock.suspended = 100_000
    lab_time.look()
    assert lab_time.life != life
    second = lab_time.life
    lab_time.look()
    assert lab_time.life == second


def test_a_restart_goes_on_with_the_life_of_this_boot(lives: Lives, clock: Clock) -> None:
    before = begin(lives, clock)
    clock.now += 60.0
    clock.jump = 0.3
    after = begin(lives, clock)
    assert (after.life, after.us()) == (before.life, before.us())
    assert len(lives.saved) == 1


def test_another_boot_and_one_that_cannot_be_told_from_another_begin_a_new_life(
    lives: Lives, clock: Clock
) -> None:
    names = [begin(lives, clock).life]
    for boot in ("another boot", "", ""):
        clock.named = boot
        names.append(begin(lives, clock).life)
    clock.suspended = 100_000  # while it was stopped
    names.append(begin(lives, clock).life)
    clock.now -= 50.0  # no boot counts backwards: a machine that was set back to a snapshot
    names.append(begin(lives, clock).life)
    assert len(set(names)) == len(names) == len(lives.saved)


def test_a_life_that_cannot_be_saved_counts_and_is_saved_later(lives: Lives, clock: Clock) -> None:
    lives.full = True
    lab_time = begin(lives, clock)
    life = lab_time.life
    lab_time.look()
    assert lives.saved == []
    lives.full = False
    lab_time.look()
    assert [one.name for one in lives.saved] == [life] == [lab_time.life]


def test_the_loop_keeps_it_in_the_database_and_decides_by_it(tmp_path: Path) -> None:
    path = tmp_path / "hwsync.db"
    with Lab(path) as lab:
        clock, lab_time = lab.clock, lab.coordinator.lab_time
        life = lab_time.life
        moment = lab.coordinator._moment(clock.monotonic())
        assert (moment.lab_us, moment.life) == (lab_time.us(), life)
    with Lab(path) as lab:
        lab_time = lab.coordinator.lab_time
        assert lab_time.life == life
        lab.clock.jump = 10.0
        lab.step()
        stored = lab.store.life()
        assert stored is not None
        assert stored.name == lab_time.life != life


def test_the_machines_own_clocks_go_on_and_were_not_suspended_meanwhile() -> None:
    before, asleep = raw_clock.raw_us(), raw_clock.asleep_us()
    assert raw_clock.raw_us() >= before
    assert abs(raw_clock.asleep_us() - asleep) < SUSPENDED_US
    assert raw_clock.boot() == raw_clock.boot()
    assert isinstance(before, int)
