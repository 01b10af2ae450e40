"""wire: what is written is what the tables say, and a table says all of it."""

from __future__ import annotations

import json
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypedDict, get_type_hints

import pytest

from hwsync.coordinator.health import Life, Tally, health
from hwsync.protocol import limits, wire
from hwsync.protocol.effects import PublishError
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import Collected, HeartbeatReceived
from hwsync.protocol.jsons import Micros, dumps, loads
from hwsync.protocol.record import Command, Outcome, Ran, Record, Request, RunReport, State
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire import (
    asking,
    envelope,
    error,
    heartbeat,
    itself,
    request,
    response,
    status,
)
from hwsync.protocol.wire.error import ERROR, encode_error
from hwsync.protocol.wire.forms import Count, Text
from hwsync.protocol.wire.heartbeat import HEARTBEAT, encode_heartbeat, read_heartbeat
from hwsync.protocol.wire.itself import Condition
from hwsync.protocol.wire.received import TABLES, Received
from hwsync.protocol.wire.schema import Field, Schema
from tests.support.coordinator import OUTBOX

REPORT = RunReport(*(Outcome.OK, Ran.YES, "", "42\n", "", 0, 0.5, 1.7e9), order=(("stdout", 3),))
COMMAND = Command("pi1", "c1", Request("print(42)", "c1"), journal="j1", boot=1, report=REPORT)
RECORD = Record("pi1", State.RETURNED, settled=(("c1", "j1"),), current=COMMAND)
HEALTH = health(
    *(Condition.OK, Tally(), Life(0.0, 0.0), {}, [RECORD]),
    outbox=OUTBOX, schema=1, wall=1.7e9, monotonic=1.0,
)  # fmt: skip
SIGNED = envelope.encode_signed("{}", "ed25519:x", "x")

WRITTEN: list[tuple[Schema[Any], bytes]] = [
    (request.REQUEST, request.encode_request("1", id="c1", queue=True, meta={"by": "anna"})),
    (asking.CANCEL, asking.encode_id("c1")),
    (asking.QUERY, asking.encode_id("c1")),
    (asking.RESET, asking.encode_reset("c1", queue=True)),
    (asking.RESET, asking.FORGET),
    (asking.ANALYSIS, asking.encode_analysis("good", "c1")),
    (envelope.ENVELOPE, envelope.encode_envelope(RECORD)),
    (envelope.ENVELOPE, envelope.encode_envelope(RECORD, limits.MESSAGE_BYTES[0])),
    (envelope.SEAL, SIGNED),
    (response.COLLECTED, response.encode_collected("c1", "j1", 1)),
    (response.OUTPUT, response.encode_output("c1", 0, "stdout", "42\n", 0, 7)),
    (response.RESPONSE, response.encode_response("c1", "j1", 1, REPORT)),
    (status.STATUS, status.encode_status(RECORD)),
    (status.STATUS, status.encode_status(Record("pi1"))),
    (status.RESULT, status.encode_result(COMMAND, State.REST)),
    (ERROR, encode_error(PublishError(Refused(Code.BUSY, "pi1 is busy"), State.COLLECTED, "hw"))),
    (HEARTBEAT, encode_heartbeat(online=True, journal="j1", boot=1, seen=(0, 1), time=1.7e9)),
    (HEARTBEAT, encode_heartbeat(online=False, journal="j1", boot=1)),
    (itself.HEALTH, itself.encode_health(HEALTH)),
    (itself.HEALTH, itself.GONE),
    (itself.BOARDS, itself.encode_boards(1.7e9, 3.0, [("pi1", 0.5), ("pi2", None)])),
    (itself.SIGN, itself.Sign("lab", "/db", 1.7e9).encode(1.7e9)),
]


def always(schema: Schema[Any]) -> set[str]:
    return {field.key for field in schema.fields if field.needed}


@pytest.mark.parametrize(
    ("schema", "payload"),
    [pytest.param(s, p, id=f"{s.what}-{n}") for n, (s, p) in enumerate(WRITTEN)],
)
def test_what_is_written_is_what_the_table_says(schema: Schema[Any], payload: bytes) -> None:
    fields = json.loads(payload)
    order = [field.key for field in schema.fields]
    assert list(fields) == sorted(fields, key=order.index), "in the table's order"
    assert always(schema) <= fields.keys()
    for key, value in fields.items():
        assert schema.by_key[key].takes(value), f"{key}: {value!r}"
    assert schema.holds(fields)


def test_each_table_is_written_by_something() -> None:
    written = {id(schema) for schema, _ in WRITTEN}
    modules = (request, asking, envelope, response, status, error, heartbeat, itself)
    for module in modules:
        for name, one in vars(module).items():
            assert name.startswith("_") or type(one) is not Schema or id(one) in written, name
    assert {id(schema) for schema in TABLES.values()} <= written


def test_a_status_and_the_whole_of_a_command_have_every_field() -> None:
    for schema, payload in WRITTEN:
        will = payload == itself.GONE
        if not will and schema in (status.STATUS, status.RESULT, itself.HEALTH, itself.SIGN, ERROR):
            assert list(json.loads(payload)) == [field.key for field in schema.fields]


def every_field() -> list[tuple[Schema[Any], Field]]:
    schemas = {id(schema): schema for schema, _ in WRITTEN}.values()
    return [(schema, field) for schema in schemas for field in schema.fields]


@pytest.mark.parametrize(
    ("schema", "field"),
    [pytest.param(s, f, id=f"{s.what}-{f.key}") for s, f in every_field()],
)
def test_what_stands_for_a_field_that_lacks_is_of_its_form(
    schema: Schema[Any], field: Field
) -> None:
    assert field.meaning
    if not field.needed and field.default is not None:
        assert field.takes(field.default)


def test_what_is_told_of_both_is_in_both() -> None:
    told = get_type_hints(status.CommandFields)
    for schema in (status.STATUS, status.RESULT):
        assert told.keys() <= schema.by_key.keys()


@pytest.mark.parametrize("kind", TABLES)
def test_a_message_is_of_one_kind_and_a_cleared_one_of_none(kind: TopicKind) -> None:
    kinds = ("status", "result", "error", "heartbeat", "health", "boards")
    named = [name for name in kinds if getattr(Received("pi1", kind, {"x": 1}), name)]
    assert named == ([kind.name.lower()] if kind is not TopicKind.OUTPUT else [])
    assert not any(getattr(Received("pi1", kind, {}), name) is not None for name in kinds)


def test_what_is_for_people_spoils_no_message_unless_a_reader_needs_it() -> None:
    beat = {"online": True, "journal": "j1", "boot": 1, "seen": "all", "temperature": "hot"}
    assert HEARTBEAT.holds(beat)
    with pytest.raises(Refused, match="'seen' must be"):
        read_heartbeat(json.dumps(beat).encode())
    beat["seen"] = [1, 2]
    heard = read_heartbeat(json.dumps(beat).encode())
    assert heard == HeartbeatReceived(True, "j1", 1, (1, 2))


def test_a_device_reads_the_first_fields_of_a_status_and_no_other() -> None:
    fields: dict[str, Any] = status.status_json(RECORD)
    head = {key: fields[key] for key in status.FIRST}
    for more in ({}, {"time": "soon", "outcome": 7}):
        read = status.read_status(json.dumps(head | more).encode())
        assert read is not None
        assert (read.id, read.state, read.settled) == ("c1", 3, (("c1", "j1"),))
    for key in status.FIRST:
        assert status.read_status(json.dumps(head | {key: {}}).encode()) is None
        less = {name: value for name, value in head.items() if name != key}
        assert status.read_status(json.dumps(less).encode()) is None


def test_a_field_without_a_form_or_a_meaning_is_no_table() -> None:
    class Formless(TypedDict):
        id: str

    schema = Schema.of("it", Formless)
    with pytest.raises(TypeError, match="'id' needs one form"):
        schema.read({"id": "c1"})


def test_every_table_has_forms_and_meanings() -> None:
    names = [one.name for one in iter_modules(wire.__path__, f"{wire.__name__}.")]
    tables = [
        one
        for name in names
        for one in vars(import_module(name)).values()
        if isinstance(one, Schema)
    ]
    assert len(tables) >= 20
    assert all(table.fields for table in tables)


def test_the_types_of_a_table_are_those_of_its_forms() -> None:
    assert (Text.__origin__, Count.__origin__) == (str, int)
    assert response.read_collected(b"") == Collected()


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (1_700_000_000_500_000, "1700000000.500000"),
        (1_700_000_000_000_001, "1700000000.000001"),
        (0, "0.000000"),
        (-1, "-0.000001"),
        (-2_000_000, "-2.000000"),
    ],
)
def test_whole_microseconds_are_written_with_six_decimals(us: int, text: str) -> None:
    value = Micros(us)
    assert dumps({"a": value, "b": {"c": value}, "d": [1.5]}) == (
        f'{{"a":{text},"b":{{"c":{text}}},"d":[1.5]}}'
    )
    assert Micros.of(float(text)).us == us
    assert value == us / 1e6


def test_no_text_is_taken_for_microseconds() -> None:
    texts = {"a": '"1.000000"', "b": "\u0000", "c": Micros(1)}
    assert loads(dumps(texts)) == texts
    with pytest.raises(UnicodeEncodeError):
        dumps({"a": "\udcff1.0"}).encode()  # half a character: nobody can send it
    with pytest.raises(UnicodeEncodeError):
        dumps({"a": "\udcff1.0", "b": Micros(1)}).encode()
