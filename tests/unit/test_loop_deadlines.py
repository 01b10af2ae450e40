"""Deadlines in the loop: on the clock of connected seconds, held back after each connect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import StoreError
from hwsync.protocol.record import Outcome, Ran, State
from hwsync.protocol.rules import Rules
from tests.support.coordinator import GONE, Deed, Lab, brief, request, result, sent

LEFT = {1: 20.0, 2: 12.0, 3: 50.0}
"""Seconds in each state, with the keys and rules below."""

KEYS: dict[str, Any] = {"expires": 20, "timeout": 5, "grace": 7}
RULES = Rules(analysis_within=50.0)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "hwsync.db", rules=RULES) as opened:
        opened.later(100.0)  # from now on the time that is left is written down once a minute
        yield opened


@pytest.fixture
def settling(tmp_path: Path) -> Iterator[Lab]:
    """The same with a settling time of 30 s."""
    with Lab(tmp_path / "hwsync.db", rules=RULES, hold_deadlines_s=30.0) as opened:
        yield opened


@pytest.mark.parametrize(
    ("state", "to", "outcome", "ran"),
    [
        (1, State.REST, Outcome.EXPIRED, Ran.NO),
        (2, State.RETURNED, Outcome.LOST, Ran.MAYBE),
        (3, State.REST, Outcome.OK, Ran.YES),
    ],
)
def test_each_state_ends_at_its_deadline_and_not_before(
    lab: Lab, state: int, to: State, outcome: Outcome, ran: Ran
) -> None:
    lab.device(state, **KEYS)
    lab.later(LEFT[state] - 0.125)
    assert lab.record.state == state
    assert brief(lab.later(0.125)) == [f"status {to:d}"]
    assert (lab.record.state, lab.record.seq) == (to, state + 1)
    assert lab.record.current is not None
    assert lab.record.current.report is not None
    assert (lab.record.current.report.outcome, lab.record.current.report.ran) == (outcome, ran)
    assert lab.rows("transitions", "seq, command, topic")[-1] == (state + 1, "expire", "")


def test_a_lost_command_is_analysed_by_the_coordinators_analyser(lab: Lab) -> None:
    lab.device(2, analysis="outcome", **KEYS)
    assert brief(lab.later(12.0)) == ["status 3"]
    assert brief(lab.step()) == ["status 0"]
    assert lab.record.current is not None
    assert lab.record.current.analysis == "lost: no answer within 12 s of its collection"


@pytest.mark.parametrize(("state", "after", "left"), [(2, 2.5, 9.5), (3, 12.5, 37.5)])
def test_wait_gives_the_seconds_to_the_nearest_deadline(
    lab: Lab, state: int, after: float, left: float
) -> None:
    lab.device(state, **{**KEYS, "expires": 0})
    lab.later(after)  # the moments of earlier states are over
    assert lab.coordinator.wait() == left
    lab.later(left)
    assert lab.record.state != state


def test_wait_gives_the_nearer_of_repetition_and_deadline(lab: Lab) -> None:
    lab.device(1, **KEYS)
    waits = []
    while lab.record.state is State.REQUESTED:
        waits.append(lab.coordinator.wait())
        lab.later(waits[-1] or 0.0)
    assert waits == [1.0, 2.0, 4.0, 8.0, 5.0]


def test_nothing_is_waited_for_when_nothing_is_due(lab: Lab) -> None:
    assert lab.coordinator.wait() is None
    lab.hear("reset")
    assert lab.coordinator.wait() is None


def test_zero_means_without_limit(tmp_path: Path) -> None:
    with Lab(tmp_path / "hwsync.db", rules=Rules(analysis_within=0.0)) as lab:
        lab.hear("request", request(expires=0))
        lab.later(1e7)
        assert lab.record.state is State.REQUESTED
        for kind, payload in [("collected", b""), ("response", b"42")]:
            lab.hear(kind, payload)
        lab.later(1e7)
        assert lab.record.state is State.RETURNED


def test_a_cancel_leaves_the_grace(lab: Lab) -> None:
    lab.device(2, **KEYS)
    lab.later(1.0)
    lab.hear("cancel", b'{"id":"c1"}')
    lab.later(6.875)
    assert lab.record.state is State.COLLECTED
    lab.later(0.125)
    assert lab.record.state is State.RETURNED


def test_a_message_is_heard_before_the_deadline_that_passed_with_it(lab: Lab) -> None:
    lab.device(2, **KEYS)
    deeds = lab.later(500.0, lab.delivery("response", result(), mid=7))
    assert brief(deeds) == ["status 3", 7]
    assert lab.record.current is not None
    assert lab.record.current.report is not None
    assert lab.record.current.report.outcome is Outcome.OK


def test_the_deadline_of_an_earlier_command_ends_no_later_one(lab: Lab) -> None:
    lab.device(1, **KEYS)
    lab.later(15.0)
    lab.hear("reset")
    lab.hear("request", request("c2", **KEYS))
    lab.later(19.875)
    assert (lab.record.id, lab.record.state) == ("c2", State.REQUESTED)
    lab.later(0.125)
    assert lab.record.state is State.REST


def test_deadlines_of_several_users_are_kept_apart(lab: Lab) -> None:
    for number in (3, 1, 2):
        lab.hear("request", request(expires=10 * number), user=f"pi{number}")
    ended = [[status.topic for status in sent(lab.later(10.0), "status")] for _ in range(3)]
    assert ended == [["hw/pi1/status"], ["hw/pi2/status"], ["hw/pi3/status"]]


@pytest.mark.parametrize("jump", [1e9, -1e9])
def test_a_jump_of_the_wall_clock_changes_nothing(lab: Lab, jump: float) -> None:
    lab.device(2, **KEYS)
    lab.later(2.0)
    lab.clock.jump = jump
    assert lab.coordinator.wait() == 10.0
    lab.later(9.875)
    assert lab.record.state is State.COLLECTED
    lab.later(0.125)
    assert lab.record.state is State.RETURNED


# The connection


def test_no_deadline_comes_nearer_without_a_connection(lab: Lab) -> None:
    lab.device(2, **KEYS)
    lab.later(2.0)
    lab.disconnect()
    lab.later(1e6)
    assert lab.record.state is State.COLLECTED
    lab.connect()
    lab.later(9.875)
    assert lab.record.state is State.COLLECTED
    lab.later(0.125)
    assert lab.record.state is State.RETURNED


def test_no_deadline_fires_without_a_connection_though_it_passed(lab: Lab) -> None:
    lab.device(2, **KEYS)
    lab.clock.now += 500.0
    lab.wire.connected = False
    assert lab.step(GONE) == []
    assert lab.record.state is State.COLLECTED
    lab.later(60.0)
    assert lab.record.state is State.COLLECTED
    assert brief(lab.connect()) == ["status 2", "status 3"]


def test_nothing_is_waited_for_without_a_connection(lab: Lab) -> None:
    lab.device(2, **KEYS)
    lab.later(2.0)
    assert lab.coordinator.wait() == 10.0
    lab.disconnect()
    assert lab.coordinator.wait() is None
    lab.later(60.0)
    assert lab.coordinator.wait() is None
    lab.connect()
    assert lab.coordinator.wait() == 10.0


@pytest.mark.parametrize("state", [1, 2])
def test_nothing_fires_before_the_settling_time_is_over(settling: Lab, state: int) -> None:
    settling.device(state, **KEYS)
    settling.later(29.875)
    assert settling.record.state == state
    settling.later(0.125)
    assert settling.record.state != state


def test_every_connect_settles_anew_and_who_finished_meanwhile_is_heard_first(
    settling: Lab,
) -> None:
    settling.later(100.0)
    settling.device(2, **KEYS)
    settling.later(11.0)
    settling.disconnect()
    settling.later(600.0)
    settling.connect()
    settling.later(29.9)
    assert settling.record.state is State.COLLECTED
    settling.hear("response", result())
    settling.later(0.1)
    assert settling.record.current is not None
    assert settling.record.current.report is not None
    assert settling.record.current.report.outcome is Outcome.OK


def test_wait_includes_what_is_left_of_the_settling_time(settling: Lab) -> None:
    settling.device(2, **KEYS)
    settling.later(100.0)
    settling.hear("reset")
    settling.device(2, "c2", **KEYS)
    settling.later(2.5)
    settling.connect()
    assert settling.coordinator.wait() == 30.0
    settling.later(10.0)
    assert settling.coordinator.wait() == 20.0


# A restart


def test_after_a_restart_deadlines_count_on_from_what_was_left_at_the_last_change(
    lab: Lab,
) -> None:
    lab.device(1, **{**KEYS, "expires": 100})
    lab.later(40.0)
    lab.hear("response", result("c0"))  # an orphan: a change that leaves the deadline alone
    lab.later(10.0)
    lab.stop()  # as it were killed
    lab.clock.now += 1e6
    lab.start()
    lab.connect()
    lab.later(59.875)
    assert lab.record.state is State.REQUESTED
    lab.later(0.125)
    assert lab.record.state is State.REST


@pytest.mark.parametrize("state", [1, 2, 3])
def test_a_restart_keeps_the_deadline_of_every_state(lab: Lab, state: int) -> None:
    lab.device(state, **KEYS)
    lab.restart()
    lab.later(LEFT[state] - 0.125)
    assert lab.record.state == state
    lab.later(0.125)
    assert lab.record.state != state


def test_a_restart_settles_first(settling: Lab) -> None:
    settling.later(100.0)
    settling.device(2, **KEYS)
    settling.restart()
    settling.later(29.875)
    assert settling.record.state is State.COLLECTED
    settling.later(0.125)
    assert settling.record.state is State.RETURNED


# What is left is written down


def left(lab: Lab) -> float:
    """As another life would read it."""
    return float(lab.rows("hw_status", "remaining")[0][0])


@pytest.mark.parametrize("life", [2.0, 30.0, 90.0])
@pytest.mark.parametrize("state", [1, 2, 3])
def test_a_coordinator_that_is_killed_again_and_again_ends_every_state(
    lab: Lab, state: int, life: float
) -> None:
    """A room that is switched off every night must not run last month's commands."""
    lab.device(state, **KEYS)
    connected = 0.0
    while lab.record.state == state:
        lab.restart()
        for _ in range(int(life)):
            lab.later(1.0)
        lab.clock.now += 50_000.0  # switched off
        connected += life
        assert connected <= 2 * LEFT[state] + 2 * life
    assert (state + 1, "expire") in lab.rows("transitions", "seq, command")


def test_what_is_left_is_written_down_in_doubling_steps_and_then_once_a_minute(
    tmp_path: Path,
) -> None:
    with Lab(tmp_path / "hwsync.db") as lab:
        lab.hear("request", request(expires=1000))
        written = [left(lab)]
        for _ in range(300):
            lab.later(1.0)
            if left(lab) != written[-1]:
                written.append(left(lab))
        ticks = [1000.0 - each for each in written]
        assert ticks == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 124.0, 184.0, 244.0]
        assert lab.record.seq == 1
        assert len(lab.rows("transitions")) == 1


def test_it_wakes_up_to_write_it_down(tmp_path: Path) -> None:
    with Lab(tmp_path / "hwsync.db") as lab:
        lab.device(2, timeout=500)
        waits = []
        while lab.clock.now < 400.0:
            waits.append(lab.coordinator.wait())
            lab.later(waits[-1] or 0.0)
        assert waits == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]


def test_nothing_is_written_down_while_nothing_runs(lab: Lab) -> None:
    lab.device(3, **KEYS)
    lab.hear("analysis", b"fine")
    changes = lab.store.database.connection.total_changes
    for _ in range(300):
        lab.later(1.0)
    assert lab.coordinator.wait() is None
    lab.device(1, "c2", expires=0)
    lab.disconnect()
    lab.device(1, "c3", **KEYS)
    before = lab.store.database.connection.total_changes
    assert before > changes
    for _ in range(300):
        lab.later(1.0)
    assert lab.store.database.connection.total_changes == before


def test_it_is_written_down_at_an_ordered_end(lab: Lab) -> None:
    lab.device(1, **{**KEYS, "expires": 100})
    lab.later(40.0)
    lab.coordinator.write_down()
    lab.restart()
    lab.later(59.875)
    assert lab.record.state is State.REQUESTED
    lab.later(0.125)
    assert lab.record.state is State.REST


def test_a_disk_that_does_not_take_it_does_no_harm(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lab.device(1, **{**KEYS, "expires": 200})
    with monkeypatch.context() as full:

        def fail(*_: object) -> None:
            raise StoreError("database or disk is full")

        full.setattr(lab.store, "write_down", fail)
        lab.later(70.0)
    assert (
        "cannot write down what is left of the deadlines: database or disk is full" in caplog.text
    )
    assert (lab.record.seq, left(lab)) == (1, 200.0)
    assert brief(lab.hear("query", b"")) == ["status 1", lab._mid]
    lab.later(60.0)
    assert left(lab) == 70.0
    lab.later(70.0)
    assert lab.record.state is State.REST


def test_only_what_is_stored_is_counted_down(lab: Lab) -> None:
    """A save that failed may have stored more than is known here: that is another deadline."""
    lab.device(1, **{**KEYS, "expires": 200})
    lab.store.database.connection.execute("UPDATE hw_status SET seq = 2, state = 2, remaining = 12")
    lab.later(70.0)
    assert left(lab) == 12.0


# When it ends, as it is told


def told(deeds: list[Deed]) -> float:
    return float(sent(deeds, "status")[-1].json["deadline"])


def test_each_status_says_when_its_state_ends_seen_from_when_it_is_told(lab: Lab) -> None:
    lab.device(2, **KEYS)
    lab.later(2.0)
    assert told(lab.hear("query", b"")) == lab.clock.wall() + 10.0
    lab.disconnect()
    lab.later(500.0)
    assert told(lab.connect()) == lab.clock.wall() + 10.0
    lab.clock.jump = 1e8  # the clock is set
    assert told(lab.hear("query", b"")) == lab.clock.wall() + 10.0


def test_after_a_restart_the_kept_status_is_replaced_by_one_with_a_true_end(lab: Lab) -> None:
    lab.device(1, **KEYS)
    lab.clock.now += 1e6
    deeds = lab.restart()
    assert told(deeds) == lab.clock.wall() + 20.0
    (envelope,) = sent(deeds, "command")
    assert envelope.json["expires_at"] == lab.clock.wall() + 20.0
