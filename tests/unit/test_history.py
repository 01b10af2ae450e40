"""Which commands a question is told of: the question, the choice, the page and its cursor."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.protocol import limits
from hwsync.protocol.errors import Refused
from hwsync.protocol.events import Message
from hwsync.protocol.history import (
    Wanted,
    chooser,
    gather,
    has_meta,
    line_of,
    read_question,
    reply_of_refused,
)
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import Reply
from hwsync.protocol.topics import Topics
from hwsync.protocol.wire.history import PAGE, Row, encode_question, read_page

TOPICS = Topics("hw")
NOW = 1_000_000.0
ANNA = "replies/anna/1"


def row(number: int = 1, **fields: Any) -> Row:
    made = {
        "id": f"c{number}", "number": number, "state": 0, "issued": NOW - 100.0 + number,
        "by": "anna", "known_by": "reply topic", "name": "blink.py", "outcome": "ok", "ran": "yes",
        "reason": "", "exit_code": 0, "started": NOW, "duration": 1.5, "files": [], "analysis": "",
        "meta": '{"course":"1b","team":3}', "line": "42",
    }  # fmt: skip
    return {**made, **fields}  # type: ignore[typeddict-item, return-value]


def asked(kind: str = "history", reply: str | None = None, *, user: str = "pi1",
          retain: bool = False, payload: bytes | None = None, **keys: Any) -> Wanted:  # fmt: skip
    """``reply``: the response topic of MQTT 5."""
    payload = encode_question(keys) if payload is None else payload
    return read_question(
        Message(f"hw/{user}/{kind}", payload, retain=retain, reply=Reply(reply) if reply else None),
        TOPICS,
    )


def wanted(**fields: Any) -> Wanted:
    return Wanted("pi1", Reply(ANNA), **{"account": None, **fields})


# -- the question ----------------------------------------------------------------------------------


def test_the_answer_goes_to_the_response_topic_or_to_reply() -> None:
    assert asked(reply=ANNA).reply == Reply(ANNA)
    assert asked(payload=dumps({"reply": ANNA}).encode()).reply == Reply(ANNA)
    both = asked(reply="replies/bert", payload=dumps({"reply": ANNA}).encode())
    assert (both.reply, both.account) == (Reply("replies/bert"), "bert")
    assert asked(reply=ANNA, payload=b"").last == limits.HISTORY_ROWS


def test_whose_commands_says_the_topic_of_the_answer() -> None:
    assert asked(reply=ANNA).account == "anna"
    assert asked("history/all", ANNA).account is None
    assert asked("history/all", "elsewhere/1").account is None


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("history", {"reply": "elsewhere/1"}, "no account's"),
        ("history", {"reply": "replies"}, "no account's"),
        ("history", {"reply": "replies/@anna/1"}, "no account's"),
        ("history", {"payload": b'{"reply": "elsewhere/1"}'}, "no account's"),
        ("history/all", {"payload": b'{"reply": "elsewhere/1"}'}, "no account's"),
        ("history", {}, "nowhere to answer"),
        ("history/all", {}, "nowhere to answer"),
        ("history", {"reply": "hw/pi1/status"}, "no account's"),
        ("history/all", {"reply": "hw/pi1/status"}, "hwsync's own"),
        ("history", {"reply": "replies/anna/+"}, "no topic"),
        ("history", {"reply": ANNA, "user": "@lab1"}, "is no board"),
        ("history", {"reply": ANNA, "user": "a b"}, "no board's name"),
        ("history", {"reply": ANNA, "retain": True}, "retained"),
        ("history", {"reply": ANNA, "payload": b"[]"}, "must be a JSON object"),
        ("history", {"reply": ANNA, "payload": b"{"}, "is no JSON"),
        ("history", {"reply": ANNA, "payload": b"\xff"}, "not UTF-8"),
        ("history", {"reply": ANNA, "last": 0}, "'last' must be 1 to 100"),
        ("history", {"reply": ANNA, "last": 101}, "'last' must be 1 to 100"),
        ("history", {"reply": ANNA, "outcome": ["fine"]}, "'outcome' must be a list"),
        ("history", {"reply": ANNA, "outcome": "ok"}, "'outcome' must be a list"),
        ("history", {"reply": ANNA, "since": "2d"}, "'since'"),
        ("history", {"reply": ANNA, "meta": {"a": "x" * 1024}}, "'meta' must be an object"),
        ("history", {"reply": ANNA, "by": "x" * 257}, "'by'"),
        ("history", {"reply": ANNA, "after": -1}, "'after'"),
        ("history", {"reply": ANNA, "board": "pi1"}, "unknown key 'board'"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(kind: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said.replace("'", ".")):
        asked(kind, **options)


def test_half_a_character_is_no_meta() -> None:
    payload = b'{"reply": "replies/anna/1", "meta": {"half \\ud800": 1}}'
    with pytest.raises(Refused, match="must be an object"):
        read_question(Message("hw/pi1/history", payload), TOPICS)


@pytest.mark.parametrize(
    ("payload", "response_topic", "where"),
    [
        (b'{"reply": "replies/anna/1", "last": 0}', None, ANNA),
        (b'{"reply": "elsewhere", "last": 0}', None, None),
        (b'{"reply": "replies/anna/+"}', None, None),
        (b'{"reply": 1}', None, None),
        (b"no JSON", None, None),
        (b"no JSON", "elsewhere", "elsewhere"),
        (b"no JSON", "hw/pi1/status", None),
    ],
)
def test_a_refusal_goes_where_the_answer_may(
    payload: bytes, response_topic: str | None, where: str | None
) -> None:
    reply = Reply(response_topic) if response_topic else None
    found = reply_of_refused(Message("hw/pi1/history", payload, reply=reply), TOPICS)
    assert (found and found.topic) == where


def test_a_long_question_is_refused_unread() -> None:
    """A hundred may wait, each with its message."""
    fill = b" " * (limits.MAX_QUESTION - len('{"reply":"replies/anna/1"}'))
    for more, is_right in ((b"", True), (b" ", False)):
        message = Message("hw/pi1/history", b'{"reply":"replies/anna/1"%b%b}' % (fill, more))
        if is_right:
            assert read_question(message, TOPICS).account == "anna"
            continue
        with pytest.raises(Refused, match="8193 bytes"):
            read_question(message, TOPICS)
        assert reply_of_refused(message, TOPICS) is None


# -- which -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({"account": "anna"}, {}),
        ({"since": NOW - 99.0, "until": NOW - 99.0}, {}),
        ({"since": -99.0, "until": -99.0}, {}),
        ({"until": 0.0}, {"issued": 0.0}),
        ({"outcomes": frozenset({"ok", "error"})}, {}),
        ({"outcomes": frozenset({"open"})}, {"outcome": None}),
        ({"by": "anna"}, {}),
        ({"by": "anna"}, {"known_by": "claim"}),
        ({"name": "blink.py"}, {}),
        ({"name": "b*.p?"}, {}),
        ({"id": "c1"}, {}),
        ({"meta": {"course": "1b", "team": "3"}}, {}),
        ({"meta": {"team": 3}}, {}),
    ],
)
def test_a_command_is_told_where_it_is_what_was_asked(
    fields: dict[str, Any], chosen: dict[str, Any]
) -> None:
    assert chooser(wanted(**fields), NOW)(row(**chosen))


@pytest.mark.parametrize(
    ("fields", "passed_over"),
    [
        ({"account": "anna"}, {"by": "bert"}),
        ({"account": "anna"}, {"known_by": "claim"}),  # which proves nothing
        ({"account": "anna"}, {"by": None, "known_by": None}),
        ({"account": "anna", "by": "bert"}, {}),
        ({"since": NOW - 98.9}, {}),
        ({"until": NOW - 99.1}, {}),
        ({"since": -98.9}, {}),
        ({"until": -99.1}, {}),
        ({"outcomes": frozenset({"error"})}, {}),
        ({"outcomes": frozenset()}, {}),
        ({"outcomes": frozenset({"open"})}, {}),
        ({"by": "bert"}, {}),
        ({"by": "bert"}, {"by": None, "known_by": None}),
        ({"name": "blink"}, {}),
        ({"name": "*.txt"}, {}),
        ({"name": "a.py|blink.py"}, {}),
        ({"id": "c2"}, {}),
        ({"meta": {"course": "1c"}}, {}),
        ({"meta": {"course": "1b", "year": "1"}}, {}),
        ({"meta": {"course": "1b"}}, {"meta": "[]"}),
        ({"meta": {"course": "1b"}}, {"meta": ""}),
    ],
)
def test_a_command_is_passed_over_where_it_is_not(
    fields: dict[str, Any], passed_over: dict[str, Any]
) -> None:
    assert not chooser(wanted(**fields), NOW)(row(**passed_over))


@pytest.mark.parametrize(
    ("meta", "asked", "has"),
    [
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": "true"}, True),
        ({"a": None}, {"a": "null"}, True),
        ({"a": "3"}, {"a": 3}, False),
        ({"a": [1, 2]}, {"a": [1, 2]}, True),
        ({}, {"a": None}, False),
        ({}, {}, True),
    ],
)
def test_a_text_stands_for_its_json_and_nothing_else_does(
    meta: Any, asked: dict[str, Any], has: bool
) -> None:
    assert has_meta(dumps(meta), asked) is has


@pytest.mark.parametrize("text", ["no JSON", '{"a": NaN}', '{"a": "\\ud800"}', "[" * 200])
def test_a_damaged_meta_says_nothing(text: str) -> None:
    assert not has_meta(text, {"a": "1"})


@pytest.mark.parametrize(
    ("stdout", "stderr", "line"),
    [
        ("\n \n 42 \nmore", "no", " 42"),
        ("a\rb", "", "a"),
        ("", "Traceback\n  x\nValueError: 1\n\n", "ValueError: 1"),
        ("", "", ""),
        (" \n", "1\r\n  2 \r \n", "  2"),
        ("\t\x1c", " \n", ""),
        ("x" * 300, "", "x" * limits.HISTORY_LINE),
    ],
)
def test_one_line_stands_for_the_output(stdout: str, stderr: str, line: str) -> None:
    assert line_of(stdout, stderr) == line


# -- the page --------------------------------------------------------------------------------------


def rows(count: int, **fields: Any) -> list[tuple[int, Row]]:
    """The newest first; the cursor of each is its number."""
    return [(number, row(number, **fields)) for number in range(count, 0, -1)]


def pages(all_rows: list[tuple[int, Row]], limit: int = limits.HISTORY_PAGE,
          **fields: Any) -> list[list[int]]:  # fmt: skip
    """The numbers in each page, until there is no cursor."""
    told, after = list[list[int]](), None
    while True:
        asked = wanted(**fields, after=after)
        left = [one for one in all_rows if after is None or one[0] < after]
        page = read_page(gather(left, asked, NOW).encoded(asked, NOW, limit))
        assert page is not None
        assert (page["user"], page["all"], page["time"]) == ("pi1", True, NOW)
        told.append([one["number"] for one in page["rows"]])
        after = page["after"]
        if after is None:
            return told


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, [0]), (1, [1]), (99, [99]), (100, [100, 0]), (101, [100, 1]), (250, [100, 100, 50])],
)
def test_a_page_has_a_hundred_rows_at_most_and_a_cursor(count: int, sizes: list[int]) -> None:
    told = pages(rows(count))
    assert [len(page) for page in told] == sizes
    assert [one for page in told for one in page] == list(range(count, 0, -1))


def test_nothing_is_lost_between_two_pages_that_bytes_end() -> None:
    for text in ("x" * 1_024, "\x01" * 1_024):  # escapes make six bytes of each
        told = pages(rows(120, analysis=text, reason=text * 3))
        assert [one for page in told for one in page] == list(range(120, 0, -1))
        sizes = [len(gather(rows(120, analysis=text, reason=text * 3), wanted(), NOW)
                     .encoded(wanted(), NOW, limits.HISTORY_PAGE))]  # fmt: skip
        assert max(sizes) <= limits.HISTORY_PAGE


def test_a_broker_that_takes_less_gets_smaller_pages() -> None:
    told = pages(rows(30, reason="x" * 300), limit=8_192)
    assert [one for page in told for one in page] == list(range(30, 0, -1))
    assert max(len(page) for page in told) < 20
    one = wanted()
    assert len(gather(rows(30, reason="x" * 300), one, NOW).encoded(one, NOW, 8_192)) <= 8_192


def test_ten_thousand_are_looked_at_for_one_page_and_then_there_is_a_cursor() -> None:
    many = rows(limits.HISTORY_LOOKED + 5, by="bert")
    found = gather(many, wanted(account="anna"), NOW)
    assert (list(found.rows), found.after) == ([], 6)
    assert gather(many[:-5], wanted(account="anna"), NOW).after == 6
    assert gather(many[:-6], wanted(account="anna"), NOW).after is None
    assert pages(many, by="anna") == [[], []]


def test_one_command_is_looked_at_however_late_it_is() -> None:
    found = gather(rows(3), wanted(), NOW, lambda: True)
    assert [cursor for cursor, _ in found.rows] == [3]
    assert found.after == 3


def test_a_long_meta_is_looked_at_and_not_told() -> None:
    meta = dumps({"course": "1b", "long": "x" * limits.HISTORY_TEXT})
    ((_, text),) = gather([(1, row(meta=meta))], wanted(meta={"course": "1b"}), NOW).rows
    assert loads(text)["meta"] == ""


def test_what_is_no_page_is_none() -> None:
    good = gather(rows(1), wanted(), NOW).encoded(wanted(), NOW, limits.HISTORY_PAGE)
    fields = loads(good.decode())
    assert PAGE.holds(fields)
    for wrong in ({"rows": [{}]}, {"rows": {}}, {"after": "x"}, {"user": "a b"}):
        assert read_page(dumps(fields | wrong).encode()) is None
    assert read_page(b"[]") is None
