"""The loop of an analyst beside a real coordinator, without a network: who says what, and when."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from hwsync.analysers import Run
from hwsync.analysers.engine import Judgement
from hwsync.analysers.folder import Analyser, Folder
from hwsync.analyst.life import Life, Process, Setup
from hwsync.notify import Notifier
from hwsync.operator.history import Answers
from hwsync.protocol.record import State
from hwsync.protocol.topics import Topics
from hwsync.protocol.wire.analyst import GONE, Offer, encode_offer
from hwsync.protocol.wire.response import encode_collected
from hwsync.testing.port import ADDRESS
from hwsync.transport import Delivery, Signal, Subscribed
from tests.support.coordinator import Lab, Sent, request, result

CHECK = Analyser("check1", "0123456789ab")


class OneFolder(Folder):
    def __init__(self) -> None:
        super().__init__(Path("analysers"))

    def scan(self) -> dict[str, Analyser]:
        return {CHECK.name: CHECK}


class Beside(Life):
    """Its analyser runs at once; what it publishes is carried by hand (``said``)."""

    connection, url = 1, ADDRESS

    def __init__(self, lab: Lab) -> None:
        here = cast("Any", self)
        setup = Setup("analyst", Topics(), ADDRESS, at_once=1, back_s=0.0)
        parts = Process(here, here, Notifier({}))
        self.lab, self.said, self.runs = lab, list[tuple[str, bytes]](), list[Run]()
        super().__init__(setup, OneFolder(), here, here, Answers(None), parts, lab.clock.monotonic)
        self.begin()
        self.hear(Subscribed())

    def _elsewhere(self, judge: Callable[[], None]) -> None:
        judge()

    def wake(self) -> None:
        pass

    def acknowledge(self, delivery: Delivery) -> None:
        pass

    def judge(self, analyser: Analyser, run: Run) -> Judgement:
        self.runs.append(run)
        return Judgement(analyser.name, analyser.version, {"passed": run.stdout == "42\n"})

    def publish(self, topic: str, payload: bytes, **_: Any) -> bool:
        self.said.append((topic, payload))
        return True

    def hear(self, *signals: Signal) -> None:
        """And do what can be done without waiting."""
        self.turn(signals)
        self.turn(())

    def tell(self, *kinds: str) -> None:
        """Bring what it has said to the coordinator, of these kinds, and back what that says."""
        said, self.said = self.said, []
        for topic, payload in said:
            _, user, kind = topic.split("/", 2)
            if not kinds or kind in kinds:
                self.bring(kind, payload, user)
            else:
                self.said.append((topic, payload))

    def bring(self, kind: str, payload: bytes, user: str = "pi1") -> None:
        """A message of anybody's, and what the coordinator says then."""
        deeds = self.lab.hear(kind, payload, user=user)
        self.hear(*(Delivery(one.topic, one.payload, 1, False, False, 1, 1)
                    for one in deeds if isinstance(one, Sent)))  # fmt: skip


@pytest.fixture
def analyst(lab: Lab) -> Beside:
    analyst = Beside(lab)
    analyst.tell()
    return analyst


def test_a_verdict_of_an_end_that_was_corrected_meanwhile_is_given_anew(
    lab: Lab, analyst: Beside
) -> None:
    analyst.bring("request", request("c1", analysis="check1", timeout=1.0, grace=1.0))
    analyst.bring("collected", encode_collected("c1", "j1", 1))
    lab.later(3.0)
    assert lab.record.state is State.RETURNED
    analyst.bring("query", b"")
    analyst.tell("query")
    (topic, payload), *_ = analyst.said
    said = json.loads(payload)
    assert (topic, said["outcome"], said["ran"]) == ("hw/pi1/analysis", "lost", "maybe")
    assert analyst.runs == []
    analyst.bring("response", result("c1", response="42\n"))  # before the verdict arrives
    analyst.tell("analysis")
    assert lab.record.state is State.RETURNED
    for _ in range(3):
        analyst.tell()
    assert [run.stdout for run in analyst.runs] == ["42\n"]
    assert lab.record.state is State.REST
    assert lab.record.current is not None
    assert lab.record.current.analysis == '{"passed":true}'


def offers(analyst: Beside) -> list[bool]:
    """Whether it was said that it is there and says so again, each time since the last look."""
    said = [json.loads(payload) for topic, payload in analyst.said if "/analysts/" in topic]
    analyst.said.clear()
    assert all(one["online"] for one in said)
    return [one.get("repeats", False) for one in said]


def test_what_is_offered_is_said_again_and_again(lab: Lab, analyst: Beside) -> None:
    analyst.repeat()
    for wait, expected in ((29.5, []), (0.5, [True]), (29.5, []), (0.5, [True])):
        lab.clock.now += wait
        analyst.say_again(lab.clock.monotonic())
        assert offers(analyst) == expected


def test_who_is_said_to_have_gone_says_at_once_that_he_has_not(lab: Lab, analyst: Beside) -> None:
    """A coordinator that was held up for long takes everybody for silent."""
    analyst.repeat()
    topic = "hw/@hwsync/analysts/analyst"
    for payload in (encode_offer(GONE), b""):
        analyst.hear(Delivery(topic, payload, 1, True, False, 1, 1))
        lab.clock.now += 1.0
        analyst.say_again(lab.clock.monotonic())
        assert offers(analyst) == [True]
    analyst.hear(Delivery(topic, encode_offer(Offer(True, {})), 1, True, False, 1, 1))
    lab.clock.now += 1.0
    analyst.say_again(lab.clock.monotonic())
    assert offers(analyst) == []
