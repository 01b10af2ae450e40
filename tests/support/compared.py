"""What hwsync says beside what the model says: only what is expected, and what differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hwsync.protocol.record import Record
from tests.support.level import LINE


def as_stored(record: Record) -> Record:
    """The record without the one thing of a request that nobody needs once it was accepted."""
    if record.current is None or not record.current.request.queue:
        return record
    request = replace(record.current.request, queue=False)
    return replace(record, current=replace(record.current, request=request))


def same(found: object, expected: object, what: str) -> None:
    """An assertion that shows both sides (pytest explains those of test modules only)."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
        found = {key: found.get(key, "missing") for key in keys}
        expected = {key: expected.get(key, "missing") for key in keys}
    raise AssertionError(f"{what}: hwsync has {found}, the model {expected}")


def is_line(one: dict[str, Any], text: str | None) -> bool:
    """Whether this is what the analyser ``outcome`` must have written of a command."""
    return one["analysis"] == LINE and text is not None and text.split(":")[0] == one["outcome"]


def agrees(expected: dict[str, Any], said: dict[str, Any]) -> bool:
    return shown(said, expected) == shown(expected, expected, said)


def shown(
    fields: dict[str, Any], expected: dict[str, Any], said: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The expected fields only; the coordinator's own line stands for itself."""
    found = {key: fields.get(key, "missing") for key in expected}
    if said is not None and found.get("server_analysis") == LINE:
        line = said.get("server_analysis", "")
        found["server_analysis"] = line if is_line({"analysis": LINE, **expected}, line) else LINE
    return found
