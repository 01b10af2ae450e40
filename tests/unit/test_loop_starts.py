"""Starts at an instant in the coordinator's loop: stored, waited for, and over in another life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwsync.protocol.record import Outcome, Ran, RunReport, State
from hwsync.protocol.wire.heartbeat import encode_heartbeat
from hwsync.store.checking import check
from hwsync.store.reader import Reader
from tests.support.coordinator import COLLECTED, Lab, brief, heartbeat, request, sent

SETTLE_S = 30.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "hwsync.db", hold_deadlines_s=SETTLE_S) as opened:
        opened.later(SETTLE_S)
        yield opened


def ask(lab: Lab, seconds: float = 60.0, within: float = 0.5) -> float:
    """Ask for a start so many seconds from now; the instant."""
    at = lab.coordinator.lab_time.us() / 1e6 + seconds
    deeds = lab.hear("request", request(start={"at": at, "within": within}))
    assert brief(deeds)[:2] == ["status 1", "command"]
    return at


def report(lab: Lab) -> RunReport:
    command = lab.store.command("pi1", "c1")
    assert command is not None
    assert command.report is not None
    return command.report


def test_the_instant_is_shown_by_everything(lab: Lab) -> None:
    at = ask(lab)
    life = lab.coordinator.lab_time.life
    for kind, payload in (("collected", COLLECTED), ("query", b'{"id":"c1"}')):
        deeds = lab.hear(kind, payload)
    for kind in ("status", "result/c1"):
        said = sent(deeds, kind)[-1]
        assert (said.json["start_at"], said.json["start_life"]) == (at, life)
        assert f'"start_at":{at:.6f}'.encode() in said.payload
    with Reader(lab.path) as reader:
        shown = reader.show("pi1", "c1")
    assert (shown["start_at"], shown["start_life"]) == (at, life)
    before = lab.record
    lab.restart()
    assert lab.record.current == before.current
    assert list(check(lab.path)) == []


def test_it_expires_when_nobody_can_begin_in_time_any_more(lab: Lab) -> None:
    ask(lab)
    began = lab.clock.now
    while lab.record.state is State.REQUESTED:
        wait = lab.coordinator.wait()
        assert wait is not None
        lab.later(wait)
    assert lab.clock.now - began == pytest.approx(60.5, abs=0.001)
    assert (report(lab).outcome, report(lab).ran) == (Outcome.EXPIRED, Ran.NO)


def test_what_was_off_meanwhile_ends_without_any_settling(lab: Lab) -> None:
    ask(lab)
    lab.disconnect()
    lab.clock.now += 100.0
    deeds = lab.connect()
    assert sent(deeds, "command") == []
    assert report(lab).outcome is Outcome.EXPIRED


def test_another_boot_of_the_machine_ends_what_waits(lab: Lab) -> None:
    ask(lab)
    lab.clock.named = "another boot"
    deeds = lab.restart()
    assert sent(deeds, "command") == []
    assert "began anew" in report(lab).reason
    assert report(lab).ran is Ran.NO


def test_a_suspend_ends_what_waits_and_the_grant_counts_on(lab: Lab) -> None:
    ask(lab)
    lab.clock.suspended = 1_000_000
    lab.step()
    assert "began anew" in report(lab).reason
    lab.hear("reset")
    lab.hear("request", request("c2", start={"at": lab.coordinator.lab_time.us() / 1e6 + 60}))
    lab.hear("collected", b'{"id":"c2","journal":"j1","boot":1}')
    lab.clock.suspended = 2_000_000
    lab.later(1.0)
    assert lab.record.state is State.COLLECTED
    lab.later(98.0)
    assert lab.record.state is State.COLLECTED
    lab.later(2.0)  # 60 + 10 + 30 after its request
    assert lab.record.state is State.RETURNED


def test_lab_time_goes_on_while_a_start_is_pending(lab: Lab) -> None:
    life = lab.coordinator.lab_time.life
    ask(lab)
    lab.clock.jump = 3600.0
    lab.step()
    assert lab.coordinator.lab_time.life == life
    lab.hear("collected", COLLECTED)
    lab.later(60.4)
    assert lab.coordinator.lab_time.life == life
    lab.later(0.2)  # it has begun, or will not
    assert lab.coordinator.lab_time.life != life
    assert lab.record.state is State.COLLECTED


def test_a_heartbeat_of_the_same_round_counts_before_the_request(lab: Lab) -> None:
    at = lab.coordinator.lab_time.us() / 1e6 + 60
    asked = lab.delivery("request", request(start={"at": at}))
    deeds = lab.step(asked, lab.delivery("heartbeat", heartbeat()))
    assert sent(deeds, "error")[0].json["error"] == "not_allowed"
    able = encode_heartbeat(online=True, journal="j1", boot=1, can=["start"])
    asked = lab.delivery("request", request(start={"at": at}))
    deeds = lab.step(asked, lab.delivery("heartbeat", able))
    assert sent(deeds, "status")[-1].json["state"] == 1


def test_a_board_that_has_gone_is_not_asked_what_it_can(lab: Lab) -> None:
    lab.hear("heartbeat", heartbeat())
    lab.hear("heartbeat", heartbeat(online=False))
    ask(lab)
    assert lab.record.state is State.REQUESTED
