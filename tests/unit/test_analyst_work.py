"""What an analyst judges next: what statuses ask for, what is put off, what does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.analyst.work import AGAIN_FIRST_S, Task, Work, task_of
from hwsync.protocol.jsons import dumps
from hwsync.protocol.wire.analyst import encode_offer, read_offer

OFFERED = {"check1"}


def status(id: str = "c1", state: int = 3, **changes: Any) -> dict[str, Any]:
    ended = {"outcome": "ok", "ran": "yes", "server_analysis": "", "analysed_by": None}
    return {"id": id, "state": state, "analyser": "check1", **ended, **changes}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (status(), True),
        (status(outcome="lost", ran="maybe"), True),  # it holds the board up
        (status(state=0), True),  # its deadline came first
        (status(state=0, server_analysis="good"), False),
        (status(state=0, analysed_by={"name": "check1", "version": "1"}), False),
        (status(state=0, outcome="lost", ran="maybe"), False),
        (status(state=0, outcome="cancelled", ran="no"), False),
        (status(state=2, outcome=None), False),
        (status(state=1, outcome=None), False),
        (status(analyser="manual"), False),
        (status(analyser="outcome"), False),
        (status(analyser=None), False),
        (status(id="no id"), False),
    ],
)
def test_what_a_status_asks_of_an_analyst(fields: dict[str, Any], wanted: bool) -> None:
    assert (task_of("pi1", fields) == Task("pi1", "c1", "check1")) is wanted


def test_a_coordinator_of_before_asks_nothing() -> None:
    fields = status()
    del fields["analyser"], fields["analysed_by"]
    assert task_of("pi1", fields) is None


def test_who_waits_comes_before_the_past_and_each_is_given_once() -> None:
    work = Work()
    work.offer(Task("pi1", "old", "check1"))
    work.hear("pi2", status("new"), OFFERED)
    assert len(work) == 2
    assert work.next(0.0, OFFERED) == Task("pi2", "new", "check1")
    work.hear("pi2", status("new"), OFFERED)  # said again
    assert work.next(0.0, OFFERED, {"pi2"}) == Task("pi1", "old", "check1")
    work.offer(Task("pi1", "old", "check1"))
    assert work.next(0.0, OFFERED) is None
    work.done(("pi2", "new"))
    work.done(("pi1", "old"))
    assert work.next(0.0, OFFERED) is None


def test_a_busy_board_and_an_analyser_that_is_not_there_are_passed_over() -> None:
    work = Work()
    work.hear("pi1", status(), OFFERED)
    work.hear("pi2", status(analyser="check2"), OFFERED)
    assert work.next(0.0, OFFERED, {"pi1"}) is None
    assert work.next(0.0, {"check2"}) == Task("pi2", "c1", "check2")


def test_what_was_answered_otherwise_is_no_task_any_more() -> None:
    work = Work()
    work.hear("pi1", status(), OFFERED)
    work.hear("pi1", status(state=0, server_analysis="by hand"), OFFERED)
    assert work.next(0.0, OFFERED) is None
    work.hear("pi1", status(), OFFERED)
    work.hear("pi1", status("c2", 1, outcome=None), OFFERED)
    assert work.next(0.0, OFFERED) is None


def test_one_that_failed_is_tried_again_after_a_pause_that_grows() -> None:
    work = Work()
    work.hear("pi1", status(), OFFERED)
    now = 0.0
    for pause in (AGAIN_FIRST_S, 2 * AGAIN_FIRST_S):
        task = work.next(now, OFFERED)
        assert task is not None
        work.put_off(task.key, now)
        assert work.until(now) == now + pause
        assert work.next(now + pause - 0.1, OFFERED) is None
        now += pause
    assert work.next(now, OFFERED) is not None


def test_of_the_past_it_is_found_again_by_the_history() -> None:
    work = Work()
    work.offer(Task("pi1", "old", "check1"))
    assert work.next(0.0, OFFERED)
    work.put_off(("pi1", "old"), 0.0)
    assert work.missed == {"pi1"}
    assert work.next(100.0, OFFERED) is None
    assert work.until(0.0) is None


def test_so_many_of_the_past_wait_and_the_others_are_found_again() -> None:
    work = Work(most=1)
    assert work.has_room
    work.offer(Task("pi1", "a", "check1"))
    assert not work.has_room
    work.offer(Task("pi1", "a", "check1"))
    assert work.missed == set()
    work.offer(Task("pi2", "b", "check1"))
    assert work.missed == {"pi2"}
    work.forget_those_of({"check2"})
    assert work.has_room


def test_what_nobody_here_offers_takes_no_place_of_the_past() -> None:
    work = Work(most=1)
    work.hear("pi1", status(state=0, analyser="elsewhere"), OFFERED)
    assert work.has_room
    work.hear("pi1", status(state=0), OFFERED)
    assert work.next(0.0, OFFERED) == Task("pi1", "c1", "check1")


@pytest.mark.parametrize("said", [["check2"], "check2", [7], None, [], ["other"]], ids=str)
def test_what_is_broken_is_for_people_and_spoils_nothing(said: object) -> None:
    fields = {"online": True, "analysers": {"check1": "a", "check2": "b"}, "broken": said}
    offer = read_offer(dumps(fields).encode())
    assert offer.analysers == {"check1": "a", "check2": "b"}
    assert offer.broken == (("check2",) if said == ["check2"] else ())
    assert read_offer(encode_offer(offer)) == offer
