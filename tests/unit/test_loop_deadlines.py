"""Deadlines in the loop: on the clock of connected seconds, held back after each connect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.machine import Rules
from hwsync.protocol.record import Outcome, Ran, State
from tests.support.coordinator import GONE, Lab, brief, request, result, sent

LEFT = {1: 20.0, 2: 12.0, 3: 50.0}
"""Seconds in each state, with the keys and rules below."""

KEYS: dict[str, Any] = {"expires": 20, "timeout": 5, "grace": 7}
RULES = Rules(analysis_within=50.0)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "hwsync.db", rules=RULES) as opened:
        yield opened


@pytest.fixture
def settling(tmp_path: Path) -> Iterator[Lab]:
    """The same with a settling time of 30 s."""
    with Lab(tmp_path / "hwsync.db", rules=RULES, settle=30.0) as opened:
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
    assert lab.record.current.account is not None
    assert (lab.record.current.account.outcome, lab.record.current.account.ran) == (outcome, ran)
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
    assert lab.record.current.account is not None
    assert lab.record.current.account.outcome is Outcome.OK


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
    assert settling.record.current.account is not None
    assert settling.record.current.account.outcome is Outcome.OK


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
    lab.stop()
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
