"""Whether the coordinator's clock can be right: what it says of it, once, and until when."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from hwsync.coordinator.clocks import ClockWatch, shown
from hwsync.coordinator.vitals import Vitals
from hwsync.notify import Notifier
from hwsync.protocol import idle
from hwsync.protocol.record import Moment, Record
from hwsync.protocol.wire.itself import Condition
from tests.support.coordinator import Lab

NOW, DAY = 1_800_000_000.0, 86_400.0


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The errors so far."""
    texts: list[str] = []

    class Errors(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                texts.append(record.getMessage())

    handler = Errors()
    logging.getLogger("hwsync.coordinator").addHandler(handler)
    yield texts
    logging.getLogger("hwsync.coordinator").removeHandler(handler)


def test_a_clock_behind_the_database_is_said_once_until_it_is_set(said: list[str]) -> None:
    watch = ClockWatch(0.0, 5.0, NOW)
    for second in range(100):
        watch.watch(float(second), 5.0 + second)
    assert said == [
        "this machine's clock is wrong: it says 1970-01-01 00:00:00 UTC, and the database was "
        "changed at 2027-01-15 08:00:00 UTC; set it: timedatectl set-ntp true, or timedatectl "
        "set-time; meanwhile the times in the record are wrong, and expires_at counts by them"
    ]
    assert "it says 1970" in watch.trouble
    watch.watch(NOW + 50.0, 105.0)
    assert (watch.trouble, len(said)) == ("", 1)


@pytest.mark.parametrize("last", [None, NOW - 400 * DAY, NOW, NOW + 0.9 * DAY])
def test_a_first_start_a_long_holiday_and_a_machine_without_a_clock_chip_are_no_trouble(
    said: list[str], last: float | None
) -> None:
    assert ClockWatch(NOW, 5.0, last).trouble == ""
    assert said == []


@pytest.mark.parametrize(("jump", "way"), [(3_650 * DAY, "ahead"), (-3_650 * DAY, "back")])
def test_a_jump_while_it_runs_is_said_until_it_is_taken_back(
    said: list[str], jump: float, way: str
) -> None:
    watch = ClockWatch(NOW, 5.0, NOW)
    watch.watch(NOW + 3_600.0, 10.0)  # an hour is nothing
    for second in range(1, 50):
        watch.watch(NOW + jump + second, 10.0 + second)
    assert len(said) == 1
    assert f"it jumped {way} by 3650 days" in watch.trouble
    watch.watch(NOW + 60.0, 60.0)
    assert (watch.trouble, len(said)) == ("", 1)
    watch.watch(NOW + jump, 70.0)
    assert len(said) == 2


def test_a_jump_from_one_wrong_time_to_another_is_said(said: list[str]) -> None:
    watch = ClockWatch(0.0, 5.0, NOW)
    watch.watch(20 * 365 * DAY, 10.0)
    assert len(said) == 2
    assert "it jumped ahead by 7300 days and says 1989" in watch.trouble
    watch.watch(NOW, 15.0)
    assert watch.trouble == ""


def test_any_clock_can_be_shown() -> None:
    assert shown(1e300) == "1e+300"
    assert shown(-1.0) == "1969-12-31 23:59:59 UTC"


def test_the_health_has_it_as_long_as_it_lasts(lab: Lab) -> None:
    lab.device(2)
    lab.clock.jump = -50 * DAY
    lab.restart()
    lab.wire.url = "mqtt://broker"  # type: ignore[attr-defined]

    def vitals() -> Vitals:
        return Vitals(lab.coordinator, lab.wire, lab.clock, Notifier({}))  # type: ignore[arg-type]

    watching = vitals()
    assert "the database was changed at" in watching._health(Condition.OK)["clock"]
    lab.clock.jump = 0.0
    lab.later(1.0)
    watching.report([], 0)
    assert watching._health(Condition.OK)["clock"] == ""
    # What a clock ahead has left in the log is forgotten with the first row of a right one.
    lab.clock.jump = 3_650 * DAY
    lab.hear("reset", b"")
    lab.clock.jump = 0.0
    lab.restart()
    assert vitals()._health(Condition.OK)["clock"]
    lab.hear("reset", b"")
    lab.restart()
    assert vitals()._health(Condition.OK)["clock"] == ""


@pytest.mark.parametrize(("back", "left"), [(0.0, 1e6), (3_600.0, 1e6), (10 * 365 * DAY, 0.0)])
def test_a_clock_that_was_years_ahead_leaves_no_allowance_used_up_for_years(
    back: float, left: float
) -> None:
    record = Record("pi1", idle=1e6, idle_at=NOW + back)
    assert idle.spent(record, Moment(NOW, 0.0)) == left
