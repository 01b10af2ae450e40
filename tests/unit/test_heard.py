"""What an operator hears may be forged: what is not as the protocol says is nobody's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hwsync.protocol.limits import MAX_DEPTH, MAX_MESSAGE
from hwsync.protocol.topics import Kind
from hwsync.protocol.wire.heard import read_heard
from tests.support.fuzz_payloads import VALID

HEARD = (Kind.STATUS, Kind.RESULT, Kind.ERROR, Kind.OUTPUT, Kind.HEARTBEAT, Kind.HEALTH)


def valid(kind: Kind) -> dict[str, Any]:
    one = VALID[kind][0]
    assert isinstance(one, dict)
    return dict(json.loads(json.dumps(one)))


@pytest.mark.parametrize("kind", HEARD)
def test_what_is_said_by_the_protocol_is_heard_whole(kind: Kind) -> None:
    fields = {**valid(kind), "of a later version": [1, {"x": None}]}
    assert read_heard(kind, json.dumps(fields).encode()) == fields


@pytest.mark.parametrize("kind", HEARD)
def test_each_field_is_needed_and_of_its_kind(kind: Kind) -> None:
    fields = valid(kind)
    loose = set()
    for name in fields:
        without = {key: value for key, value in fields.items() if key != name}
        if read_heard(kind, json.dumps(without).encode()) is not None:
            loose.add(name)
            continue
        for shape in ({}, [[]], [1, 2], {"a": 1}):
            assert read_heard(kind, json.dumps(fields | {name: shape}).encode()) is None, name
    needed = {
        Kind.STATUS: fields.keys() - {"name", "order"},
        Kind.RESULT: fields.keys() - {"name", "order", "sha256"},
        Kind.ERROR: fields.keys() - {"state"}, Kind.OUTPUT: fields.keys() - {"at", "skipped"},
        Kind.HEARTBEAT: {"online", "journal", "boot"}, Kind.HEALTH: {"condition"},
    }  # fmt: skip
    assert fields.keys() - loose == needed[kind]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Kind.STATUS, {"state": 4}), (Kind.STATUS, {"state": True}), (Kind.STATUS, {"state": 1.0}),
        (Kind.STATUS, {"outcome": "won"}), (Kind.STATUS, {"ran": "perhaps"}),
        (Kind.STATUS, {"settled": [["a"]]}), (Kind.STATUS, {"settled": ["ab"]}),
        (Kind.STATUS, {"settled": [["a", 1]]}), (Kind.STATUS, {"exit_code": 2**40}),
        (Kind.STATUS, {"duration": 10**400}), (Kind.STATUS, {"queued": -1}),
        (Kind.STATUS, {"hw_response": "\ud800"}), (Kind.STATUS, {"more": {"\udfff": 1}}),
        (Kind.STATUS, {"journal": "a b"}), (Kind.RESULT, {"args": [1]}),
        (Kind.STATUS, {"name": 1}), (Kind.STATUS, {"order": 1}), (Kind.RESULT, {"order": [1]}),
        (Kind.RESULT, {"order": [["stdout"]]}), (Kind.RESULT, {"order": [["stdout", -1]]}),
        (Kind.RESULT, {"order": [[1, 1]]}), (Kind.STATUS, {"order": {}}),
        (Kind.STATUS, {"order": "stdout"}), (Kind.STATUS, {"order": ["stdout"]}),
        (Kind.STATUS, {"order": [[["stdout"], 3]]}), (Kind.STATUS, {"order": [[{}, 1]]}),
        (Kind.STATUS, {"order": [["stdout", True]]}), (Kind.STATUS, {"order": [["stdout", 2.0]]}),
        (Kind.OUTPUT, {"at": -1}), (Kind.OUTPUT, {"at": "1"}), (Kind.OUTPUT, {"at": 1.0}),
        (Kind.OUTPUT, {"at": True}), (Kind.OUTPUT, {"at": [0]}), (Kind.OUTPUT, {"at": {}}),
        (Kind.OUTPUT, {"skipped": 1.5}), (Kind.OUTPUT, {"skipped": True}),
        (Kind.OUTPUT, {"skipped": -1}), (Kind.OUTPUT, {"skipped": "5"}),
        (Kind.OUTPUT, {"skipped": [1]}), (Kind.OUTPUT, {"n": -1}), (Kind.OUTPUT, {"n": None}),
        (Kind.OUTPUT, {"text": None}), (Kind.OUTPUT, {"stream": ["stdout"]}),
        (Kind.HEARTBEAT, {"time": "soon"}), (Kind.HEARTBEAT, {"time": 10**400}),
        (Kind.HEARTBEAT, {"journal": ["j1"]}), (Kind.HEALTH, {"time": True}),
    ],
    ids=str,
)  # fmt: skip
def test_what_nobody_could_show_or_count_is_passed_over(
    kind: Kind, changes: dict[str, Any]
) -> None:
    assert read_heard(kind, json.dumps(valid(kind) | changes).encode()) is None


def test_other_kinds_and_other_payloads_are_nothing() -> None:
    assert read_heard(Kind.REQUEST, b"{}") is None
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    for payload in (
        *(b"", b"[]", b"{", b"\xff", b"null", json.dumps(valid(Kind.STATUS)).encode()[:-1]),
        json.dumps(valid(Kind.HEALTH)).encode() + b" " * MAX_MESSAGE,
        f'{{"condition":"ok","deep":{deep}}}'.encode(),
    ):
        for kind in HEARD:
            assert read_heard(kind, payload) is None
