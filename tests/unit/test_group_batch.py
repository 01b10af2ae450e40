"""A group's batch as an operator asks and follows it, without a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hwsync.operator.batch import Batch, answering, asking_one
from hwsync.operator.conversation import ANSWER_S
from hwsync.operator.run import LOOK_AGAIN_S, RunRequest
from hwsync.protocol.errors import Code, NoCoordinator, Refused
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.schema import Json
from hwsync.transport import Delivery, Signal
from tests.support.operator_line import Line, said
from tests.support.operator_line import error as error_of

GROUP = "@lab1"
FIELDS: Json = {
    "group": "lab1", "id": "b1", "epoch": 0, "seq": 1, "state": "open", "issued": 0.0,
    "ended": None, "counts": {"members": 1}, "members": {"pi1": {"state": 1}}, "spread": None,
}  # fmt: skip


def batch(kind: str = "status", **changes: Any) -> Delivery:
    return said(kind, FIELDS | changes, GROUP)


def error(code: Code, kind: str, id: str | None = None) -> Delivery:
    return error_of(code, kind, id, GROUP)


@pytest.fixture
def line() -> Line:
    return Line(GROUP)


def ask(line: Line, *signals: Signal | None) -> Json:
    talk = Batch(line.conversation, "b1").requesting(RunRequest(program="x", id="b1"))
    return dict(line.drive(talk, *signals))


def test_a_request_is_answered_by_the_status_of_its_id(line: Line) -> None:
    kept = replace(batch(), retain=True)  # of an earlier request with the same id, perhaps
    found = ask(line, kept, batch(id="b0"), batch("status", seq=2))
    assert found["seq"] == 2
    assert line.sent == ["request"]


def test_it_is_repeated_until_it_is_answered(line: Line) -> None:
    # One look more after 2 s: then a person is told for what he waits.
    assert ask(line, None, None, None, batch("result/b1"))["id"] == "b1"
    assert line.sent == ["request"] * 3
    with pytest.raises(NoCoordinator, match="b1 may still be accepted later") as raised:
        ask(line)
    assert "hwsync cancel @lab1 b1" in raised.value.hint


def test_a_refusal_is_raised_and_another_ones_is_not(line: Line) -> None:
    with pytest.raises(Refused) as raised:
        ask(line, error(Code.ID_REUSED, "request", "b0"), error(Code.BUSY, "cancel", "b1"),
            error(Code.ID_REUSED, "request", "b1"))  # fmt: skip
    assert raised.value.code is Code.ID_REUSED


def test_it_is_followed_to_its_end(line: Line) -> None:
    heard: list[str] = []
    talk = Batch(line.conversation, "b1").following(on_received=lambda one: heard.append(one.user))
    end = line.drive(talk, batch(), said("status", {}, "pi1"), batch(id="b2", state="ended"),
                     batch(state="ended"))  # fmt: skip
    assert end["state"] == "ended"
    assert line.sent == ["query"]
    assert heard == [GROUP] * 3


def test_who_is_silent_is_asked_again_and_given_up_in_the_end(line: Line) -> None:
    with pytest.raises(NoCoordinator, match="the batch b1 goes on"):
        line.drive(Batch(line.conversation, "b1").following(), batch())
    assert ANSWER_S / LOOK_AGAIN_S - 2 < len(line.sent) < ANSWER_S / LOOK_AGAIN_S + 2


def test_a_batch_that_is_not_known_is_none(line: Line) -> None:
    with pytest.raises(Refused):
        line.drive(Batch(line.conversation, "b1").following(),
                   error(Code.NOT_CURRENT, "query", "b1"))  # fmt: skip


def test_a_cancel_names_the_batch_and_is_said_again(line: Line) -> None:
    silence = [None] * int(LOOK_AGAIN_S * 2 + 2)
    end = line.drive(Batch(line.conversation, "b1").cancelling(), *silence, batch(state="ended"))
    assert end["state"] == "ended"
    assert set(line.messages) == {("hw/@lab1/cancel", b'{"id":"b1"}')}
    assert len(line.sent) > 1


def test_the_newest_batch_is_told_by_who_is_there_now(line: Line) -> None:
    kept = replace(batch(id="b0"), retain=True)
    assert line.drive(asking_one(line.conversation), kept, batch())["id"] == "b1"
    with pytest.raises(Refused):
        line.drive(asking_one(line.conversation), error(Code.NOT_CURRENT, "query"))


@pytest.mark.parametrize(
    "answer", [batch(id="whatever"), error(Code.NOT_CURRENT, "query")], ids=["one", "never one"]
)
def test_whatever_answers_the_query_behind_a_stop_all_came_after_it(
    line: Line, answer: Delivery
) -> None:
    kept = replace(batch(), retain=True)
    line.drive(answering(line.conversation, TopicKind.RESET), kept, answer)
    assert line.sent == ["query"]


def test_a_stop_all_that_is_refused(line: Line) -> None:
    with pytest.raises(Refused):
        line.drive(answering(line.conversation, TopicKind.RESET), error(Code.NOT_ALLOWED, "reset"))
    with pytest.raises(NoCoordinator):
        line.drive(answering(line.conversation, TopicKind.RESET))
