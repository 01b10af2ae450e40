"""wire.published: its types say what ``wire.heard`` has checked, and forget no field."""

from __future__ import annotations

from typing import Any, NotRequired, get_origin, get_type_hints

import pytest

from hwsync.protocol.record import Command, Record, Request, State
from hwsync.protocol.topics import Kind
from hwsync.protocol.wire import heard, published
from hwsync.protocol.wire.status import result_json, status_json

TYPES: dict[Kind, Any] = {
    Kind.STATUS: published.Status,
    Kind.RESULT: published.Result,
    Kind.ERROR: published.Error,
    Kind.OUTPUT: published.Output,
    Kind.HEARTBEAT: published.Heartbeat,
    Kind.HEALTH: published.Health,
    Kind.BOARDS: published.Boards,
}


def fields_of(type_: Any) -> tuple[set[str], dict[str, Any]]:
    """Those that a message always has, and the type of each other one."""
    hints = get_type_hints(type_, include_extras=True)
    other = {key: hint for key, hint in hints.items() if get_origin(hint) is NotRequired}
    return hints.keys() - other.keys(), other


def test_each_kind_that_is_heard_has_a_type() -> None:
    assert TYPES.keys() == heard._FIELDS.keys()


@pytest.mark.parametrize("kind", TYPES)
def test_a_field_is_there_for_sure_where_it_was_looked_for(kind: Kind) -> None:
    always, other = fields_of(TYPES[kind])
    assert always == heard._NEEDED[kind]
    checked = {key for key, hint in other.items() if hint != NotRequired[object]}
    assert checked == heard._FIELDS[kind].keys() - heard._NEEDED[kind]


def test_what_the_coordinator_writes_has_these_fields_and_no_other() -> None:
    command = Command("pi1", "c1", Request("1", "c1"))
    wrote = {
        Kind.STATUS: status_json(Record("pi1", current=command)).keys(),
        Kind.RESULT: result_json(command, State.REST).keys() - {"sha256"},
    }
    for kind, keys in wrote.items():
        always, other = fields_of(TYPES[kind])
        assert keys == always | other.keys()


@pytest.mark.parametrize("kind", TYPES)
def test_a_message_is_of_one_kind_and_a_cleared_one_of_none(kind: Kind) -> None:
    kinds = ("status", "result", "error", "heartbeat", "health", "boards")
    named = [name for name in kinds if getattr(published.Heard("pi1", kind, {"x": 1}), name)]
    assert named == ([kind.name.lower()] if kind is not Kind.OUTPUT else [])
    assert not any(getattr(published.Heard("pi1", kind, {}), name) is not None for name in kinds)
