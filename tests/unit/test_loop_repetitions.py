"""Envelopes that nobody collected: sent again with growing pauses, and when a device appears."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.coordinator import COLLECTED, Lab, brief, heartbeat, request

WITHOUT_LIMIT = request(expires=0)
PAUSES = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@pytest.fixture
def waiting(lab: Lab) -> Lab:
    """The command c1 waits, without limit, for the device j1 (boot 2), which is there."""
    lab.hear("heartbeat", heartbeat(boot=2))
    lab.hear("request", WITHOUT_LIMIT)
    return lab


@pytest.mark.parametrize(("dice", "part"), [(0.0, 1.0), (0.5, 0.875), (1.0, 0.75)])
def test_an_envelope_is_sent_again_with_growing_pauses_less_their_jitter(
    tmp_path: Path, dice: float, part: float
) -> None:
    with Lab(tmp_path / "hwsync.db", dice=dice) as lab:
        lab.hear("request", WITHOUT_LIMIT)
        for pause in PAUSES:
            assert lab.coordinator.wait() == part * pause
            assert lab.later(part * pause - 0.125) == []
            assert brief(lab.later(0.125)) == ["command"]
        assert lab.coordinator.counts["resent"] == len(PAUSES)


def test_the_same_envelope_is_sent_again(lab: Lab) -> None:
    first = lab.hear("request", request(args=["x"], stdin="y"))[1]
    assert lab.later(1.0) == [first]


@pytest.mark.parametrize("end", [("collected", COLLECTED), ("cancel", b""), ("reset", b"")])
def test_nothing_is_sent_again_once_the_command_no_longer_waits(
    waiting: Lab, end: tuple[str, bytes]
) -> None:
    waiting.hear(*end)
    assert waiting.later(1.0) == []
    assert waiting.later(5.0) == []


@pytest.mark.parametrize("together", [False, True])
def test_a_command_begins_with_short_pauses_whatever_the_one_before_had_reached(
    waiting: Lab, together: bool
) -> None:
    for pause in PAUSES:
        waiting.later(pause)
    reset = waiting.delivery("reset")
    if not together:
        waiting.step(reset)
    asked = waiting.delivery("request", request("c2", expires=0))
    waiting.step(*[reset] * together, asked)
    assert waiting.coordinator.wait() == 1.0
    assert brief(waiting.later(1.0)) == ["command"]
    assert waiting.coordinator.wait() == 2.0


def test_a_restart_begins_with_short_pauses(waiting: Lab) -> None:
    for pause in PAUSES:
        waiting.later(pause)
    waiting.restart()
    assert waiting.coordinator.wait() == 1.0
    assert brief(waiting.later(1.0)) == ["command"]


# Who is there


def test_nothing_is_sent_again_to_a_device_known_to_be_away(waiting: Lab) -> None:
    waiting.hear("heartbeat", heartbeat(boot=2, online=False))
    assert [waiting.later(pause) for pause in PAUSES] == [[]] * len(PAUSES)
    assert waiting.coordinator.counts["resent"] == 0


def test_who_comes_back_gets_its_envelope_at_once_and_again(waiting: Lab) -> None:
    waiting.hear("heartbeat", heartbeat(boot=2, online=False))
    waiting.later(1.0)
    assert brief(waiting.hear("heartbeat", heartbeat(boot=2), mid=7)) == ["command", 7]
    assert brief(waiting.later(2.0)) == ["command"]


@pytest.mark.parametrize(
    "appeared",
    [heartbeat("j1", 3), heartbeat("j2", 1), heartbeat("j2", 2)],
    ids=["a later boot", "another journal", "another journal of the same boot"],
)
def test_a_new_boot_or_journal_gets_the_envelope_at_once(waiting: Lab, appeared: bytes) -> None:
    assert brief(waiting.hear("heartbeat", appeared, mid=7)) == ["command", 7]
    assert brief(waiting.hear("heartbeat", appeared, mid=8)) == [8]


def test_a_heartbeat_of_a_known_device_brings_nothing(waiting: Lab) -> None:
    assert brief(waiting.hear("heartbeat", heartbeat(boot=2), mid=7)) == [7]


def test_the_first_heartbeat_that_is_heard_brings_the_envelope(lab: Lab) -> None:
    lab.hear("request", WITHOUT_LIMIT)
    assert brief(lab.hear("heartbeat", heartbeat(), retain=True, mid=7)) == ["command", 7]


def test_the_will_of_an_earlier_boot_does_not_count(waiting: Lab) -> None:
    assert brief(waiting.hear("heartbeat", heartbeat(boot=1, online=False), mid=7)) == [7]
    assert brief(waiting.later(1.0)) == ["command"]
    assert brief(waiting.hear("heartbeat", heartbeat(boot=2), mid=8)) == [8]


def test_an_earlier_boots_will_in_the_same_step_does_not_count(lab: Lab) -> None:
    lab.hear("request", WITHOUT_LIMIT)
    deeds = lab.step(
        lab.delivery("heartbeat", heartbeat(boot=2)),
        lab.delivery("heartbeat", heartbeat(boot=1, online=False)),
    )
    assert brief(deeds) == ["command", 2, 3]
    assert brief(lab.later(1.0)) == ["command"]


@pytest.mark.parametrize("state", [0, 2, 3])
def test_a_device_that_appears_gets_nothing_unless_something_waits(lab: Lab, state: int) -> None:
    lab.device(state)
    assert brief(lab.hear("heartbeat", heartbeat(), mid=7)) == [7]


def test_a_heartbeat_is_no_concern_of_another_user(waiting: Lab) -> None:
    assert brief(waiting.hear("heartbeat", heartbeat("j9"), user="pi2", mid=7)) == [7]
    waiting.hear("heartbeat", heartbeat("j9", online=False), user="pi2")
    assert brief(waiting.later(1.0)) == ["command"]


def test_a_heartbeat_creates_no_record(lab: Lab) -> None:
    lab.hear("heartbeat", heartbeat())
    assert lab.coordinator.records == {}
    assert lab.rows("hw_status") == []
