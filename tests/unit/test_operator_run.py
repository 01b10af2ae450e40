"""operator.run: a request from its arguments, how long its end is waited for, and its exit code."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.operator.conversation import ANSWER_S
from hwsync.operator.run import LOOK_AGAIN_S, Run, RunRequest, exit_code, fresh_id
from hwsync.protocol.errors import Code, NoCoordinator, Refused
from hwsync.protocol.record import State
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.schema import Json, read_object
from hwsync.transport import Signal
from tests.support.operator_line import Line, error, result, status

RETURNED = {"state": 3, "outcome": "ok", "ran": "yes", "exit_code": 0}
ENDED = RETURNED | {"state": 0}


@pytest.fixture
def line() -> Line:
    return Line()


def following(line: Line, *signals: Signal, last: State = State.REST, **options: Any) -> Json:
    run = Run(line.conversation, RunRequest(program="mine", id="c1"), last)
    return line.drive(run.following(**options), *signals)


# The request


def test_a_request_says_what_was_given_and_nothing_else() -> None:
    least = RunRequest(program="1", id="c1")
    assert read_object(least.payload) == {
        "program": "1", "id": "c1", "analysis": "outcome", "args": [],
    }  # fmt: skip
    keys: dict[str, Any] = {
        "program": "1", "id": "c1", "analysis": "manual", "timeout": 1.5, "expires": 0.0,
        "grace": 2.0, "queue": True, "name": "x.py", "stdin": "", "meta": {"k": 1},
    }  # fmt: skip
    every = RunRequest(**keys, args=("a", "b"), by="me@desk")
    said = keys | {"args": ["a", "b"], "meta": {"k": 1, "by": "me@desk"}}
    assert read_object(every.payload) == said


def test_each_request_has_an_id_of_its_own() -> None:
    assert RunRequest(program="1").id != RunRequest(program="1").id
    assert fresh_id().startswith("cli-")


# To its end


def test_it_is_asked_for_at_once_and_again_while_nothing_comes(line: Line) -> None:
    ticks: list[float] = []
    with pytest.raises(NoCoordinator, match="has not answered for 30 s; the command c1 goes on"):
        following(line, waiting=lambda: ticks.append(line.now))
    assert line.sent == ["query"] * 6  # at 0 s, then each time more than LOOK_AGAIN_S later
    assert ANSWER_S < line.now <= ANSWER_S + 1.0
    assert len(ticks) == line.now / 0.5
    assert LOOK_AGAIN_S == 5.0


def test_its_end_is_an_outcome_and_a_record_at_rest(line: Line) -> None:
    open_, returned, ended = result("mine"), result("mine", **RETURNED), result("mine", **ENDED)
    assert following(line, open_, returned, ended)["state"] == State.REST
    assert line.sent == ["query"]


def test_where_nobody_analyses_it_has_ended_when_it_has_returned(line: Line) -> None:
    told = following(line, result("mine", **RETURNED), last=State.RETURNED)
    assert told["state"] == State.RETURNED


def test_what_is_about_another_command_is_not_shown(line: Line) -> None:
    seen: list[tuple[TopicKind, str]] = []
    ended = result("mine", **ENDED)
    following(
        line, result("theirs", "c2", **ENDED), status("mine"), error(Code.BUSY, "request"), ended,
        on_received=lambda heard: seen.append((heard.kind, heard.fields["id"])),
    )  # fmt: skip
    assert seen == [(TopicKind.STATUS, "c1"), (TopicKind.RESULT, "c1")]


def test_an_id_that_is_not_known_any_more_is_refused(line: Line) -> None:
    busy = error(Code.BUSY, "query")  # it may come from anywhere, and ends nothing
    with pytest.raises(Refused) as refused:
        following(line, busy, error(Code.NOT_CURRENT, "query"))
    assert refused.value.code is Code.NOT_CURRENT


def test_a_cancel_is_repeated_until_the_end(line: Line) -> None:
    run = Run(line.conversation, RunRequest(program="mine", id="c1"))
    cancelled = ENDED | {"outcome": "cancelled"}
    end = line.drive(run.cancelling(), *[None] * 12, result("mine", **cancelled))
    assert (end["outcome"], line.sent) == ("cancelled", ["cancel", "cancel"])


# What ``run`` ends with


@pytest.mark.parametrize(
    ("outcome", "code", "expected"),
    [
        ("ok", 0, 0),
        ("error", 3, 3),
        ("error", None, 1),
        ("killed", 139, 139),
        ("killed", None, 137),
        ("timeout", None, 124),
        ("cancelled", None, 130),
        ("expired", None, 125),
        ("lost", None, 125),
        ("rejected", None, 125),
        ("interrupted", None, 125),
    ],
)
def test_the_exit_code_is_the_programs_where_it_had_one(
    outcome: str, code: int | None, expected: int
) -> None:
    assert exit_code({"outcome": outcome, "exit_code": code}) == expected
