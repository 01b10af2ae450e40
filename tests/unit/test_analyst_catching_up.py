"""What an analyst asks of the past: which boards, how fast, and how much at a time."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.analyst import catching_up
from hwsync.analyst.catching_up import AGAIN_S, AT_ONCE, CatchingUp
from hwsync.analyst.work import Work
from hwsync.operator.conversation import Conversation
from hwsync.operator.history import Answers
from hwsync.operator.switchboard import Switchboard
from hwsync.protocol.errors import Code
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.topics import Topics
from hwsync.transport import Delivery
from tests.unit.test_operator_history import ROW

STEP_S = 0.25


class Past:
    """The switchboard, a clock that stands still, and whoever answers."""

    def __init__(self, *, most: int = 1_000, back_s: float = 100.0) -> None:
        self.now = 0.0
        self.asked: list[tuple[str, dict[str, Any]]] = []  # board and question
        self.work = Work(most)
        self._board = Switchboard(lambda _: None, monotonic=lambda: self.now)
        self.catching_up = CatchingUp(
            self._board, self._converse, Answers(None), self.work, back_s
        )  # fmt: skip

    def _converse(self, user: str) -> Conversation:
        return Conversation(Topics(), user, self._say, monotonic=lambda: self.now)

    def _say(self, topic: str, payload: bytes) -> None:
        _, user, *kind = topic.split("/")
        assert kind == ["history", "all"]
        self.asked.append((user, loads(payload.decode())))

    def pass_by(self, seconds: float) -> None:
        """So much time, in small steps."""
        end = self.now + seconds
        while self.now < end:
            self.catching_up.go_on(self.now)
            self.now += STEP_S
            if self._board.patience <= 0.0:
                self._board.hear(None)
        self.catching_up.go_on(self.now)

    def answer(self, *ids: str, after: int | None = None, **changes: Any) -> None:
        """The last question."""
        user, question = self.asked[-1]
        rows = [{**ROW, "verdicts": [], **changes, "id": id} for id in ids]
        page = {"user": user, "all": True, "time": 1.0, "rows": rows, "after": after}
        self._hear(question, page)

    def refuse(self) -> None:
        _, question = self.asked[-1]
        self._hear(question, {"error": str(Code.BAD_PAYLOAD), "message": "no", "hint": "",
                              "topic": "", "id": None, "journal": None})  # fmt: skip

    def _hear(self, question: dict[str, Any], fields: dict[str, Any]) -> None:
        self._board.hear(Delivery(question["reply"], dumps(fields).encode(), 1, False, False, 1, 1))

    def found(self) -> list[str]:
        """The ids of all tasks that wait."""
        tasks = iter(lambda: self.work.next(self.now, {"check1", "check2"}), None)
        return [task.id for task in tasks]


def test_what_has_not_been_judged_is_asked_for_each_analyser() -> None:
    past = Past()
    past.catching_up.look_at(["pi1"], {"check2", "check1"})
    past.pass_by(2.0)
    user, question = past.asked[-1]
    del question["reply"]
    assert (user, question) == ("pi1", {
        "since": -100.0, "last": 100, "analyser": "check1", "judged": False,
        "outcome": ["ok", "error", "timeout", "killed", "cancelled"],
    })  # fmt: skip


def test_its_rows_become_tasks_but_for_the_labs_own_failures() -> None:
    past = Past()
    past.catching_up.look_at(["pi1"], {"check1"})
    past.pass_by(2.0)
    past.answer("b", "a", after=7)
    past.pass_by(2.0)
    assert past.asked[-1][1]["after"] == 7
    past.answer("z", outcome="cancelled", ran="no")
    assert past.found() == ["b", "a"]


def test_a_few_boards_at_a_time_and_each_not_too_often() -> None:
    past = Past()
    past.catching_up.look_at([f"pi{number}" for number in range(5)], {"check1"})
    past.pass_by(1.75)
    assert len({user for user, _ in past.asked}) == AT_ONCE
    for _ in range(5):
        past.answer()
        past.pass_by(2.0)
    before = {user for user, _ in past.asked}
    past.catching_up.look_at(sorted(before), {"check1"})
    count = len(past.asked)
    first = past.asked[-1][0]
    past.pass_by(1.0)
    assert past.asked[count:] == [] or past.asked[count][0] != first
    past.pass_by(AGAIN_S + 3.0)
    assert len(past.asked) > count


def test_no_more_is_read_than_there_is_room_for() -> None:
    past = Past(most=2)
    past.catching_up.look_at(["pi1", "pi2"], {"check1"})
    past.pass_by(2.0)
    past.asked = [one for one in past.asked if one[0] == "pi1"]
    past.answer("c", "b", after=7)
    count = len(past.asked)
    past.pass_by(5.0)
    assert not [one for one in past.asked[count:] if "after" in one[1]]
    for id in past.found():
        past.work.done(("pi1", id))
    past.pass_by(2.0)
    assert [one for one in past.asked[count:] if one[1].get("after") == 7]


def test_nobody_answers_and_it_is_asked_again_later() -> None:
    past = Past()
    past.catching_up.look_at(["pi1"], {"check1"})
    past.pass_by(40.0)
    assert past.work.missed == {"pi1"}
    count = len(past.asked)
    past.catching_up.look_at(past.work.missed, {"check1"})
    past.pass_by(AGAIN_S)
    assert len(past.asked) > count


def test_a_refusal_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    past = Past()
    for user in ("pi1", "pi2"):
        past.catching_up.look_at([user], {"check1"})
        past.pass_by(2.0)
        past.refuse()
        past.pass_by(1.0)
    assert caplog.text.count("the history cannot be asked: no") == 1
    assert past.work.missed == set()


def test_so_many_of_one_board_and_then_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catching_up, "MOST", 2)
    past = Past()
    past.catching_up.look_at(["pi1"], {"check1"})
    past.pass_by(2.0)
    past.answer("b", "a", after=7)
    past.pass_by(2.0)
    assert len(past.asked) == 1
    assert past.work.missed == {"pi1"}


def test_nothing_is_asked_where_nobody_wants_it() -> None:
    past = Past(back_s=0.0)
    past.catching_up.look_at(["pi1"], {"check1"})
    past.pass_by(3.0)
    past = Past()
    past.catching_up.look_at(["pi1"], set())
    past.pass_by(3.0)
    assert past.asked == []
