"""Payloads: what is read, what is refused, and which check speaks first."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
    Collected,
    HeartbeatHeard,
    Ignored,
    Message,
    Requested,
    ResetAsked,
    Returned,
)
from hwsync.protocol.messages import read
from hwsync.protocol.record import (
    Account,
    Command,
    Outcome,
    Ran,
    Record,
    Request,
    encode_envelope,
    encode_status,
)
from hwsync.protocol.topics import Topics

TOPICS = Topics()


def event(kind: str, payload: bytes | str | dict[str, object], *, retain: bool = False,
          user: str = "pi1") -> object:  # fmt: skip
    if isinstance(payload, dict):
        payload = json.dumps(payload)
    data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
    return read(Message(f"hw/{user}/{kind}", data, retain), TOPICS)


def code(kind: str, payload: bytes | str | dict[str, object], *, retain: bool = False,
         user: str = "pi1") -> tuple[Code, str | None]:  # fmt: skip
    with pytest.raises(Refused) as caught:
        event(kind, payload, retain=retain, user=user)
    assert caught.value.message
    return caught.value.code, caught.value.id


def test_plain_text_is_a_program() -> None:
    for text in ("print(1)", '{"a": 1}', "[1]", "{1: 2}", "null", '"program"'):
        read_event = event("request", text)
        assert isinstance(read_event, Requested)
        assert read_event.request.program == text


def test_a_structured_request_is_read_whole() -> None:
    got = event("request", {
        "program": "p", "id": "a.b_c:d-1", "timeout": 2, "expires": 0, "grace": 1.5, "queue": False,
        "stdin": "in", "args": ["x", ""], "analysis": "outcome", "start": None, "meta": {"k": [1]},
    })  # fmt: skip
    assert isinstance(got, Requested)
    request = got.request
    assert (request.program, request.id, request.timeout) == ("p", "a.b_c:d-1", 2.0)
    assert (request.expires, request.grace, request.args) == (0.0, 1.5, ("x", ""))
    assert (request.stdin, request.analysis, request.meta) == ("in", "outcome", '{"k":[1]}')


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"id": "a b"}, Code.BAD_PAYLOAD),
        ({"id": ""}, Code.BAD_PAYLOAD),
        ({"id": 5}, Code.BAD_PAYLOAD),
        ({"id": "x" * 65}, Code.BAD_PAYLOAD),
        ({"colour": 1}, Code.UNKNOWN_FIELD),
        ({"queue": True, "id": None}, Code.BAD_PAYLOAD),
        ({"queue": 1}, Code.BAD_PAYLOAD),
        ({"start": {"at": 5}}, Code.NOT_ALLOWED),
        ({"timeout": 0.05}, Code.BAD_PAYLOAD),
        ({"timeout": 86_401}, Code.BAD_PAYLOAD),
        ({"timeout": True}, Code.BAD_PAYLOAD),
        ({"timeout": "5"}, Code.BAD_PAYLOAD),
        ({"timeout": 10**400}, Code.BAD_PAYLOAD),
        ({"expires": 0.5}, Code.BAD_PAYLOAD),
        ({"expires": -1}, Code.BAD_PAYLOAD),
        ({"grace": 0}, Code.BAD_PAYLOAD),
        ({"args": "x"}, Code.BAD_PAYLOAD),
        ({"args": [1]}, Code.BAD_PAYLOAD),
        ({"args": ["a\0b"]}, Code.BAD_PAYLOAD),
        ({"stdin": None}, Code.BAD_PAYLOAD),
        ({"analysis": "nobody"}, Code.BAD_PAYLOAD),
        ({"stdin": "x" * (limits.MAX_EXTRAS + 1)}, Code.TOO_LARGE),
        ({"program": "x" * (limits.MAX_PROGRAM + 1)}, Code.TOO_LARGE),
        ({"program": 5}, Code.BAD_PAYLOAD),
    ],
)
def test_a_bad_request_names_its_error(keys: dict[str, object], expected: Code) -> None:
    refused, id = code("request", {"program": "p", "id": "c1", **keys})
    assert refused is expected
    assert id == (None if "id" in keys else "c1")


@pytest.mark.parametrize(
    "text",
    [
        '{"program": "x"',
        '{"program": "x", "timeout": NaN}',
        '{"program": "x", "timeout": 1e999}',
        '{"program": "x", "timeout": -Infinity}',
        '{"program": "\\ud800"}',
        '{"program": "x", "meta": {"a": "\\udc00"}}',
        '{"program": "x", "args": ["\\ud800"]}',
        '{"program": "x", "meta": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"program": "x", "meta": ' + "[" * limits.MAX_DEPTH + "]" * limits.MAX_DEPTH + "}",
        '{"program": "x", "timeout": ' + "1" * 5_000 + "}",
    ],
)
def test_json_that_cannot_be_meant_is_refused(text: str) -> None:
    assert code("request", text)[0] is Code.BAD_PAYLOAD


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True), ({"response": "other"}, False), ({"response": "\ufffd"}, True),
        ({"response": "other", "truncated": True}, True),
    ],
)  # fmt: skip
def test_a_hash_of_another_text_is_none(changes: dict[str, object], kept: bool) -> None:
    """Else ``hwsync check-db`` takes the text for changed."""
    digest = hashlib.sha256(b"42\n").hexdigest()
    result = {"id": "c1", "journal": "j1", "boot": 1, "outcome": "ok", "response": "42\n"}
    heard = event("response", {**result, "sha256": {"stdout": digest}, **changes})
    assert isinstance(heard, Returned)
    assert heard.account.sha256_stdout == (digest if kept else "")


def test_nesting_has_a_limit_that_no_stack_decides() -> None:
    inside = limits.MAX_DEPTH - 1  # the request itself is the first
    text = '{"program": "x", "meta": ' + "[" * inside + "]" * inside + "}"
    assert isinstance(event("request", text), Requested)
    wide = '{"program": "x", "meta": [' + "{}," * 5_000 + "[]]}"  # many, but not deep
    assert isinstance(event("request", wide), Requested)


def test_the_checks_run_in_their_order() -> None:
    huge = b"\xff" * (limits.MAX_MESSAGE + 1)
    assert code("request", huge, user="-x", retain=True)[0] is Code.BAD_USER
    assert code("request", huge, user="@all", retain=True)[0] is Code.NOT_ALLOWED
    assert code("request", huge, retain=True)[0] is Code.RETAINED
    assert code("request", huge)[0] is Code.TOO_LARGE
    assert code("request", b"\xff")[0] is Code.BAD_PAYLOAD


def test_retained_with_an_id_is_safe_and_without_is_refused() -> None:
    assert isinstance(event("request", {"program": "p", "id": "c1"}, retain=True), Requested)
    for kind in ("request", "response", "analysis", "command"):
        assert code(kind, "text", retain=True)[0] is Code.RETAINED
    assert code("request", {"program": "p", "id": "c1", "x": 1}, retain=True) == (
        Code.UNKNOWN_FIELD, "c1")  # fmt: skip
    for kind in ("request", "reset", "cancel", "collected"):
        assert isinstance(event(kind, b"", retain=True), Ignored)


def test_empty_messages() -> None:
    for kind in ("request", "command", "analysis", "heartbeat"):
        assert isinstance(event(kind, b""), Ignored)
    assert event("collected", b"") == Collected()
    assert event("cancel", b"") == CancelAsked()
    answer = event("response", b"")
    assert isinstance(answer, Returned)
    assert answer.account.response == ""


def test_an_envelope_on_command_is_not_adopted() -> None:
    assert isinstance(event("command", encode_envelope(Record("pi1"))), Ignored)
    assert isinstance(event("command", "print(1)"), Requested)
    assert isinstance(event("command", {"program": "p"}), Requested)


def test_responses() -> None:
    for text in ("42\n", "[1, 2]", '{"a": 1}', "3", "not { json"):
        plain = event("response", text)
        assert isinstance(plain, Returned)
        assert (plain.id, plain.account.outcome, plain.account.response) == (
            None, Outcome.OK, text)  # fmt: skip
    assert code("response", "{broken")[0] is Code.BAD_PAYLOAD
    assert code("response", "x" * (limits.MAX_RESPONSE + 1))[0] is Code.TOO_LARGE
    good = {"id": "c1", "journal": "j1", "boot": 1, "outcome": "error", "exit_code": 3}
    result = event("response", {**good, "later_key": 1})
    assert isinstance(result, Returned)
    assert (result.id, result.journal, result.account.exit_code) == ("c1", "j1", 3)
    assert result.account.ran is Ran.YES


@pytest.mark.parametrize(
    "keys",
    [
        {"outcome": "lost"},
        {"outcome": "nice"},
        {"outcome": None},
        {"ran": "no"},
        {"ran": 1},
        {"boot": -1},
        {"boot": "1"},
        {"exit_code": "0"},
        {"duration": "long"},
        {"duration": 10**400},
        {"response": 5},
        {"truncated": "yes"},
    ],
)
def test_a_bad_result_is_refused_with_its_id_and_journal(keys: dict[str, object]) -> None:
    with pytest.raises(Refused) as caught:
        event("response", {"id": "c1", "journal": "j1", "boot": 1, "outcome": "ok", **keys})
    assert caught.value.code is Code.BAD_PAYLOAD
    assert (caught.value.id, caught.value.journal) == ("c1", "j1")


def test_a_long_result_is_cut_and_marked_never_lost() -> None:
    long = "é" * limits.MAX_RESPONSE
    got = event("response", {"id": "c", "journal": "j", "boot": 1, "outcome": "ok",
                             "response": long})  # fmt: skip
    assert isinstance(got, Returned)
    assert got.account.truncated
    assert len(got.account.response.encode()) <= limits.MAX_RESPONSE


def test_analyses() -> None:
    assert event("analysis", "right") == Analysed("right")
    assert event("analysis", {"analysis": {"points": 3}, "id": "c1"}) == Analysed(
        '{"points":3}', "c1")  # fmt: skip
    assert event("analysis", {"other": 1}) == Analysed('{"other": 1}')
    assert code("analysis", {"analysis": "x" * (limits.MAX_ANALYSIS + 1), "id": "c1"}) == (
        Code.TOO_LARGE, "c1")  # fmt: skip
    assert code("analysis", {"analysis": 1, "points": 2})[0] is Code.UNKNOWN_FIELD


def test_cancel_reset_query_and_heartbeat() -> None:
    for kind in ("cancel", "reset", "query"):
        assert code(kind, "text")[0] is Code.BAD_PAYLOAD
        assert code(kind, "[]")[0] is Code.BAD_PAYLOAD
        assert code(kind, {})[0] is Code.BAD_PAYLOAD
        assert code(kind, {"id": "c1", "x": 1}) == (Code.UNKNOWN_FIELD, "c1")
    assert event("reset", {"id": "c1", "queue": True}) == ResetAsked("c1", True)
    assert event("reset", {"queue": True}) == ResetAsked(None, True)
    beat = event("heartbeat", {"online": True, "journal": "j", "boot": 2, "seen": [0, 7]})
    assert beat == HeartbeatHeard(True, "j", 2, (0, 7))
    assert code("heartbeat", {"online": 1, "journal": "j", "boot": 2})[0] is Code.BAD_PAYLOAD
    assert code("heartbeat", {"online": True, "journal": "j", "boot": 2, "seen": [1]})[0] is (
        Code.BAD_PAYLOAD)  # fmt: skip


def test_topics_that_are_not_ours_are_ignored() -> None:
    for topic in ("hw/pi1/status", "hw/pi1", "hw/pi1/request/x", "other/pi1/request", "hw//x"):
        assert isinstance(read(Message(topic, b"x"), TOPICS), Ignored)


def test_a_status_is_cut_to_a_mebibyte() -> None:
    account = Account(Outcome.OK, Ran.YES, response="\1" * limits.MAX_RESPONSE)
    command = Command("pi1", "c1", Request("\1" * limits.MAX_PROGRAM), account=account)
    payload = encode_status(replace(Record("pi1"), current=command))
    assert len(payload) <= limits.MAX_STATUS
    assert json.loads(payload)["truncated"] is True
    small = encode_status(replace(Record("pi1"), current=replace(command, account=None)))
    assert json.loads(small)["hw_command"]
