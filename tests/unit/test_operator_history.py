"""An operator's questions about the past, without a network: which are asked, what answers them."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.operator.filters import Filters
from hwsync.operator.history import Answers, reading
from hwsync.protocol.errors import Code, NoCoordinator, Refused
from hwsync.protocol.jsons import dumps, loads
from hwsync.transport import Delivery, Denied, Signal
from tests.support.operator_line import Line

ROW = {
    "id": "c1", "number": 1, "state": 0, "issued": 1.0, "by": "anna", "known_by": "reply topic",
    "name": "a.py", "outcome": "ok", "ran": "yes", "reason": "", "exit_code": 0, "started": None,
    "duration": 1.0, "files": [], "analysis": "", "meta": "{}", "line": "",
}  # fmt: skip


class Asked:
    """A talk that goes on, and what it sent: (kind, question)."""

    def __init__(self, account: str | None = "anna", **filters: Any) -> None:
        self.line, self.answers = Line(), Answers(account)
        self.talk = reading(self.line.conversation, self.answers, Filters(**filters))
        self.waits = next(self.talk)
        self.rows: list[str] | None = None

    def sent(self) -> list[tuple[str, dict[str, Any]]]:
        """Since the last time."""
        said, self.line.messages[:] = list(self.line.messages), []
        return [(topic.removeprefix("hw/pi1/"), loads(text.decode())) for topic, text in said]

    def hear(self, signal: Signal | None = None) -> None:
        if signal is None:
            self.line.now += self.waits
        try:
            self.waits = self.talk.send(signal)
        except StopIteration as end:
            self.rows = [row["id"] for row in end.value]

    def page(self, to: str, *ids: str, after: int | None = None, everybody: bool = False,
             user: str = "pi1") -> None:  # fmt: skip
        rows = [ROW | {"id": id} for id in ids]
        fields = {"user": user, "all": everybody, "time": 1.0, "rows": rows, "after": after}
        self.hear(Delivery(to, dumps(fields).encode(), 1, False, False, 1, 1))

    def error(self, to: str, code: Code) -> None:
        fields = {"error": code, "message": "no", "hint": "", "topic": "", "id": None,
                  "journal": None}  # fmt: skip
        self.hear(Delivery(to, dumps(fields).encode(), 1, False, False, 1, 1))


def test_who_may_ask_for_everybodys_hears_of_everybodys(  # and asks for nothing else from then on
) -> None:
    asked = Asked()
    (all_kind, everybodys), (own_kind, own) = asked.sent()
    assert (all_kind, own_kind) == ("history/all", "history")
    assert everybodys["reply"].startswith("replies/anna/")
    assert everybodys["reply"] != own["reply"]
    asked.page(everybodys["reply"], "b2", "a1", after=7, everybody=True)
    asked.page(own["reply"], "a1")  # of no interest any more
    asked.hear()
    ((kind, question),) = asked.sent()
    assert (kind, question["after"]) == ("history/all", 7)
    asked.page(question["reply"], "a0", everybody=True)
    assert asked.rows == ["b2", "a1", "a0"]


def test_who_hears_of_his_own_first_may_not() -> None:
    asked = Asked()
    _, (_, own) = asked.sent()
    asked.page(own["reply"], "a2", after=3)
    asked.hear()
    ((kind, question),) = asked.sent()
    assert (kind, question["after"]) == ("history", 3)
    asked.page(question["reply"], "a1")
    assert asked.rows == ["a2", "a1"]
    assert asked.answers.everybody is False


def test_a_broker_of_mqtt_5_says_that_he_may_not() -> None:
    asked = Asked()
    _, (_, own) = asked.sent()
    asked.hear(Denied("hw/pi1/history/all", "Not authorized"))
    assert asked.answers.everybody is False
    asked.page(own["reply"], "a1")
    assert asked.rows == ["a1"]
    asked = Asked()
    _, (_, own) = asked.sent()
    asked.answers.everybody = False  # as another board's question has learned meanwhile
    asked.hear(Denied("hw/pi1/history/all", "Not authorized"))
    asked.page(own["reply"], "a1")
    assert asked.rows == ["a1"]
    asked = Asked()
    with pytest.raises(Refused, match="does not let us publish for pi1"):
        asked.hear(Denied("hw/pi1/history", "Not authorized"))


def test_without_an_account_there_is_nothing_to_find_out() -> None:
    for account in (None, "anna@school"):
        asked = Asked(account)
        ((kind, question),) = asked.sent()
        assert kind == "history/all"
        assert question["reply"].startswith("replies/anybody/")


def test_so_many_are_asked_for_as_are_wanted(  # page by page, a hundred each
) -> None:
    asked = Asked(None, last=102, name="a*", since=-5.0, outcome=("ok",), meta={"a": "1"}, by="b")
    ((_, question),) = asked.sent()
    reply = question.pop("reply")
    assert question == {"last": 100, "name": "a*", "since": -5.0, "outcome": ["ok"],
                        "meta": {"a": "1"}, "by": "b"}  # fmt: skip
    asked.page(reply, *(f"c{number}" for number in range(100)), after=9, everybody=True)
    asked.hear()
    ((_, question),) = asked.sent()
    assert (question["last"], question["after"]) == (2, 9)
    asked.page(question["reply"], "x", "y", after=7, everybody=True)
    assert asked.rows is not None
    assert len(asked.rows) == 102


def test_it_is_asked_again_until_it_is_answered() -> None:
    asked = Asked(None)

    def for_ever() -> None:
        while True:
            asked.hear()

    with pytest.raises(NoCoordinator, match="nobody has answered what was run on pi1"):
        for_ever()
    questions = asked.sent()
    assert 4 <= len(questions) <= 8
    assert len({question["reply"] for _, question in questions}) == len(questions)


def test_one_that_is_busy_is_asked_again_and_own_ones_are_no_answer_then() -> None:
    asked = Asked()
    (_, everybodys), (_, own) = asked.sent()
    asked.error(everybodys["reply"], Code.BUSY)
    asked.page(own["reply"], "a1")
    assert asked.rows is None
    asked.hear()
    (_, everybodys), _ = asked.sent()
    asked.page(everybodys["reply"], "b1", "a1", everybody=True)
    assert asked.rows == ["b1", "a1"]


def test_what_is_refused_is_raised() -> None:
    asked = Asked(None)
    ((_, question),) = asked.sent()
    with pytest.raises(Refused, match="no"):
        asked.error(question["reply"], Code.BAD_PAYLOAD)


def test_what_is_no_answer_is_passed_over() -> None:
    asked = Asked(None)
    ((_, question),) = asked.sent()
    asked.page("replies/anybody/elsewhere", "x", everybody=True)
    asked.page(question["reply"], "x", everybody=True, user="pi2")
    asked.hear(Delivery(question["reply"], b"{}", 1, False, False, 1, 1))
    assert asked.rows is None
    asked.page(question["reply"], "a1", everybody=True)
    assert asked.rows == ["a1"]
