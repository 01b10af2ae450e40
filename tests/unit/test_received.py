"""What an operator hears may be forged: what is not as the protocol says is nobody's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hwsync.protocol.limits import MAX_DEPTH, MAX_MESSAGE
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.received import Received, read_received
from tests.support.fuzz_payloads import VALID

# Than the other fields.
LATER = {"name", "order", "start_life", "files", "not_kept", "ran_on", "analysed_by", "no_analysis"}
HEARD = (
    TopicKind.STATUS,
    TopicKind.RESULT,
    TopicKind.ERROR,
    TopicKind.OUTPUT,
    TopicKind.HEARTBEAT,
    TopicKind.HEALTH,
)


def valid(kind: TopicKind) -> dict[str, Any]:
    one = VALID[kind][0]
    assert isinstance(one, dict)
    return dict(json.loads(json.dumps(one)))


@pytest.mark.parametrize("kind", HEARD)
def test_what_is_said_by_the_protocol_is_heard_whole(kind: TopicKind) -> None:
    fields = {**valid(kind), "of a later version": [1, {"x": None}]}
    assert read_received(kind, json.dumps(fields).encode()) == fields


@pytest.mark.parametrize("kind", HEARD)
def test_each_field_is_needed_and_of_its_kind(kind: TopicKind) -> None:
    fields = valid(kind)
    loose = set()
    for name in fields:
        without = {key: value for key, value in fields.items() if key != name}
        if read_received(kind, json.dumps(without).encode()) is not None:
            loose.add(name)
            continue
        for shape in ({}, [[]], [1, 2], {"a": 1}):
            assert read_received(kind, json.dumps(fields | {name: shape}).encode()) is None, name
    needed = {
        TopicKind.STATUS: fields.keys() - LATER - {"analyser"},
        TopicKind.RESULT: fields.keys() - LATER
        - {"sha256", "start_at", "start", "regrades", "collect", "sent", "digest"},
        TopicKind.ERROR: fields.keys() - {"state"}, TopicKind.OUTPUT: fields.keys() - {"at",
        "skipped"},
        TopicKind.HEARTBEAT: {"online", "journal", "boot"}, TopicKind.HEALTH: {"condition"},
    }  # fmt: skip
    assert fields.keys() - loose == needed[kind]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (TopicKind.STATUS, {"state": 4}), (TopicKind.STATUS, {"state": True}),
        (TopicKind.STATUS, {"state": 1.0}),
        (TopicKind.STATUS, {"outcome": "won"}), (TopicKind.STATUS, {"ran": "perhaps"}),
        (TopicKind.STATUS, {"settled": [["a"]]}), (TopicKind.STATUS, {"settled": ["ab"]}),
        (TopicKind.STATUS, {"settled": [["a", 1]]}), (TopicKind.STATUS, {"exit_code": 2**40}),
        (TopicKind.STATUS, {"duration": 10**400}), (TopicKind.STATUS, {"queued": -1}),
        (TopicKind.STATUS, {"hw_response": "\ud800"}), (TopicKind.STATUS, {"more": {"\udfff": 1}}),
        (TopicKind.STATUS, {"journal": "a b"}), (TopicKind.RESULT, {"args": [1]}),
        (TopicKind.STATUS, {"name": 1}), (TopicKind.STATUS, {"order": 1}),
        (TopicKind.RESULT, {"order": [1]}),
        (TopicKind.RESULT, {"order": [["stdout"]]}),
        (TopicKind.RESULT, {"order": [["stdout", -1]]}),
        (TopicKind.RESULT, {"order": [[1, 1]]}), (TopicKind.STATUS, {"order": {}}),
        (TopicKind.STATUS, {"order": "stdout"}), (TopicKind.STATUS, {"order": ["stdout"]}),
        (TopicKind.STATUS, {"order": [[["stdout"], 3]]}), (TopicKind.STATUS, {"order": [[{}, 1]]}),
        (TopicKind.STATUS, {"order": [["stdout", True]]}),
        (TopicKind.STATUS, {"order": [["stdout", 2.0]]}),
        (TopicKind.OUTPUT, {"at": -1}), (TopicKind.OUTPUT, {"at": "1"}),
        (TopicKind.OUTPUT, {"at": 1.0}),
        (TopicKind.OUTPUT, {"at": True}), (TopicKind.OUTPUT, {"at": [0]}),
        (TopicKind.OUTPUT, {"at": {}}),
        (TopicKind.OUTPUT, {"skipped": 1.5}), (TopicKind.OUTPUT, {"skipped": True}),
        (TopicKind.OUTPUT, {"skipped": -1}), (TopicKind.OUTPUT, {"skipped": "5"}),
        (TopicKind.OUTPUT, {"skipped": [1]}), (TopicKind.OUTPUT, {"n": -1}),
        (TopicKind.OUTPUT, {"n": None}),
        (TopicKind.OUTPUT, {"text": None}), (TopicKind.OUTPUT, {"stream": ["stdout"]}),
        (TopicKind.HEARTBEAT, {"time": "soon"}), (TopicKind.HEARTBEAT, {"time": 10**400}),
        (TopicKind.HEARTBEAT, {"journal": ["j1"]}), (TopicKind.HEALTH, {"time": True}),
    ],
    ids=str,
)  # fmt: skip
def test_what_nobody_could_show_or_count_is_passed_over(
    kind: TopicKind, changes: dict[str, Any]
) -> None:
    assert read_received(kind, json.dumps(valid(kind) | changes).encode()) is None


def test_other_kinds_and_other_payloads_are_nothing() -> None:
    assert read_received(TopicKind.REQUEST, b"{}") is None
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    for payload in (
        *(b"", b"[]", b"{", b"\xff", b"null", json.dumps(valid(TopicKind.STATUS)).encode()[:-1]),
        json.dumps(valid(TopicKind.HEALTH)).encode() + b" " * MAX_MESSAGE,
        f'{{"condition":"ok","deep":{deep}}}'.encode(),
    ):
        for kind in HEARD:
            assert read_received(kind, payload) is None


BATCH: dict[str, Any] = {
    "group": "lab1", "id": "b1", "epoch": 0, "seq": 3, "state": "open", "issued": 1.5,
    "ended": None, "counts": {"members": 3, "ok": 1},
    "members": {
        "pi1": {"state": 0, "outcome": "ok", "ran": "yes", "exit_code": 0, "started": 1.5,
                "start_error": 0.0, "clock_bound": None, "refused": None},
        "pi2": {"state": 1}, "pi3": {"refused": "busy"},
    },
    "spread": {"n": 1, "seconds": 0.0, "bound": None},
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "over"}, {"members": []}, {"members": {"pi 1": {}}}, {"members": {"pi1": []}},
        {"members": {"pi1": {"state": 4}}}, {"members": {"pi1": {"outcome": "fine"}}},
        {"members": {"pi1": {"ran": True}}}, {"members": {"pi1": {"started": "now"}}},
        {"members": {"pi1": {"refused": "\u001b[2J"}}}, {"counts": {"ok": -1}}, {"counts": [1]},
        {"id": ""}, {"group": "@lab1"}, {"ended": "x"},
    ],
)  # fmt: skip
def test_what_is_said_of_a_group(changes: dict[str, Any]) -> None:
    for kind in (TopicKind.STATUS, TopicKind.RESULT):
        assert read_received(kind, json.dumps(BATCH).encode(), "@lab1") == BATCH
        assert Received("@lab1", kind, BATCH).batch == BATCH
        assert read_received(kind, json.dumps(BATCH | changes).encode(), "@lab1") is None
        assert read_received(kind, json.dumps(BATCH).encode(), "pi1") is None
    group = Received("@lab1", TopicKind.STATUS, BATCH)
    assert group.status is group.result is group.members is None


@pytest.mark.parametrize(
    ("members", "is_one"),
    [({"pi1": True, "pi2": None}, True), ({}, True), ({"pi1": 1}, False), (["pi1"], False)],
)
def test_who_is_said_to_be_in_a_group(members: Any, is_one: bool) -> None:
    fields = {"group": "lab1", "members": members}
    found = read_received(TopicKind.MEMBERS, json.dumps(fields).encode(), "@lab1")
    assert (found == fields) is is_one
    assert read_received(TopicKind.MEMBERS, json.dumps(fields).encode(), "pi1") is None
    assert read_received(TopicKind.MEMBERS, json.dumps(fields).encode(), "@hwsync") is None
