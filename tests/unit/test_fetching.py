"""The bytes of a command's files, asked for and compared; what comes of others is no answer."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from hwsync.operator.fetching import fetching
from hwsync.protocol.errors import Code, NoCoordinator, Refused
from hwsync.protocol.files import File
from hwsync.transport import Delivery, Signal
from tests.support.operator_line import Line, error, result

A, B = File.of("a.csv", b"1,2"), File.of("data/b", b"bb")
TOLD: dict[str, Any] = {
    "files": {one.path: {"size": one.size, "sha256": one.sha256} for one in (A, B)}
}


def answer(*files: File, **changes: Any) -> Delivery:
    """A result with the bytes of these; ``changes``: of each."""
    said = {**TOLD["files"]}
    for one in files:
        data = b64encode(one.data or b"").decode()
        said[one.path] = {**said[one.path], "data": data, **changes}
    return result("p", files=said)


def fetch(line: Line, *signals: Signal | None, paths: list[str] | None = None) -> Any:
    return line.drive(fetching(line.conversation, "c1", TOLD, paths), *signals)


def asked(line: Line) -> list[list[str]]:
    return [json.loads(payload)["files"] for _, payload in line.messages]


def test_all_or_some_are_asked_for_at_once() -> None:
    line = Line()
    assert fetch(line, answer(A, B)) == {"a.csv": b"1,2", "data/b": b"bb"}
    assert fetch(line, answer(B), paths=["data/b", "never"]) == {"data/b": b"bb"}
    assert asked(line) == [["a.csv", "data/b"], ["data/b"]]


def test_nothing_is_asked_for_where_there_is_nothing() -> None:
    line = Line()
    assert fetch(line, paths=["never"]) == {}
    assert line.drive(fetching(line.conversation, "c1", {})) == {}
    outside = {"files": {"../a": {"size": 1, "sha256": "x"}}}
    assert line.drive(fetching(line.conversation, "c1", outside)) == {}
    assert line.messages == []


def test_a_result_for_somebody_else_is_no_answer() -> None:
    line = Line()
    assert fetch(line, result("p", "c0"), answer(), answer(A, B)) == {
        "a.csv": b"1,2",
        "data/b": b"bb",
    }


@pytest.mark.parametrize("changes", [{"data": "!"}, {"data": "eA=="}], ids=str)
def test_bytes_of_another_hash_are_not_there(changes: dict[str, Any]) -> None:
    wrong = answer(A, **changes)
    assert fetch(Line(), wrong, wrong, paths=["a.csv"]) == {}


def test_what_does_not_fit_together_is_asked_for_one_by_one() -> None:
    line = Line()
    assert fetch(line, answer(), answer(), answer(A), answer(B)) == {
        "a.csv": b"1,2",
        "data/b": b"bb",
    }
    assert asked(line) == [["a.csv", "data/b"], ["a.csv"], ["data/b"]]


def test_a_refusal_for_coming_too_soon_is_waited_out() -> None:
    line = Line()
    soon = error(Code.NOT_ALLOWED, "query")
    assert fetch(line, soon, None, answer(A, B))["a.csv"] == b"1,2"
    assert line.now >= 1.0
    with pytest.raises(Refused):
        fetch(line, *[soon, None] * 10)
    with pytest.raises(Refused):
        fetch(line, error(Code.NOT_CURRENT, "query"))


def test_nobody_answers() -> None:
    with pytest.raises(NoCoordinator):
        fetch(Line())
