"""Each limit of what is said on the wire, from both sides: below it, at it, above it.

The figures are written out here, as docs/protocol.md has them: a constant that was changed is
found, and so is a check with another's constant. What a queue holds is in ``test_queue``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import Code
from hwsync.protocol.record import (
    Command,
    Outcome,
    Ran,
    Record,
    Request,
    RunReport,
    State,
)
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.envelope import read_envelope
from hwsync.protocol.wire.received import read_received
from hwsync.protocol.wire.response import encode_response
from hwsync.protocol.wire.status import encode_status, status_json
from hwsync.store.reader import Reader
from tests.support.coordinator import Deed, Lab, request, result, sent

Said = Callable[[Lab, Any], list[Deed]]


@dataclass(frozen=True)
class Limit:
    """``said`` says a value; ``below`` and ``at`` are accepted, ``above`` is refused with ``code``.

    Of a smallest value, ``below`` is the larger one: always what is within.
    """

    name: str
    said: Said
    below: Any
    at: Any
    above: Any
    code: Code = Code.BAD_PAYLOAD
    state: int = 0  # of the record that hears it
    by_hand: bool = False  # who brought it there


def of_request(make: Callable[[Any], dict[str, Any]]) -> Said:
    """A request with these keys."""
    return lambda lab, value: lab.hear("request", request(**make(value)))


def key(name: str) -> Said:
    """A request in which that key has the value."""
    return of_request(lambda value: {name: value})


def size_of(name: str, fill: str = "x") -> Said:
    """A request in which the text of that key has so many bytes."""
    return of_request(lambda size: {name: fill * (size // len(fill.encode()))})


def plain(kind: str) -> Said:
    """A message of so many bytes that is no JSON."""
    return lambda lab, size: lab.hear(kind, b"#" * size)


def of_result(make: Callable[[Any], dict[str, Any]]) -> Said:
    """A device's result with these keys."""
    return lambda lab, value: lab.hear("response", result(**make(value)))


def with_reply(make: Callable[[Any], dict[str, Any]]) -> Said:
    """A request of MQTT 5."""

    def said(lab: Lab, value: Any) -> list[Deed]:
        properties = {"reply_topic": "replies/me", **make(value)}
        return lab.step(replace(lab.delivery("request", request()), **properties))

    return said


def nested(depth: int) -> list[Any]:
    """Lists inside each other."""
    return [] if depth == 1 else [nested(depth - 1)]


LARGE, BAD = Code.TOO_LARGE, Code.BAD_PAYLOAD
LIMITS = [
    Limit("TIMEOUT_S, least", key("timeout"), 0.11, 0.1, 0.099),
    Limit("TIMEOUT_S, most", key("timeout"), 2_591_999, 2_592_000, 2_592_000.5),
    Limit("EXPIRES_S, least", key("expires"), 1.01, 1, 0.99),
    Limit("EXPIRES_S, none", key("expires"), 1, 0, -1),
    Limit("EXPIRES_S, most", key("expires"), 2_591_999, 2_592_000, 2_592_000.5),
    Limit("EXPIRES_AT_S", key("expires_at"), 253_402_300_798, 253_402_300_799, 253_402_300_800),
    Limit("GRACE_S, least", key("grace"), 1.01, 1, 0.99),
    Limit("GRACE_S, most", key("grace"), 3_599, 3_600, 3_600.5),
    Limit("MAX_PROGRAM", size_of("program"), 262_143, 262_144, 262_145, LARGE),
    Limit("MAX_PROGRAM, two bytes", size_of("program", "é"), 262_142, 262_144, 262_146, LARGE),
    Limit("MAX_PROGRAM, plain", plain("request"), 262_143, 262_144, 262_145, LARGE),
    # Two bytes of them are the {} of ``meta``.
    Limit("MAX_EXTRAS, stdin", size_of("stdin"), 65_533, 65_534, 65_535, LARGE),
    Limit("MAX_EXTRAS, args", of_request(lambda n: {"args": ["x"] * n}), 65_533, 65_534, 65_535,
          LARGE),
    Limit("MAX_EXTRAS, meta", of_request(lambda n: {"meta": "x" * (n - 2)}), 65_535, 65_536, 65_537,
          LARGE),
    Limit("MAX_EXTRAS, together",
          of_request(lambda n: {"stdin": "x" * (n - 2_002), "args": ["x" * 2_000]}),
          65_535, 65_536, 65_537, LARGE),
    Limit("MAX_MESSAGE", lambda lab, size: lab.hear("request", request().ljust(size)),
          4_194_303, 4_194_304, 4_194_305, LARGE),
    Limit("MAX_DEPTH", of_request(lambda n: {"meta": nested(n - 1)}), 99, 100, 101),
    Limit("ID", of_request(lambda n: {"id": "i" * n}), 63, 64, 65),
    Limit("NAME", of_request(lambda n: {"name": "n" * n}), 63, 64, 65),
    Limit("USER", lambda lab, size: lab.hear("request", request(), user="u" * size), 63, 64, 65,
          Code.BAD_USER),
    Limit("MAX_REPLY_TOPIC", with_reply(lambda n: {"reply_topic": "r" * n}), 1_023, 1_024, 1_025),
    Limit("MAX_TOPIC_LEVELS", with_reply(lambda n: {"reply_topic": "/".join("r" * n)}), 31, 32, 33),
    Limit("MAX_CORRELATION", with_reply(lambda n: {"correlation": bytes(n)}), 1_023, 1_024, 1_025,
          LARGE),
    Limit("MAX_ANALYSIS, plain", plain("analysis"), 65_535, 65_536, 65_537, LARGE, state=3),
    Limit("MAX_ANALYSIS", lambda lab, n: lab.hear("analysis", b'{"analysis":"%s"}' % (b"x" * n)),
          65_535, 65_536, 65_537, LARGE, state=3),
    Limit("MAX_RESPONSE, plain", plain("response"), 262_143, 262_144, 262_145, LARGE, 2, True),
    Limit("exit_code, most", of_result(lambda n: {"exit_code": n}), 2**32 - 1, 2**32, 2**32 + 1,
          state=2),
    Limit("exit_code, least", of_result(lambda n: {"exit_code": n}), 1 - 2**32, -(2**32),
          -(2**32) - 1, state=2),
]  # fmt: skip


@pytest.mark.parametrize("which", ["below", "at", "above"])
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: str(limit.name))
def test_what_the_coordinator_hears(lab: Lab, limit: Limit, which: str) -> None:
    (lab.hand if limit.by_hand else lab.device)(limit.state)
    deeds = limit.said(lab, getattr(limit, which))
    errors = [error.json["error"] for error in sent(deeds, "error")]
    assert errors == ([limit.code] if which == "above" else [])
    moved = any(status.json["state"] != limit.state for status in sent(deeds, "status"))
    assert moved is (which != "above")


# What a device says of a finished run is never lost for its size: it is cut, and marked.
@pytest.mark.parametrize(
    ("key", "limit"),
    [("response", 262_144), ("stderr", 65_536), ("reason", 500)],
    ids=["MAX_RESPONSE", "MAX_STDERR", "MAX_REASON"],
)
@pytest.mark.parametrize("above", [-1, 0, 1])
def test_a_device_s_texts_are_cut_above_their_limit(
    lab: Lab, key: str, limit: int, above: int
) -> None:
    lab.device(2)
    lab.hear("response", result(**{key: "x" * (limit + above)}))
    report = report_of(lab)
    kept = getattr(report, key)
    assert len(kept) <= limit
    assert (kept == "x" * (limit + above)) is (above <= 0)
    assert report.truncated is (above > 0 and key != "reason")


def report_of(lab: Lab) -> RunReport:
    """How the present command ended."""
    assert lab.record.current is not None
    assert lab.record.current.report is not None
    return lab.record.current.report


# The other side: what is beyond a limit is no envelope, and nobody runs it.
ENVELOPES: list[tuple[str, Callable[[Any], dict[str, Any]], Any, Any, Any]] = [
    ("TIMEOUT_S, least", lambda value: {"timeout": value}, 0.11, 0.1, 0.099),
    ("TIMEOUT_S, most", lambda value: {"timeout": value}, 2_591_999, 2_592_000, 2_592_000.5),
    ("GRACE_S, least", lambda value: {"grace": value}, 1.01, 1, 0.99),
    ("GRACE_S, most", lambda value: {"grace": value}, 3_599, 3_600, 3_600.5),
    ("ID", lambda size: {"id": "i" * size}, 63, 64, 65),
    ("NAME", lambda size: {"name": "n" * size}, 63, 64, 65),
    ("USER", lambda size: {"user": "u" * size}, 63, 64, 65),
    ("MAX_DEPTH", lambda depth: {"more": nested(depth - 1)}, 99, 100, 101),
    ("MAX_INT", lambda value: {"seq": value}, 2**53 - 1, 2**53, 2**53 + 1),
    ("MAX_MESSAGE", lambda size: {"size": size}, 4_194_303, 4_194_304, 4_194_305),
]


@pytest.mark.parametrize(
    ("make", "below", "at", "above"),
    [limit[1:] for limit in ENVELOPES],
    ids=[limit[0] for limit in ENVELOPES],
)
def test_what_a_device_runs(
    make: Callable[[Any], dict[str, Any]], below: Any, at: Any, above: Any
) -> None:
    def is_read(value: Any) -> bool:
        fields = {"v": 1, "id": "c1", "user": "pi1", "epoch": 1, "seq": 1, "program": "p",
                  "timeout": 10, "stdin": "", "args": [], **make(value)}  # fmt: skip
        size = fields.pop("size", 0)
        return read_envelope(json.dumps(fields).encode().ljust(size)) is not None

    assert (is_read(below), is_read(at), is_read(above)) == (True, True, False)


ENDED = RunReport(Outcome.OK, Ran.YES)
SHOWN = Command("pi1", "c1", Request("p"), journal="j1", boot=1, report=ENDED)


@pytest.mark.parametrize(
    ("key", "below", "at", "above"),
    [
        ("exit_code", 2**32 - 1, 2**32, 2**32 + 1),
        ("seq", 2**53 - 1, 2**53, 2**53 + 1),
        ("state", 2, 3, 4),
        ("journal", "j" * 63, "j" * 64, "j" * 65),
    ],
)
def test_what_an_operator_takes_for_a_status(key: str, below: Any, at: Any, above: Any) -> None:
    def is_read(value: Any) -> bool:
        fields = status_json(Record("pi1", State.RETURNED, current=SHOWN)) | {key: value}
        return read_received(TopicKind.STATUS, json.dumps(fields).encode()) is not None

    assert (is_read(below), is_read(at), is_read(above)) == (True, True, False)


def test_a_status_is_cut_above_its_limit() -> None:
    def status(size: int) -> tuple[int, bool]:
        report = replace(ENDED, response="x" * size)
        payload = encode_status(Record("pi1", current=replace(SHOWN, report=report)))
        return len(payload), json.loads(payload)["truncated"]

    rest = status(0)[0]
    assert status(1_048_575 - rest) == (1_048_575, False)
    assert status(1_048_576 - rest) == (1_048_576, False)
    size, truncated = status(1_048_577 - rest)
    assert size <= 1_048_576
    assert truncated


NUMBERS = {"duration": 1.5, "started": 2.5, "start_error": 3.5, "clock_bound": 4.5}
"""Of a result. Two of them are reserved, and nobody but this test would notice them swapped."""


def test_the_numbers_of_a_result_keep_their_names(lab: Lab) -> None:
    lab.device(2)
    deeds = lab.hear("response", result(**NUMBERS))
    for topic in ("status", "result/c1"):
        said = sent([*deeds, *lab.hear("query", b'{"id":"c1"}')], topic)[-1].json
        assert {name: said[name] for name in NUMBERS} == NUMBERS
    (row,) = lab.rows("commands", ", ".join(NUMBERS))
    assert row == tuple(NUMBERS.values())
    with Reader(Path(lab.path)) as reader:
        shown = reader.show("pi1", "c1")
    assert {name: shown[name] for name in NUMBERS} == NUMBERS
    lab.restart()
    assert {name: getattr(report_of(lab), name) for name in NUMBERS} == NUMBERS


def test_a_device_says_the_numbers_by_their_names() -> None:
    said = json.loads(encode_response("c1", "j1", 1, replace(ENDED, **NUMBERS)))
    assert {name: said[name] for name in NUMBERS} == NUMBERS
