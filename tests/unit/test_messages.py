"""Payloads: what is read, what is refused, and which check speaks first."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
    Collected,
    HeartbeatReceived,
    Ignored,
    Message,
    Requested,
    ResetAsked,
    Returned,
)
from hwsync.protocol.jsons import MAX_INT, dumps
from hwsync.protocol.record import (
    AnalysedBy,
    Command,
    Outcome,
    Ran,
    Record,
    Reply,
    Request,
    RunReport,
    State,
    Verb,
)
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.envelope import encode_envelope, read_envelope
from hwsync.protocol.wire.messages import read
from hwsync.protocol.wire.received import read_received
from hwsync.protocol.wire.response import encode_response
from hwsync.protocol.wire.schema import read_object
from hwsync.protocol.wire.status import encode_result, encode_status, read_status, status_json

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
        "name": "_a.b-1.py", "expires_at": 1_800_000_000,
    })  # fmt: skip
    assert isinstance(got, Requested)
    request = got.request
    assert (request.program, request.id, request.timeout) == ("p", "a.b_c:d-1", 2.0)
    assert (request.expires, request.grace, request.args) == (0.0, 1.5, ("x", ""))
    assert (request.stdin, request.analysis, request.meta) == ("in", "outcome", '{"k":[1]}')
    assert (request.name, request.expires_at) == ("_a.b-1.py", 1_800_000_000.0)


@pytest.mark.parametrize("keys", [{}, {"name": None, "expires_at": None}])
def test_what_is_not_given_is_none(keys: dict[str, object]) -> None:
    got = event("request", {"program": "p", **keys})
    assert isinstance(got, Requested)
    assert (got.request.name, got.request.expires_at) == (None, None)


def test_a_bad_name_is_shown_with_what_would_do() -> None:
    with pytest.raises(Refused) as caught:
        event("request", {"program": "p", "id": "c1", "name": "../x"})
    assert caught.value.message == "the request: 'name' is '../x': no name of a program's file"
    assert caught.value.hint == limits.NAME_FORM


def test_a_range_is_said_in_whole_numbers() -> None:
    with pytest.raises(Refused, match=r"'timeout' must be 0\.1 to 2592000 seconds"):
        event("request", {"program": "p", "timeout": 3e6})
    with pytest.raises(Refused, match="'expires_at' must be 0 to 253402300799"):
        event("request", {"program": "p", "expires_at": 3e11})


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
        ({"start": 5}, Code.BAD_PAYLOAD),
        ({"start": {}}, Code.BAD_PAYLOAD),
        ({"start": {"at": 5, "together": True}}, Code.BAD_PAYLOAD),
        ({"start": {"at": "5"}}, Code.BAD_PAYLOAD),
        ({"start": {"at": 5, "need": 2}}, Code.BAD_PAYLOAD),
        ({"start": {"together": True, "need": 0}}, Code.BAD_PAYLOAD),
        ({"start": {"together": True, "need": 1.5}}, Code.BAD_PAYLOAD),
        ({"start": {"together": 1}}, Code.BAD_PAYLOAD),
        ({"start": {"at": 5, "soon": True}}, Code.UNKNOWN_FIELD),
        ({"start": {"at": 5}, "queue": True}, Code.BAD_PAYLOAD),
        ({"timeout": 0.05}, Code.BAD_PAYLOAD),
        ({"timeout": 2_592_001}, Code.BAD_PAYLOAD),
        ({"timeout": True}, Code.BAD_PAYLOAD),
        ({"timeout": "5"}, Code.BAD_PAYLOAD),
        ({"timeout": 10**400}, Code.BAD_PAYLOAD),
        ({"expires": 0.5}, Code.BAD_PAYLOAD),
        ({"expires": -1}, Code.BAD_PAYLOAD),
        ({"grace": 0}, Code.BAD_PAYLOAD),
        ({"name": ""}, Code.BAD_PAYLOAD),
        ({"name": 5}, Code.BAD_PAYLOAD),
        ({"name": ".hidden"}, Code.BAD_PAYLOAD),
        ({"name": "-c"}, Code.BAD_PAYLOAD),
        ({"name": "a/b.py"}, Code.BAD_PAYLOAD),
        ({"name": "a.py\n"}, Code.BAD_PAYLOAD),
        ({"name": "x" * 65}, Code.BAD_PAYLOAD),
        ({"expires_at": "soon"}, Code.BAD_PAYLOAD),
        ({"expires_at": True}, Code.BAD_PAYLOAD),
        ({"expires_at": -1}, Code.BAD_PAYLOAD),
        ({"expires_at": 1.7e12}, Code.BAD_PAYLOAD),
        ({"expires_at": 10**400}, Code.BAD_PAYLOAD),
        ({"args": "x"}, Code.BAD_PAYLOAD),
        ({"args": [1]}, Code.BAD_PAYLOAD),
        ({"args": ["a\0b"]}, Code.BAD_PAYLOAD),
        ({"stdin": None}, Code.BAD_PAYLOAD),
        ({"analysis": "Nobody"}, Code.BAD_PAYLOAD),
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
    assert heard.report.sha256_stdout == (digest if kept else "")


def test_nesting_has_a_limit_that_no_stack_decides() -> None:
    inside = limits.MAX_DEPTH - 1  # the request itself is the first
    text = '{"program": "x", "meta": ' + "[" * inside + "]" * inside + "}"
    assert isinstance(event("request", text), Requested)
    wide = '{"program": "x", "meta": [' + "{}," * 5_000 + "[]]}"  # many, but not deep
    assert isinstance(event("request", wide), Requested)


def test_the_checks_run_in_their_order() -> None:
    huge = b"\xff" * (limits.MAX_MESSAGE + 1)
    assert code("request", huge, user="-x", retain=True)[0] is Code.BAD_USER
    assert code("request", huge, user="@-x", retain=True)[0] is Code.BAD_USER
    assert code("response", huge, user="@all", retain=True)[0] is Code.NOT_ALLOWED
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


@pytest.mark.parametrize("kind", ["cancel", "reset"])
def test_a_retained_cancel_or_reset_is_refused_whatever_it_names(kind: str) -> None:
    assert code(kind, {"id": "c1"}, retain=True) == (Code.RETAINED, "c1")
    assert code(kind, {"id": "c1", "x": 1}, retain=True) == (Code.RETAINED, "c1")
    assert code(kind, {"x": 1}, retain=True) == (Code.RETAINED, None)
    assert code(kind, "text", retain=True) == (Code.RETAINED, None)


REPLY = Reply("replies/anna", b"x")


@pytest.mark.parametrize("retain", [False, True])
def test_a_request_keeps_its_response_topic_whether_it_is_retained_or_not(retain: bool) -> None:
    payload = b'{"id":"c1","program":"p"}'
    asked = read(Message("hw/pi1/request", payload, retain, reply=REPLY), TOPICS)
    assert isinstance(asked, Requested)
    assert asked.reply == REPLY
    with pytest.raises(Refused) as caught:
        read(Message("hw/pi1/request", payload, retain, reply=Reply("hw/pi2/cancel")), TOPICS)
    assert (caught.value.code, caught.value.id) == (Code.NOT_ALLOWED, "c1")


BOM = b"\xef\xbb\xbf"


def test_a_byte_order_mark_before_json_is_passed_over() -> None:
    request = event("request", BOM + b'{"id":"c1","program":"p"}')
    assert isinstance(request, Requested)
    assert (request.request.id, request.request.program) == ("c1", "p")
    assert event("cancel", BOM + b'{"id":"c1"}') == CancelAsked("c1")
    assert event("collected", BOM + b'{"id":"c1","journal":"j","boot":1}') == Collected(
        "c1", "j", 1
    )
    assert event("analysis", BOM + b'{"analysis":"fine","id":"c1"}') == Analysed("fine", "c1")
    answer = event("response", BOM + b'{"id":"c1","journal":"j","boot":1,"outcome":"ok"}')
    assert isinstance(answer, Returned)
    assert answer.id == "c1"
    assert code("response", BOM + b"{broken")[0] is Code.BAD_PAYLOAD
    envelope = encode_envelope(Record("pi1"))
    assert isinstance(event("command", BOM + envelope), Ignored)
    assert read_object(BOM + envelope) == read_object(envelope)


def test_a_byte_order_mark_before_plain_text_is_kept() -> None:
    """Python runs such a program, and its hash stays the file's."""
    request = event("request", BOM + b"print(1)")
    assert isinstance(request, Requested)
    assert request.request.program == "\ufeffprint(1)"


def test_empty_messages() -> None:
    for kind in ("request", "command", "analysis", "heartbeat"):
        assert isinstance(event(kind, b""), Ignored)
    assert event("collected", b"") == Collected()
    assert event("cancel", b"") == CancelAsked()
    answer = event("response", b"")
    assert isinstance(answer, Returned)
    assert answer.report.response == ""


def test_an_envelope_on_command_is_not_adopted() -> None:
    assert isinstance(event("command", encode_envelope(Record("pi1"))), Ignored)
    assert isinstance(event("command", "print(1)"), Requested)
    assert isinstance(event("command", {"program": "p"}), Requested)


def test_responses() -> None:
    for text in ("42\n", "[1, 2]", '{"a": 1}', "3", "not { json"):
        plain = event("response", text)
        assert isinstance(plain, Returned)
        assert (plain.id, plain.report.outcome, plain.report.response) == (
            None, Outcome.OK, text)  # fmt: skip
    assert code("response", "{broken")[0] is Code.BAD_PAYLOAD
    assert code("response", "x" * (limits.MAX_RESPONSE + 1))[0] is Code.TOO_LARGE
    good = {"id": "c1", "journal": "j1", "boot": 1, "outcome": "error", "exit_code": 3}
    result = event("response", {**good, "later_key": 1})
    assert isinstance(result, Returned)
    assert (result.id, result.journal, result.report.exit_code) == ("c1", "j1", 3)
    assert result.report.ran is Ran.YES


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


def returned(**keys: object) -> RunReport:
    """The account of a device's result."""
    got = event("response", {"id": "c", "journal": "j", "boot": 1, "outcome": "ok", **keys})
    assert isinstance(got, Returned)
    return got.report


def test_a_long_result_is_cut_and_marked_never_lost() -> None:
    for key, limit in (("response", limits.MAX_RESPONSE), ("stderr", limits.MAX_STDERR)):
        long = "first\n" + "é\n" * limit + "last\n"
        report = returned(**{key: long}, order=[["stdout", len(long.encode())]])
        text = getattr(report, key)
        assert (report.truncated, report.order) == (True, None)
        assert len(text.encode()) <= limit
        assert text.startswith("first\n")
        assert text.endswith("last\n")


ORDER = [["stdout", 3], ["stderr", 2], ["stdout", 2]]


def test_an_order_of_the_texts_is_kept() -> None:
    report = returned(response="1\n3é", stderr="2\n", order=ORDER)
    assert report.order == (("stdout", 3), ("stderr", 2), ("stdout", 2))
    assert returned(order=[]).order == ()
    assert returned(response="1\n3é", stderr="2\n").order is None


@pytest.mark.parametrize(
    "order",
    [
        None, 5, "stdout", {"stdout": 5}, ORDER[:2], [*ORDER, ["stderr", 1]],
        [["stdout", 5], ["other", 2]], [["stdout", 5], ["stderr", 2.0]], [["stdout", 5], [[], 2]],
        [["stdout", 5], ["stderr", True], ["stderr", 1]], [["stdout", 5, 1], ["stderr", 2]],
        [["stdout", 6], ["stdout", -1], ["stderr", 2]], [["stdout", 5], ["stderr"]],
        [["stdout", 5], ["stdout", 0], ["stderr", 2]], ["stdout", "stderr"],
        [["stdout", 10**30], ["stderr", 2]],
    ],
    ids=str,
)  # fmt: skip
def test_an_order_of_other_texts_is_dropped_and_the_result_kept(order: object) -> None:
    report = returned(response="1\n3é", stderr="2\n", order=order)
    assert (report.response, report.stderr, report.order) == ("1\n3é", "2\n", None)


def test_an_order_that_is_too_long_is_dropped() -> None:
    many = limits.MAX_ORDER // 26
    for more, kept in ((0, True), (many, False)):
        order = [["stdout", 1], ["stderr", 1]] * (many + more)
        report = returned(response="o" * (many + more), stderr="e" * (many + more), order=order)
        assert (report.order is not None) == kept


def test_analyses() -> None:
    assert event("analysis", "right") == Analysed("right")
    assert event("analysis", {"analysis": {"points": 3}, "id": "c1"}) == Analysed(
        '{"points":3}', "c1")  # fmt: skip
    said = {"name": "check1", "version": "3f0c", "fault": " it\ndied " + "x" * 600}
    by = AnalysedBy("check1", "3f0c", "it died " + "x" * 492)
    told = {"analysis": None, "id": "c1", "analyser": said, "regrade": True}
    assert event("analysis", told) == Analysed("null", "c1", by, regrade=True)
    of = {"outcome": "lost", "ran": "maybe"}
    assert event("analysis", told | of) == Analysed("null", "c1", by, True, "lost", "maybe")
    for bad in ({"outcome": "broken"}, {"ran": True}, {"id": None, "regrade": False}):
        assert code("analysis", told | of | bad)[0] is Code.BAD_PAYLOAD, bad
    wrong: dict[str, Any] = {
        "name": "manual", "version": "", "fault": "", "more": 1, "analyser": None
    }  # fmt: skip
    for key, value in wrong.items():
        bad = told | {"analyser": said | {key: value} if key != "analyser" else None}
        assert code("analysis", bad)[0] is Code.BAD_PAYLOAD, key
    assert code("analysis", {key: told[key] for key in told if key != "id"})[0] is Code.BAD_PAYLOAD
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
    assert beat == HeartbeatReceived(True, "j", 2, (0, 7))
    assert code("heartbeat", {"online": 1, "journal": "j", "boot": 2})[0] is Code.BAD_PAYLOAD
    assert code("heartbeat", {"online": True, "journal": "j", "boot": 2, "seen": [1]})[0] is (
        Code.BAD_PAYLOAD)  # fmt: skip


def test_topics_that_are_not_ours_are_ignored() -> None:
    for topic in ("hw/pi1/status", "hw/pi1", "hw/pi1/request/x", "other/pi1/request", "hw//x"):
        assert isinstance(read(Message(topic, b"x"), TOPICS), Ignored)


WORST = Command(
    "u" * 64,
    "c" * 64,
    Request(
        "\1" * limits.MAX_PROGRAM,
        stdin="\1" * limits.MAX_EXTRAS,
        meta="\1" * limits.MAX_EXTRAS,
        name="n" * 64,
    ),
    journal="j" * 64,
    boot=MAX_INT,
    report=RunReport(
        Outcome.INTERRUPTED,
        Ran.MAYBE,
        "\1" * limits.MAX_REASON,
        "\1" * limits.MAX_RESPONSE,
        "\1" * limits.MAX_STDERR,
        -(2**32),
        *[1.2345678901234567e300] * 4,
        order=tuple([("stderr", 1)] * (limits.MAX_ORDER // 13)),
    ),
    analysis="\1" * limits.MAX_ANALYSIS,
)
"""All that can be in one command, and more; each character of its texts takes six in JSON."""


def worst() -> Record:
    settled = tuple(("c" * 64, f"{number}" * 64) for number in range(limits.SETTLED_PAIRS))
    return Record(
        "u" * 64, State.COLLECTED, MAX_INT, MAX_INT, Verb.RETRIEVAL, deadline_wall=1e300,
        settled=settled, queue=("q" * 64,) * limits.MAX_QUEUE, current=WORST,
    )  # fmt: skip


def test_a_status_is_cut_to_a_mebibyte() -> None:
    payload = encode_status(worst())
    assert len(payload) <= limits.MAX_STATUS
    assert json.loads(payload)["truncated"] is True
    small = encode_status(replace(Record("pi1"), current=replace(WORST, report=None)))
    assert json.loads(small)["hw_command"]


def test_a_result_is_cut_to_a_message() -> None:
    payload = encode_result(WORST, State.COLLECTED)
    assert len(payload) <= limits.MAX_MESSAGE


def test_a_status_up_to_settled_fits_what_a_small_device_reads() -> None:
    fields = status_json(worst())
    first = {name: fields[name] for name in list(fields)[: list(fields).index("settled") + 1]}
    assert len(json.dumps(first, separators=(",", ":"))) <= limits.STATUS_FIRST
    assert encode_status(worst()).startswith(json.dumps(first, separators=(",", ":"))[:-1].encode())


@pytest.mark.parametrize("limit", [10, 700, 1_500, 3_000, 8_192, 20_000])
def test_a_status_is_cut_to_any_limit_down_to_its_first_kilobyte(limit: int) -> None:
    payload = encode_status(worst(), limit)
    assert len(payload) <= max(limit, limits.STATUS_FIRST)
    status = read_status(payload)
    assert status is not None
    assert status.settled == worst().settled
    least_for_people = limits.MESSAGE_BYTES[0]
    assert (read_received(TopicKind.STATUS, payload) is None) == (limit < least_for_people)
    assert json.loads(payload).get("order") is None


@pytest.mark.parametrize("limit", [8_192, 20_000, 131_072])
def test_a_result_is_cut_to_any_limit_with_what_the_request_had(limit: int) -> None:
    text = "\x01" * 20_000
    meta = json.dumps({"a": "b" * 20_000})
    request = replace(WORST.request, stdin=text, args=(text,), meta=meta)
    payload = encode_result(replace(WORST, request=request), State.REST, limit=limit)
    assert len(payload) <= limit
    fields = read_received(TopicKind.RESULT, payload)
    assert fields is not None
    assert fields["truncated"]
    assert fields["args"] == []
    assert fields["meta"] in ("{}", meta)


@pytest.mark.parametrize("limit", [1_024, 8_192, 131_072])
def test_a_devices_result_is_cut_to_any_limit_down_to_the_bare_outcome(limit: int) -> None:
    report = replace(WORST.report, reason="\x01" * 500)
    payload = encode_response("i" * 64, "j" * 64, 2**53, report, limit)
    assert len(payload) <= limit
    event = read(Message("hw/pi1/response", payload), Topics())
    assert isinstance(event, Returned)
    assert event.report.outcome is report.outcome
    assert event.report.truncated
    assert (event.report.response != "") == (limit > 1_024)


def test_what_a_run_printed_keeps_both_ends_in_a_status() -> None:
    lines = [f"{chr(1) * 10}{number:05}\n" for number in range(16_000)]
    order = (("stdout", 16 * 16_000),)
    report = RunReport(Outcome.OK, Ran.YES, response="".join(lines), stderr="e\n", order=order)
    command = Command("pi1", "c1", Request("print(1)"), report=report)
    fields = json.loads(encode_status(Record("pi1", current=command)))
    shown = fields["hw_response"].splitlines(keepends=True)
    assert (shown[0], shown[-1], fields["stderr"]) == (lines[0], lines[-1], "e\n")
    gap = next(line for line in shown if line not in lines)
    assert gap == f"[hwsync: {16 * (16_000 - len(shown) + 1):,} bytes left out]\n"
    assert (fields["order"], fields["truncated"]) == (None, True)


def test_where_only_the_program_is_cut_the_order_stays() -> None:
    report = RunReport(Outcome.OK, Ran.YES, response="42\n", order=(("stdout", 3),))
    request = Request("\1" * limits.MAX_PROGRAM)
    fields = json.loads(
        encode_status(Record("pi1", current=Command("pi1", "c1", request, report=report)))
    )
    assert (fields["truncated"], fields["order"]) == (True, [["stdout", 3]])


def test_what_stands_behind_the_older_fields() -> None:
    report = RunReport(Outcome.OK, Ran.YES, response="1", stderr="2",
                      order=(("stderr", 1), ("stdout", 1)))  # fmt: skip
    command = Command("pi1", "c1", Request("p", name="blink.py"), report=report)
    for told in (
        json.loads(encode_status(Record("pi1", current=command))),
        json.loads(encode_result(command, State.REST)),
    ):
        behind = ["name", "order", "start_life", "files", "not_kept", "ran_on", "analysed_by",
                  "no_analysis"]  # fmt: skip
        assert [key for key in list(told)[-14:] if key in behind] == behind
        assert (told["name"], told["order"]) == ("blink.py", [["stderr", 1], ["stdout", 1]])
    for other, name in (
        (replace(command, request=Request("p"), report=None), limits.DEFAULT_NAME),
        (replace(command, request=Request(""), orphan=True, report=None), ""),
        (None, ""),
    ):
        told = json.loads(encode_status(Record("pi1", current=other)))
        assert (told["name"], told["order"]) == (name, None)


@pytest.mark.parametrize("name", [None, "blink.py"])
def test_an_envelope_has_name_and_grace(name: str | None) -> None:
    request = Request("p", grace=7.5, name=name)
    record = Record("pi1", State.REQUESTED, 1, 1, current=Command("pi1", "c1", request))
    envelope = read_envelope(encode_envelope(record))
    assert envelope is not None
    assert (envelope.name, envelope.grace) == (name or limits.DEFAULT_NAME, 7.5)


def test_an_envelope_of_a_coordinator_of_before_has_the_defaults() -> None:
    record = Record("pi1", State.REQUESTED, 1, 1, current=Command("pi1", "c1", Request("p")))
    fields = json.loads(encode_envelope(record))
    before = {name: fields[name] for name in fields if name not in ("name", "grace")}
    envelope = read_envelope(json.dumps(before).encode())
    assert envelope is not None
    assert (envelope.name, envelope.grace) == (limits.DEFAULT_NAME, limits.DEFAULT_GRACE_S)


@pytest.mark.parametrize("keys", [{"queue": True}, {"id": "c1"}, {"id": None}])
def test_a_reset_that_forgets_stands_alone(keys: dict[str, object]) -> None:
    forget = {"forget": True}
    assert read(Message("hw/pi1/reset", dumps(forget).encode()), Topics()) == ResetAsked(
        forget=True
    )
    with pytest.raises(Refused, match="'forget' stands alone"):
        read(Message("hw/pi1/reset", dumps(forget | keys).encode()), Topics())
