"""Questions about what was run, at the coordinator: by another thread, whatever the disk does."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hwsync.coordinator.histories import Histories
from hwsync.protocol import limits
from hwsync.protocol.jsons import loads
from hwsync.protocol.wire.history import Page, encode_question, read_page
from hwsync.transport import Delivery, Signal, Subscribed
from tests.support.coordinator import COLLECTED, Lab, Sent, change, request, result
from tests.support.waiting import wait_until


class Asked:
    def __init__(self, lab: Lab) -> None:
        self.lab, self.woken = lab, threading.Event()
        self.histories = Histories(lab.coordinator, lab.path, lab.clock, self.woken.set)

    def ask(self, *, user: str = "pi1", kind: str = "history", reply: str = "replies/anna/1",
            retain: bool = False, **keys: Any) -> list[Sent]:  # fmt: skip
        """What was published for one question, a second after the one before."""
        self.lab.clock.now += 1.0
        return self.ask_now(self.question(user, kind, reply, retain=retain, **keys))

    @staticmethod
    def question(user: str = "pi1", kind: str = "history", reply: str = "replies/anna/1", *,
                 retain: bool = False, **keys: Any) -> Delivery:  # fmt: skip
        payload = encode_question({**keys, "reply": reply})
        return Delivery(f"hw/{user}/{kind}", payload, 0, retain, False, 0, 1)

    def ask_now(self, *signals: Signal, pages: int = 1) -> list[Sent]:
        self.lab.wire.deeds = []
        assert self.histories.take(signals) == []
        for _ in range(pages):
            if not self.lab.wire.deeds:
                wait_until(lambda: self.histories.has_found)
                assert self.woken.is_set()
                self.histories.say()
        return [deed for deed in self.lab.wire.deeds if isinstance(deed, Sent)]

    def page(self, **options: Any) -> Page:
        (said,) = self.ask(**options)
        page = read_page(said.payload)
        assert page is not None, said
        return page

    def ids(self, **options: Any) -> list[str]:
        return [row["id"] for row in self.page(**options)["rows"]]


@pytest.fixture
def asked(lab: Lab) -> Iterator[Asked]:
    made = Asked(lab)
    yield made
    made.histories.close()


def run(lab: Lab, id: str, *, by: str | None = None, user: str = "pi1", claim: str | None = None,
        **keys: Any) -> None:  # fmt: skip
    meta = {"meta": {"by": claim}} if claim else {}
    reply = {"reply_topic": f"replies/{by}/x"} if by else {}
    delivery = lab.delivery("request", request(id, **meta, **keys), user=user)
    lab.step(Delivery(delivery.topic, delivery.payload, 1, False, False, delivery.mid, 1, **reply))
    lab.hear("collected", COLLECTED.replace(b"c1", id.encode()), user=user)
    lab.hear("response", result(id, response="hello\nworld\n"), user=user)
    lab.hear("analysis", b"right", user=user)


def test_each_sees_his_own_and_who_may_ask_for_all_sees_all(lab: Lab, asked: Asked) -> None:
    run(lab, "a1", by="anna")
    run(lab, "b1", by="bert")
    run(lab, "a2", by="anna")
    run(lab, "false", claim="anna")
    run(lab, "other", by="anna", user="pi2")
    assert asked.ids() == ["a2", "a1"]
    assert asked.ids(reply="replies/bert/1") == ["b1"]
    assert asked.ids(reply="replies/carl/1") == []
    assert asked.ids(kind="history/all") == ["false", "a2", "b1", "a1"]
    assert asked.ids(user="pi2") == ["other"]
    assert asked.ids(user="pi3") == []
    assert asked.ids(id="b1") == []
    assert asked.ids(kind="history/all", id="b1") == ["b1"]


def test_a_row_says_how_it_was(lab: Lab, asked: Asked) -> None:
    run(lab, "a1", by="anna", name="blink.py", meta={"course": "1b"})
    lab.hear("request", request("a2"))
    open, ended = asked.page(kind="history/all")["rows"]
    assert open["state"] == 1
    assert (open["outcome"], open["ran"], open["by"], open["line"]) == (None, None, None, "")
    assert ended == {
        "id": "a1", "number": 1, "state": 0, "issued": ended["issued"], "by": "anna",
        "known_by": "reply topic", "name": "blink.py", "outcome": "ok", "ran": "yes", "reason": "",
        "exit_code": 0, "started": None, "duration": None, "files": [], "analysis": "right",
        "meta": '{"course":"1b"}', "line": "hello", "analyser": "manual", "no_analysis": None,
        "verdicts": [{"name": None, "version": None, "fault": None, "passed": None, "score": None,
                      "message": "right", "time": None}],
        "clock_bound": None, "ran_on": None,
    }  # fmt: skip


def test_the_answer_goes_to_its_topic_with_the_correlation(lab: Lab, asked: Asked) -> None:
    lab.clock.now += 1.0
    question = Delivery("hw/pi1/history", b"", 0, False, False, 0, 1,
                        reply_topic="replies/anna", correlation=b"7")  # fmt: skip
    (said,) = asked.ask_now(question)
    assert (said.topic, said.correlation, said.retain) == ("replies/anna", b"7", False)
    (said,) = asked.ask()
    assert said.topic == "replies/anna/1"


def test_pages_by_the_cursor_have_each_once_also_where_more_come_meanwhile(
    lab: Lab, asked: Asked
) -> None:
    for number in range(7):
        run(lab, f"a{number}", by="anna")
    page = asked.page(last=3)
    told = [row["id"] for row in page["rows"]]
    run(lab, "later", by="anna")
    while page["after"] is not None:
        page = asked.page(last=3, after=page["after"])
        told += [row["id"] for row in page["rows"]]
    assert told == [f"a{number}" for number in range(6, -1, -1)]


def test_times_are_the_coordinators_and_no_jump_of_its_clock_hides_a_run(
    lab: Lab, asked: Asked
) -> None:
    for id, jump in (("now", 0.0), ("past", -900_000.0), ("again", 0.0)):
        lab.clock.jump = jump
        run(lab, id, by="anna")
    assert asked.ids() == ["again", "past", "now"]
    assert asked.ids(since=-3_600.0) == ["again", "now"]
    assert asked.ids(until=-3_600.0) == ["past"]
    assert asked.ids(since=lab.clock.wall() + 1) == []
    assert asked.ids(since=-3_600.0, last=1) == ["again"]


def test_two_questions_a_second_a_board_and_the_third_is_refused(lab: Lab, asked: Asked) -> None:
    lab.clock.now += 1.0
    said = asked.ask_now(*[asked.question() for _ in range(3)])
    assert [one.topic for one in said] == ["hw/pi1/error", "replies/anna/1"]
    assert [one.json["error"] for one in said] == ["busy", "busy"]
    assert "more than 2 questions a second about pi1" in said[0].json["message"]
    assert "second" in said[0].json["hint"]
    while len(lab.wire.deeds) < len(said) + 2:  # the first two may be answered one by one
        wait_until(lambda: asked.histories.has_found)
        asked.histories.say()
    assert asked.page()["rows"] == []  # a second later


def test_so_many_may_wait_of_all_boards(
    lab: Lab, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HISTORY_WAITING", 2)
    lab.clock.now += 1.0
    said = asked.ask_now(*[asked.question(f"pi{number}") for number in range(3)])
    assert [one.json["error"] for one in said] == ["busy", "busy"]
    assert "wait already" in said[0].json["message"]


def test_what_is_refused_is_said_to_the_board_and_to_the_asker(lab: Lab, asked: Asked) -> None:
    lab.hear("request", request("c1"))
    said = asked.ask(last=0)
    assert [one.topic for one in said] == ["hw/pi1/error", "replies/anna/1"]
    assert said[0].payload == said[1].payload
    assert said[0].json == {
        "error": "bad_payload", "message": "the question: 'last' must be 1 to 100",
        "hint": "'after' of a page asks for the next one", "topic": "hw/pi1/history", "id": None,
        "journal": None, "state": 1,
    }  # fmt: skip
    assert [one.topic for one in asked.ask(reply="elsewhere")] == ["hw/pi1/error"]
    assert [one.json["error"] for one in asked.ask(retain=True)] == ["retained", "retained"]
    assert lab.coordinator.counts["history_refused"] == 3
    assert lab.rows("refused") == []


def test_nothing_is_stored_for_it_and_other_signals_pass_in_their_order(
    lab: Lab, asked: Asked
) -> None:
    run(lab, "a1", by="anna")
    before = lab.rows("transitions"), lab.rows("hw_status"), lab.rows("packets")
    others = [Subscribed(), lab.delivery("query"), lab.delivery("clock")]
    assert asked.histories.take([others[0], asked.question(), *others[1:]]) == others
    wait_until(lambda: asked.histories.has_found)
    asked.histories.say()
    assert (lab.rows("transitions"), lab.rows("hw_status"), lab.rows("packets")) == before
    cleared = Delivery("hw/pi1/history", b"", 0, True, False, 0, 1)
    assert asked.histories.take([cleared]) == []
    assert asked.histories.take([asked.question()], serving=False) == []
    assert not asked.histories.has_found


def test_it_is_answered_while_nothing_can_be_saved(
    lab: Lab, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(lab, "a1", by="anna")

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("hwsync.store.store.writes", full)
    lab.hear("request", request("a2"))
    assert lab.coordinator.failure
    assert asked.ids() == ["a1"]


def test_what_cannot_be_read_is_said_and_read_again_once_it_can(lab: Lab, asked: Asked) -> None:
    run(lab, "a1", by="anna")
    assert asked.ids() == ["a1"]
    change(lab.path, "ALTER TABLE contents RENAME TO elsewhere")
    said = asked.ask()
    assert [one.json["error"] for one in said] == ["degraded", "degraded"]
    assert "cannot be read now" in said[0].json["message"]
    change(lab.path, "ALTER TABLE elsewhere RENAME TO contents")
    assert asked.ids() == ["a1"]


def test_a_reader_that_waits_holds_no_round_up(lab: Lab, asked: Asked) -> None:
    """A page that is read now, however slowly, and rounds go on."""
    run(lab, "a1", by="anna")
    reading, on = threading.Event(), threading.Event()
    wall = lab.clock.wall

    def slow() -> float:
        if threading.current_thread().name == "history":
            reading.set()
            assert on.wait(30.0)
        return wall()

    lab.clock.wall = slow  # type: ignore[method-assign]
    lab.clock.now += 1.0
    assert asked.histories.take([asked.question()]) == []
    assert reading.wait(30.0)
    run(lab, "a2", by="anna")
    assert lab.record.seq == 8
    on.set()
    wait_until(lambda: asked.histories.has_found)
    lab.wire.deeds = []
    asked.histories.say()
    (said,) = [deed for deed in lab.wire.deeds if isinstance(deed, Sent)]
    assert [row["id"] for row in loads(said.payload.decode())["rows"]] == ["a2", "a1"]


def test_at_the_end_the_page_that_is_read_is_the_last(lab: Lab, asked: Asked) -> None:
    """What would be woken is closed then, and its descriptor may be somebody else's."""
    reading, on = threading.Event(), threading.Event()

    def slow() -> float:
        if threading.current_thread().name == "history":
            reading.set()
            assert on.wait(30.0)
        return 0.0

    lab.clock.wall = slow  # type: ignore[method-assign]
    lab.clock.now += 1.0
    assert asked.histories.take([asked.question(f"pi{number}") for number in range(5)]) == []
    assert reading.wait(30.0)
    (thread,) = (one for one in threading.enumerate() if one.name == "history")
    ending = threading.Thread(target=asked.histories.close)
    ending.start()
    wait_until(lambda: asked.histories._ends)
    on.set()
    ending.join()
    assert not thread.is_alive()
    assert not asked.woken.is_set()
    assert not asked.histories.has_found
