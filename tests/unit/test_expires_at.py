"""``expires_at``: nobody collects a command after that time of day, whatever was off meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Outcome, Ran, RunReport, State
from hwsync.protocol.wire.envelope import read_envelope
from hwsync.protocol.wire.response import encode_collected
from tests.support.coordinator import GONE, Lab, brief, request, result, sent

SETTLE_S = 30.0


class Signer:
    """Signs nothing that anybody would believe."""

    public = "a key"

    def sign(self, text: str) -> str:
        return "a signature"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "hwsync.db", hold_deadlines_s=SETTLE_S) as opened:
        opened.later(SETTLE_S)
        yield opened


def within(lab: Lab, seconds: float) -> float:
    return lab.clock.wall() + seconds


def ended(lab: Lab, id: str = "c1") -> RunReport:
    command = lab.store.command("pi1", id)
    assert command is not None
    assert command.report is not None
    return command.report


def expired(lab: Lab, id: str = "c1") -> bool:
    report = ended(lab, id)
    assert report.reason.startswith("not collected before its expires_at")
    return (report.outcome, report.ran) == (Outcome.EXPIRED, Ran.NO)


def ask(lab: Lab, seconds: float, **keys: Any) -> dict[str, Any]:
    """Ask for c1, to be collected within so many seconds of the wall clock; its envelope."""
    keys = {"expires": 0, **keys}
    (envelope,) = sent(
        lab.hear("request", request(expires_at=within(lab, seconds), **keys)), "command"
    )
    return envelope.json


def test_it_ends_at_that_time_and_not_before(lab: Lab) -> None:
    ask(lab, 20.0)
    for _ in range(200):
        if lab.record.state is State.REQUESTED:
            lab.later(min(lab.coordinator.wait() or 0.0, 0.25))
    assert lab.clock.now == 150.0
    assert expired(lab)


@pytest.mark.parametrize(("expires", "seconds"), [(0, 20.0), (50, 20.0), (5, 5.0)])
def test_the_smaller_of_the_two_counts_and_is_told(
    lab: Lab, expires: float, seconds: float
) -> None:
    envelope = ask(lab, 20.0, expires=expires)
    assert envelope["expires_at"] == within(lab, seconds) == lab.record.deadline_wall
    lab.later(seconds - 0.125)
    assert lab.record.state is State.REQUESTED
    assert lab.coordinator.wait() == 0.125
    lab.later(0.125)
    assert lab.record.state is State.REST
    assert ended(lab).outcome is Outcome.EXPIRED


def test_who_collects_too_late_gets_no_grant_and_is_told(lab: Lab) -> None:
    ask(lab, 20.0)
    deeds = lab.later(20.0, lab.delivery("collected", encode_collected("c1", "j1", 1), mid=7))
    assert brief(deeds) == ["error", "status 1", "status 0", 7]
    (error,) = sent(deeds, "error")
    assert (error.json["error"], error.json["id"]) == ("wrong_state", "c1")
    assert "c1 had to be collected before" in error.json["message"]
    assert expired(lab)
    rows = lab.rows("transitions", "row, command, before, state, topic")
    assert rows[-1][1:] == ("expire", 1, 0, "")


def test_who_collects_in_time_may_run_beyond_it(lab: Lab) -> None:
    ask(lab, 20.0)
    assert brief(lab.later(19.9, lab.delivery("collected", encode_collected("c1", "j1", 1))))[
        0
    ] == ("status 2")
    lab.later(5.0)
    assert (lab.record.state, lab.record.deadline_wall) == (
        State.COLLECTED,
        within(lab, 40.0 - 5.0),
    )
    moved = lab.hear("collected", encode_collected("c1", "j1", 2))
    assert brief(moved)[0] == "status 2"


@pytest.mark.parametrize("late", ["collected", ""])
def test_it_counts_while_the_coordinator_is_off_and_needs_no_settling(lab: Lab, late: str) -> None:
    ask(lab, 20.0)
    lab.stop()
    lab.clock.now += 20.0
    lab.start()
    signals = [lab.delivery("collected", encode_collected("c1", "j1", 1))] if late else []
    deeds = lab.connect(*signals)
    assert [kind for kind in brief(deeds) if kind in ("command", "status 2")] == []
    assert expired(lab)


def test_it_counts_while_the_broker_is_away(lab: Lab) -> None:
    ask(lab, 20.0)
    lab.step(GONE)
    lab.wire.connected = False
    assert lab.later(60.0) == []
    assert lab.coordinator.wait() is None or lab.coordinator.wait() != 0.0
    assert lab.record.state is State.REQUESTED  # what the broker kept is not known yet
    assert brief(lab.connect()) == ["status 1", "status 0"]
    assert expired(lab)


def test_a_time_that_is_past_is_refused_unless_the_id_is_known(lab: Lab) -> None:
    past = lab.clock.wall()
    deeds = lab.hear("request", request(expires_at=past))
    (error,) = sent(deeds, "error")
    assert (error.json["error"], error.json["id"]) == ("bad_payload", "c1")
    assert error.json["message"] == f"'expires_at' is {past:.3f}, and it is {past:.3f} already"
    assert "Unix time" in error.json["hint"]
    assert lab.store.command("pi1", "c1") is None
    payload = request(expires_at=past + 5.0)
    lab.hear("request", payload)
    lab.later(5.0)
    assert brief(lab.hear("request", payload, mid=7)) == ["status 0", 7]
    assert expired(lab)


def test_whose_turn_comes_too_late_expires_and_the_next_one_follows(lab: Lab) -> None:
    lab.device(2)
    for id, seconds in (("c2", 5.0), ("c3", 6.0), ("c4", 500.0)):
        lab.hear("request", request(id, queue=True, expires_at=within(lab, seconds)))
    lab.later(7.0)
    assert lab.record.queue == ("c2", "c3", "c4")  # it is looked at when its turn comes
    lab.hear("response", result())
    deeds = lab.hear("analysis", b"ok")
    assert brief(deeds)[:-1] == [
        *("status 0", "status 0", "result/c2", "status 0", "result/c3", "status 1", "command"),
    ]
    assert expired(lab, "c2")
    assert expired(lab, "c3")
    assert (lab.record.id, lab.record.queue) == ("c4", ())
    (answer,) = sent(deeds, "result/c2")
    assert (answer.json["outcome"], answer.json["ran"], answer.json["queued"]) == (
        "expired", "no", 0
    )  # fmt: skip


def test_a_queue_of_which_all_are_too_late_ends_at_rest(lab: Lab) -> None:
    lab.device(2)
    for number in range(100):
        lab.hear("request", request(f"q{number}", queue=True, expires_at=within(lab, 5.0)))
    lab.later(7.0)
    lab.hear("reset", b'{"id":"c1"}')
    assert (lab.record.state, lab.record.id, lab.record.queue) == (State.REST, "c1", ())
    assert all(expired(lab, f"q{number}") for number in range(100))
    lab.stop()
    lab.start()
    lab.connect()
    assert lab.record.state is State.REST


def test_after_a_restore_its_no_is_a_maybe(lab: Lab) -> None:
    lab.hear("heartbeat", b'{"online":true,"journal":"j1","boot":1,"seen":[5,5]}')
    ask(lab, 20.0)
    lab.later(20.0)
    assert (ended(lab).outcome, ended(lab).ran) == (Outcome.EXPIRED, Ran.MAYBE)


def test_a_clock_that_jumps_is_believed(lab: Lab) -> None:
    ask(lab, 20.0)
    lab.clock.jump = -1e6
    lab.later(100.0)
    assert lab.record.state is State.REQUESTED
    lab.clock.jump = 0.0
    lab.step()
    assert expired(lab)


@pytest.mark.parametrize(("expires", "seconds"), [(0, 20.0), (5, 5.0), (50, 20.0)])
def test_a_signed_envelope_says_the_smaller_too(lab: Lab, expires: float, seconds: float) -> None:
    lab.coordinator.publishing.signer = Signer()
    envelope = read_envelope(dumps(ask(lab, 20.0, expires=expires, name="a.py", grace=7)).encode())
    assert envelope is not None
    assert envelope.expires_at == within(lab, seconds)
    assert (envelope.name, envelope.grace) == ("a.py", 7.0)


@pytest.mark.parametrize(("away", "seconds"), [(10.0, 8.0), (15.0, 5.0)])
def test_what_is_signed_later_says_what_is_left_then(lab: Lab, away: float, seconds: float) -> None:
    lab.coordinator.publishing.signer = Signer()
    ask(lab, 22.0, expires=10)
    lab.later(2.0)
    lab.disconnect()
    lab.clock.now += away
    again = sent(lab.connect(), "command")[0]
    envelope = read_envelope(again.payload)
    assert envelope is not None
    assert envelope.expires_at == within(lab, seconds)


def test_nothing_is_sent_again_once_it_is_over(lab: Lab) -> None:
    ask(lab, 20.0)
    beat = lab.delivery("heartbeat", b'{"online":true,"journal":"j2","boot":1}')
    assert brief(lab.later(20.0, beat))[0] == "status 0"
    assert sent(lab.wire.deeds, "command") == []
