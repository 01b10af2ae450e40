"""State 3 and who offers its analyser: 60 s without anybody, by analysts that come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol import limits
from hwsync.protocol.record import State
from hwsync.protocol.rules import Rules
from hwsync.protocol.wire.analyst import Offer, encode_offer
from tests.support.coordinator import Deed, Lab, Sent

WITHIN = 3_600.0
NOBODY = "no analyst offers check1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hwsync.db"


@pytest.fixture
def lab(path: Path) -> Iterator[Lab]:
    with Lab(path, rules=Rules(analysis_within=WITHIN)) as lab:
        yield lab


def offer(lab: Lab, *names: str, analyst: str = "grader", online: bool = True) -> list[Deed]:
    payload = encode_offer(Offer(online, dict.fromkeys(names, "3f0c"), 0.0))
    return lab.hear(f"analysts/{analyst}", payload, user="@hwsync", retain=True)


def status(deeds: list[Deed]) -> dict[str, Any]:
    """The last status that was said."""
    said = [one for one in deeds if isinstance(one, Sent) and one.topic == "hw/pi1/status"]
    fields: dict[str, Any] = json.loads(said[-1].payload)
    return fields


def told(lab: Lab) -> dict[str, Any]:
    return status(lab.hear("query"))


def left(lab: Lab) -> float:
    """Seconds until the present state ends, as the status says."""
    return float(told(lab)["deadline"]) - lab.clock.wall()


def test_with_nobody_who_offers_it_state_3_ends_after_60_s(lab: Lab) -> None:
    lab.device(3, analysis="check1")
    assert (told(lab)["analyser"], told(lab)["no_analysis"]) == ("check1", NOBODY)
    assert left(lab) == pytest.approx(limits.UNOFFERED_S)
    lab.later(limits.UNOFFERED_S - 0.5)
    assert lab.record.state is State.RETURNED
    said = status(lab.later(1.0))
    assert (said["state"], said["command"], said["no_analysis"]) == (0, "expire", NOBODY)
    assert (said["outcome"], said["reason"], said["deadline"]) == ("ok", "", None)
    (*_, note) = lab.rows("transitions", "row, note")[-1]
    assert note == f"no analysis: {NOBODY}"


@pytest.mark.parametrize("analysis", ["manual", None])
def test_whoever_waits_for_a_person_waits_the_ordinary_time(lab: Lab, analysis: str | None) -> None:
    lab.device(3, analysis=analysis)
    assert (told(lab)["no_analysis"], left(lab)) == (None, pytest.approx(WITHIN))
    lab.later(WITHIN - 1.0)
    assert lab.record.state is State.RETURNED
    assert status(lab.later(2.0))["no_analysis"] == "none came within 3600 s"


def test_an_analyst_that_comes_takes_the_60_s_away_and_one_that_goes_begins_them(
    lab: Lab,
) -> None:
    lab.device(3, analysis="check1")
    lab.later(50.0)
    assert lab.record.unoffered_ticks is not None
    said = status(offer(lab, "check1", "check2"))
    assert (said["state"], said["no_analysis"]) == (3, None)
    assert left(lab) == pytest.approx(WITHIN - 50.0)
    lab.later(100.0)
    assert lab.record.state is State.RETURNED
    assert not isinstance(offer(lab, "check1", analyst="second")[0], Sent)  # nobody is told
    assert len(offer(lab, online=False)) == 1
    assert status(offer(lab, "check2", analyst="second"))["no_analysis"] == NOBODY
    assert left(lab) == pytest.approx(limits.UNOFFERED_S)
    assert lab.coordinator.analysts.figures(lab.coordinator.records.values()).unoffered == {
        "check1": 1
    }
    lab.later(limits.UNOFFERED_S + 0.1)
    assert lab.record.state is State.REST


def repeated(lab: Lab, *names: str, analyst: str = "grader") -> list[Deed]:
    payload = encode_offer(Offer(True, dict.fromkeys(names, "3f0c"), 0.0, repeats=True))
    return lab.hear(f"analysts/{analyst}", payload, user="@hwsync", retain=True)


def gone(deeds: list[Deed]) -> list[str]:
    """Of which analysts the broker keeps no longer that they are there."""
    said = [one for one in deeds if isinstance(one, Sent) and "/analysts/" in one.topic]
    assert all((json.loads(one.payload), one.retain) == ({"online": False}, True) for one in said)
    return [one.topic.rpartition("/")[2] for one in said]


def test_one_that_repeats_what_it_offers_and_falls_silent_has_gone(lab: Lab) -> None:
    """It died together with the broker, which keeps for ever that it is there."""
    offer(lab, "check2", analyst="by-hand")
    lab.device(3, analysis="check1")
    repeated(lab, "check1")
    for _ in range(5):
        assert gone(lab.later(limits.HEARTBEAT_S)) == []
        repeated(lab, "check1")
    assert gone(lab.later(limits.OFFLINE_AFTER_S - 0.5)) == []
    wait = lab.coordinator.wait()
    assert wait is not None
    assert wait <= 0.5
    deeds = lab.later(0.5)
    assert gone(deeds) == ["grader"]
    assert status(deeds)["no_analysis"] == NOBODY
    assert set(lab.coordinator.analysts.offers) == {"by-hand"}  # says it once, as a person does
    assert gone(lab.later(limits.OFFLINE_AFTER_S)) == []
    repeated(lab, "check1")
    assert "check1" in lab.coordinator.analysts.offered


def test_nobody_is_silent_while_the_coordinator_is_not_connected(lab: Lab) -> None:
    repeated(lab, "check1")
    lab.disconnect()
    assert gone(lab.later(2 * limits.OFFLINE_AFTER_S)) == []
    lab.connect()
    repeated(lab, "check1")  # as the broker keeps it
    assert gone(lab.later(limits.OFFLINE_AFTER_S - 1.0)) == []
    assert gone(lab.later(1.0)) == ["grader"]


def test_the_60_s_count_on_after_a_restart(lab: Lab) -> None:
    lab.device(3, analysis="check1")
    lab.later(40.0)
    lab.coordinator.write_down()
    lab.restart()
    assert left(lab) == pytest.approx(limits.UNOFFERED_S - 40.0)
    lab.later(limits.UNOFFERED_S - 39.0)
    assert lab.record.state is State.REST


def test_one_that_was_there_before_a_restart_is_waited_for_from_then_on(lab: Lab) -> None:
    offer(lab, "check1")
    lab.device(3, analysis="check1")
    lab.later(100.0)
    lab.restart()
    assert left(lab) == pytest.approx(limits.UNOFFERED_S)
    offer(lab, "check1")
    assert told(lab)["no_analysis"] is None


def test_only_time_of_connection_counts(lab: Lab) -> None:
    lab.device(3, analysis="check1")
    lab.disconnect()
    lab.later(1_000.0)
    lab.connect()
    assert lab.record.state is State.RETURNED
    assert left(lab) == pytest.approx(limits.UNOFFERED_S)


def test_of_whom_the_broker_keeps_nothing_any_more_is_forgotten_after_a_connect(lab: Lab) -> None:
    offer(lab, "check1")
    offer(lab, "check2", analyst="second")
    lab.device(3, analysis="check1")
    lab.disconnect()
    lab.connect()
    offer(lab, "check2", analyst="second")
    assert told(lab)["no_analysis"] is None
    wait = lab.coordinator.wait()
    assert wait is not None
    assert wait <= 10.0
    assert status(lab.later(10.0))["no_analysis"] == NOBODY
    assert set(lab.coordinator.analysts.offers) == {"second"}


@pytest.mark.parametrize(
    ("analyst", "payload"),
    [("grader", b"?"), ("grader", b'{"online": true, "analysers": {"outcome": "1"}}'),
     ("grader", b'{"online": true, "analysers": {"A": "1"}}'), ("a b", b'{"online": true}'),
     ("grader", b'{"online": true, "more": "' + b"x" * limits.MAX_OFFER + b'"}'),
     ("grader", encode_offer(Offer(True, {f"a{n}": "1" for n in range(1_001)}, 0.0)))],
)  # fmt: skip
def test_what_is_wrong_is_not_heard_and_counted(
    lab: Lab, analyst: str, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    offer(lab, "check1")
    lab.hear(f"analysts/{analyst}", payload, user="@hwsync")
    assert lab.coordinator.analysts.refused == 1
    assert ("check1" in lab.coordinator.analysts.offered) is (analyst != "grader")
    assert "an analyst is not heard" in caplog.text
    assert lab.rows("refused") == []


def test_so_many_analysts_are_heard(lab: Lab) -> None:
    for number in range(limits.MAX_ANALYSTS + 1):
        offer(lab, f"check{number}", analyst=f"a{number}")
    analysts = lab.coordinator.analysts
    assert (len(analysts.offers), analysts.refused) == (limits.MAX_ANALYSTS, 1)
    offer(lab, analyst="a0", online=False)
    offer(lab, "check100", analyst="a100")
    assert "check100" in analysts.offered
