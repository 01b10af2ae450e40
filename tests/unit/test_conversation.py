"""An operator's conversation, without a network: what answers it, and what only seems to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsync.operator.conversation import SLOW_S, Conversation
from hwsync.protocol.errors import Code, NoCoordinator, Refused
from hwsync.protocol.jsons import dumps
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.protocol.record import Command, Record, Request
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.request import encode_request
from hwsync.protocol.wire.schema import Json
from hwsync.protocol.wire.status import status_json
from hwsync.transport import Delivery, Denied, Signal
from tests.support.operator_line import Line, error, result, said, status


@pytest.fixture
def line() -> Line:
    return Line()


def ask(line: Line, *signals: Signal | None) -> Json:
    talk = line.conversation.telling(TopicKind.REQUEST, encode_request("mine", id="c1"), "c1")
    return line.drive(talk, *signals)


def test_a_request_is_answered_by_its_status_once_its_query_is(line: Line) -> None:
    assert ask(line, status("mine"), result("mine"))["state"] == 1
    assert line.sent == ["request", "query"]


def test_a_refusal_needs_no_query_which_would_be_refused_too(line: Line) -> None:
    kept = replace(status("other", "c0"), retain=True)
    with pytest.raises(Refused):
        ask(line, kept, error(Code.BUSY, "request"))
    assert line.sent == ["request"]
    with pytest.raises(Refused):
        ask(line, status("other", "c0"), error(Code.BUSY, "request"))
    assert line.sent == ["request", "request", "query"]


@pytest.mark.parametrize(("most", "known"), [(131_072, 131_072), ("x", MAX_MESSAGE)])
def test_the_coordinator_says_how_large_a_message_may_be(
    line: Line, most: object, known: int
) -> None:
    health = dumps({"condition": "ok", "time": 1.0, "max_message": most}).encode()
    kept = Delivery("hw/@hwsync/health", health, 1, True, False, 1, 1)
    ask(line, kept, status("mine"), result("mine"))
    assert line.conversation.standing.max_message == known


def test_it_is_repeated_until_somebody_answers(line: Line) -> None:
    with pytest.raises(NoCoordinator, match="c1 may still be accepted later"):
        ask(line)
    assert line.sent == ["request", "query"] * 5


def test_a_result_of_another_program_is_no_answer_to_a_request(line: Line) -> None:
    """Somebody else asked how that id stands; what refuses ours comes behind."""
    with pytest.raises(Refused) as refused:
        ask(line, status("theirs"), result("theirs"), error(Code.ID_REUSED, "request"))
    assert refused.value.code is Code.ID_REUSED


@pytest.mark.parametrize("changes", [{"name": "other.py"}, {"stdin": "x"}, {"args": ["x"]}])
def test_nor_is_one_of_the_same_program_run_otherwise(line: Line, changes: Json) -> None:
    with pytest.raises(Refused):
        ask(line, result("mine", **changes), error(Code.ID_REUSED, "request"))


def test_a_coordinator_of_before_says_no_name(line: Line) -> None:
    assert ask(line, result("mine", name=None, args=[], stdin=""))["id"] == "c1"


@pytest.mark.parametrize("changes", [{"truncated": True}, {"pruned": True}, {"orphan": True}])
def test_a_text_that_is_not_whole_tells_nothing_of_the_program(
    line: Line, changes: dict[str, bool]
) -> None:
    assert ask(line, result("", **changes))["id"] == "c1"


def test_a_result_whose_output_was_cut_tells_of_its_program_all_the_same(line: Line) -> None:
    with pytest.raises(Refused):
        ask(line, result("theirs", truncated=True), error(Code.ID_REUSED, "request"))
    assert ask(line, result("mi", truncated=True, args=[], stdin=""))["hw_command"] == "mi"


def test_an_error_about_another_message_is_no_answer(line: Line) -> None:
    told = ask(line, error(Code.WRONG_STATE, "analysis"), result("mine"))
    assert told["hw_command"] == "mine"


def test_what_is_forged_or_cleared_is_passed_over(line: Line) -> None:
    """A status of another shape, an error whose code is a list, and one that was taken away."""
    forged = status_json(Record("pi1", current=Command("pi1", "c1", Request("mine", "c1"))))
    refusal = {"error": ["busy"], "message": {}, "hint": "", "topic": "hw/pi1/request", "id": "c1"}
    noise = (
        said("status", {**forged, "state": 9}),
        said("error", refusal | {"journal": None}),
        Delivery("hw/pi1/status", b"", 1, True, False, 1, 1),
    )
    assert ask(line, *noise, result("mine"))["id"] == "c1"
    talk = line.conversation.reading()
    assert line.drive(talk, *noise, status("mine"), *noise, result("mine"))["state"] == 1


def test_who_asks_of_every_board_hears_of_no_group(line: Line) -> None:
    """``+`` in a filter means ``@lab1`` too, whose status may look like a board's."""
    everybody = Conversation(Topics("hw"), "+", lambda *_: None)
    talk = everybody.hearing(10.0)
    next(talk)
    group = replace(status("of a group"), topic="hw/@lab1/status")
    talk.send(group)
    with pytest.raises(StopIteration) as ended:
        talk.send(status("of a board"))
    assert ended.value.value.fields["hw_command"] == "of a board"
    assert everybody.kept == ended.value.value.fields


def judge(line: Line, *signals: Signal | None) -> Json:
    return line.drive(line.conversation.judging("well done", "c1"), *signals)


def test_an_analysis_is_sent_until_the_coordinator_has_it(line: Line) -> None:
    judged = result("p", state=0, server_analysis="well done")
    assert judge(line, result("p", state=3), judged)["server_analysis"] == "well done"
    assert line.sent.count("analysis") == 2
    late = result("p", state=0, server_analysis="")  # the record has gone on without one
    assert judge(line, late, judged)["server_analysis"] == "well done"


def test_who_may_not_judge_is_told_what_to_do_and_nobody_waits(line: Line) -> None:
    """Without MQTT 5 by what the coordinator says: it has had what was sent before its answer."""
    with pytest.raises(Refused, match="may not judge what pi1 has run") as refused:
        judge(line, *[result("p", state=3)] * 3)
    assert "--analyse" in refused.value.hint
    assert line.sent.count("analysis") == 3
    assert line.now == 0.0
    denied = Denied("hw/pi1/analysis", "not authorized")
    with pytest.raises(Refused, match=r"may not judge what pi1 has run .*not authorized"):
        judge(line, denied)


def test_an_analysis_that_is_empty_or_no_longer_kept_is_none_that_was_lost(line: Line) -> None:
    ended = result("p", state=0, server_analysis="")
    assert line.drive(line.conversation.judging("", "c1"), ended)["state"] == 0
    pruned = result("p", state=0, server_analysis="", pruned=True)
    assert judge(line, pruned)["state"] == 0


def test_who_waits_longer_than_a_moment_is_told_once(line: Line) -> None:
    told: list[float] = []
    line.conversation.standing.slow = lambda: told.append(line.conversation.now)
    began = line.conversation.now
    assert ask(line, status("mine"), result("mine"))["state"] == 1
    assert told == []
    with pytest.raises(NoCoordinator):
        ask(line)
    assert [moment - began for moment in told] == [pytest.approx(SLOW_S, abs=0.5)]
    assert line.sent == ["request", "query"] * 6
    with pytest.raises(NoCoordinator):
        ask(line)
    assert len(told) == 1, "on one connection it is said once"


def test_the_coordinator_is_asked_how_it_is_from_the_second_try_on() -> None:
    """Also where the clock goes on while the first one is sent, as real ones do."""
    asked: list[float] = []
    line = Line()

    def clock() -> float:
        line.now += 1e-4
        return line.now

    line.conversation = Conversation(
        Topics(), "pi1", lambda topic, payload: line.messages.append((topic, payload)),
        monotonic=clock, inquire=lambda: asked.append(line.now),
    )  # fmt: skip
    ask(line, status("mine"), result("mine"))
    assert asked == []
    ask(line, None, None, status("mine"), result("mine"))
    assert (line.sent.count("request"), len(asked)) == (3, 1)
