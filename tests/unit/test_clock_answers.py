"""A board asks what time it is: the answer, who gets none, and that nothing waits for it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from hwsync.coordinator.clock_answers import ClockAnswers
from hwsync.protocol.jsons import loads
from hwsync.protocol.limits import CLOCK_PER_S
from hwsync.protocol.wire.clock import (
    encode_answer,
    encode_question,
    read_answer,
    read_question,
)
from hwsync.transport import Delivery, Subscribed
from tests.support.coordinator import Lab, request


class Wire:
    """What was answered, by topic; ``written``: how often it was to be written."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.written = 0

    def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> bool:
        assert qos == 0
        self.said.append((topic, loads(payload.decode())))
        return True

    def write(self) -> None:
        self.written += 1


class Asked:
    def __init__(self, lab: Lab) -> None:
        self.lab, self.wire = lab, Wire()
        self.answers = ClockAnswers(self.wire, lab.coordinator, lab.clock)

    def ask(self, *, user: str = "pi1", retain: bool = False, payload: bytes | None = None,
            ago_us: int = 0) -> list[tuple[str, dict[str, Any]]]:  # fmt: skip
        before = len(self.wire.said)
        payload = encode_question(7, 12_345) if payload is None else payload
        one = Delivery(f"hw/{user}/clock", payload, 0, retain, False, 0, 1)
        one = replace(one, read_us=self.lab.clock.raw_us() - ago_us)
        assert self.answers.take([one]) == []
        return self.wire.said[before:]


@pytest.fixture
def asked(lab: Lab) -> Asked:
    return Asked(lab)


def test_the_answer_has_both_moments_and_what_is_stored(asked: Asked) -> None:
    lab = asked.lab
    ((topic, said),) = asked.ask(ago_us=1_500)
    now = lab.coordinator.lab_time.us()
    life = lab.coordinator.lab_time.life
    assert topic == "hw/pi1/clock/reply"
    assert said == {
        "n": 7, "t0": 12_345, "t1": now - 1_500, "t2": now, "life": life, "seen": [0, 0],
    }  # fmt: skip
    assert now == round(lab.clock.wall() * 1e6)
    lab.hear("request", request())
    ((_, said),) = asked.ask()
    assert said["seen"] == [lab.record.epoch, lab.record.seq] == [0, 1]
    assert asked.wire.written == 2


def test_other_signals_pass_in_their_order_and_it_does_not_wait_for_a_commit(asked: Asked) -> None:
    lab = asked.lab
    one = lab.delivery("request", request())
    question = Delivery("hw/pi2/clock", encode_question(1, 2), 0, False, False, 0, 1)
    came = [Subscribed(), question, one, question]
    assert asked.answers.take(came) == [Subscribed(), one]
    assert [said["seen"] for _, said in asked.wire.said] == [[0, 0], [0, 0]]
    assert lab.coordinator.records == {}, "nothing was decided yet"


@pytest.mark.parametrize(
    "payload",
    [b"", b"x", b"[]", b"{}", b'{"n":1}', b'{"n":1,"t0":1.5}', b'{"n":-1,"t0":1}',
     b'{"n":1,"t0":9007199254740993}', b'{"n":true,"t0":1}', b"\xff"],
)  # fmt: skip
def test_what_is_no_question_is_passed_over(asked: Asked, payload: bytes) -> None:
    assert asked.ask(payload=payload) == []
    assert asked.lab.coordinator.counts["ignored"] == 1
    assert asked.lab.wire.deeds == []


def test_a_retained_question_and_one_of_nobody_are_not_heard(asked: Asked) -> None:
    assert asked.ask(retain=True) == []
    assert asked.ask(user="@lab1") == []
    assert asked.ask(user=".") == []


def test_too_many_in_a_second_are_dropped_and_counted_by_board(asked: Asked) -> None:
    counts = asked.lab.coordinator.counts
    for _ in range(CLOCK_PER_S):
        assert asked.ask()
    for _ in range(3):
        assert asked.ask() == []
    assert asked.ask(user="pi2")
    assert (counts["clock_answers"], counts["clock_dropped"]) == (CLOCK_PER_S + 1, 3)
    asked.lab.clock.now += 1.0
    assert asked.ask()


def test_nobody_is_answered_while_it_is_not_known_what_is_stored(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    lab = asked.lab
    with monkeypatch.context() as patch:
        patch.setattr("hwsync.store.store.writes", full)
        lab.hear("request", request())
    assert asked.ask() == []
    lab.clock.now += 1.0
    lab.step()
    ((_, said),) = asked.ask()
    assert said["seen"] == [0, 1]


def test_nobody_is_answered_while_another_one_may_serve(asked: Asked) -> None:
    question = Delivery("hw/pi1/clock", encode_question(1, 2), 0, False, False, 0, 1)
    assert asked.answers.take([question], serving=False) == []
    assert asked.wire.said == []


def test_a_life_that_has_ended_is_named_no_more(asked: Asked) -> None:
    ((_, before),) = asked.ask()
    asked.lab.clock.suspended = 1_000_000
    ((_, after),) = asked.ask()
    assert before["life"] != after["life"]


def test_a_question_and_an_answer_are_read_as_they_were_written() -> None:
    question = read_question(encode_question(2**53, 3))
    assert question == {"n": 2**53, "t0": 3}
    answer = read_answer(encode_answer(question, 4, 5, "a-life", (6, 7)))
    assert answer == {"n": 2**53, "t0": 3, "t1": 4, "t2": 5, "life": "a-life", "seen": [6, 7]}
    assert read_answer(b'{"n":1,"t0":1,"t1":1,"t2":1,"life":"","seen":[0,0]}') is None
    assert read_answer(b'{"n":1,"t0":1,"t1":1.5,"t2":1,"life":"a","seen":[0,0]}') is None
