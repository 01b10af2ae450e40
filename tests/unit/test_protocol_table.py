"""docs/protocol.md says what the code says: the table, the fields, the limits, the errors."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol import limits
from hwsync.protocol.errors import Code
from hwsync.protocol.moves import TABLE, Move
from hwsync.protocol.record import RAN_BY_OUTCOME, Outcome, Record, State, Verb
from hwsync.protocol.table import HOLE, markdown_table, mermaid, rewrite
from hwsync.protocol.wire import (
    asking,
    envelope,
    error,
    group,
    heartbeat,
    itself,
    request,
    response,
    status,
    tables,
)
from hwsync.protocol.wire.request import REQUEST
from hwsync.protocol.wire.schema import Field, Schema
from hwsync.protocol.wire.status import status_json

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
NO_LIMITS = frozenset(  # a unit, patterns, and a text
    {
        "KIB",
        "USER",
        "ID",
        "NAME",
        "ANALYSER",
        "VERSION",
        "USER_FORM",
        "ID_FORM",
        "NAME_FORM",
        "ANALYSER_FORM",
        "VERSION_FORM",
        "DEFAULT_NAME",
    }
)


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    lines = document.split(f"\n{heading}\n", 1)[1].splitlines()
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif found:
            break
    return found[2:]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def named_in(document: str, heading: str) -> list[str]:
    return [name for row in rows(document, heading) for name in names(row[0])]


def limits_in(document: str) -> dict[str, float | tuple[float, ...]]:
    """Name -> the number, or the numbers, that the table of limits gives it."""
    found: dict[str, float | tuple[float, ...]] = {}
    for row in rows(document, "### Limits"):
        values = tuple(
            float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", row[1])
        )
        found[names(row[2])[0]] = values if len(values) > 1 else values[0]
    return found


def limits_of_the_code() -> dict[str, float | tuple[float, ...]]:
    return {
        name: value
        for name, value in vars(limits).items()
        if name.isupper() and name not in NO_LIMITS
    }


def test_table_and_diagram_are_the_codes() -> None:
    assert rewrite(text()) == text(), "run scripts/protocol-table"


CELLS = [(verb, state) for verb in Verb if verb is not Verb.QUERY for state in State]


@pytest.mark.parametrize(("verb", "state"), CELLS)
def test_a_changed_cell_is_found(verb: Verb, state: State) -> None:
    changed = dict(TABLE)
    if (verb, state) in TABLE:
        del changed[verb, state]
    else:
        changed[verb, state] = Move(State.REST, TABLE[Verb.RESET, State.REST].step, "")
    assert rewrite(text(), changed) != text()
    assert markdown_table(changed) not in text()
    assert mermaid(changed) not in text()


@pytest.mark.parametrize("cell", sorted(cell for cell, move in TABLE.items() if move.guard))
def test_a_condition_that_is_dropped_is_found(cell: tuple[Verb, State]) -> None:
    changed = dict(TABLE) | {cell: replace(TABLE[cell], guard=None)}
    assert markdown_table(changed) not in text()
    assert mermaid(changed) not in text()


def test_a_cell_changed_in_the_document_is_found() -> None:
    edited = text().replace("| 0: no analysis; if it is due, else no change |", f"| {HOLE} |")
    assert edited != text()
    assert rewrite(edited) == text()


@pytest.mark.parametrize("marker", ["table: begin", "table: end", "diagram: begin", "diagram: end"])
def test_a_missing_marker_is_named(marker: str) -> None:
    with pytest.raises(ValueError, match=marker):
        rewrite(text().replace(f"<!-- {marker} -->", ""))


DOCUMENTS = (("protocol.md", tables.PROTOCOL), ("operations.md", tables.OPERATIONS))
FIELDS = [
    (document, name, field.key)
    for document, some in DOCUMENTS
    for name, schema in some.items()
    for field in schema.fields
]


def page(name: str) -> str:
    return (DOCUMENT.parent / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("document", "some"), DOCUMENTS, ids=["protocol", "operations"])
def test_the_tables_of_fields_are_the_codes(document: str, some: tables.Tables) -> None:
    assert tables.rewrite(page(document), some) == page(document), "run scripts/protocol-table"


def without(fields: tuple[Field, ...], at: int, *instead: Field) -> Schema[Any]:
    return Schema("it", lambda: (*fields[:at], *instead, *fields[at + 1 :]))


@pytest.mark.parametrize(("document", "name", "key"), FIELDS)
def test_a_changed_field_is_found(document: str, name: str, key: str) -> None:
    fields = dict(DOCUMENTS)[document][name].fields
    at = [field.key for field in fields].index(key)
    one = fields[at]
    changes = [
        [replace(one, meaning="another")],
        [replace(one, form=replace(one.form, said="another"))],
        [replace(one, key="another")],
        [],
    ]
    changes += [[replace(one, null=not one.null)]] if one.form.said != "null" else []
    changes += [[replace(one, default=7.0)]] if one.needed else []
    for changed in changes:
        now = tables.rewrite(page(document), {name: without(fields, at, *changed)})
        assert now != page(document), changed


def test_each_kind_of_topic_has_its_table() -> None:
    shown = {id(schema) for _, some in DOCUMENTS for schema in some.values()}
    modules = (request, asking, envelope, response, status, error, heartbeat, itself, group)
    schemas = [
        (name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Schema) and not name.startswith("_")
    ]
    assert [name for name, schema in schemas if id(schema) not in shown] == []


def test_a_missing_marker_of_fields_is_named() -> None:
    with pytest.raises(ValueError, match="fields of status: end"):
        tables.rewrite("<!-- fields of status: begin -->\n", {"status": status.STATUS})


def test_fields_are_named_in_the_order_in_which_they_are_published() -> None:
    assert named_in(text(), "### Fields") == list(status_json(Record("pi1")))


def test_limits_are_the_codes() -> None:
    assert limits_in(text()) == limits_of_the_code()


def test_a_changed_limit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PROGRAM", limits.MAX_PROGRAM + 1)
    assert limits_in(text()) != limits_of_the_code()


def test_error_codes_are_the_codes() -> None:
    assert named_in(text(), "### Error codes") == [str(code) for code in Code]


def test_outcomes_are_the_codes() -> None:
    found = {row[0].strip("`"): row[2] for row in rows(text(), "### Outcomes")}
    assert list(found) == [str(outcome) for outcome in Outcome]
    for outcome in Outcome:
        assert found[outcome] == RAN_BY_OUTCOME.get(outcome, "the device says")


def test_keys_of_a_request_are_the_codes() -> None:
    found = named_in(text(), "### Keys of a request")
    assert len(found) == len(set(found))
    assert set(found) == REQUEST.by_key.keys()
