"""The tables of fields as people read them: Markdown, made from the schemas.

The law: no document says another thing of a field than what it is read by. As in
``protocol.table``, scripts/protocol-table writes what stands between two markers, and a test
compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwsync.protocol.jsons import dumps
from hwsync.protocol.table import replaced, row
from hwsync.protocol.wire.analyst import OFFER
from hwsync.protocol.wire.asking import ANALYSIS, CANCEL, QUERY, RESET
from hwsync.protocol.wire.clock import ANSWER, QUESTION
from hwsync.protocol.wire.envelope import ENVELOPE, SEAL
from hwsync.protocol.wire.error import ERROR
from hwsync.protocol.wire.group import BATCH, MEMBERS
from hwsync.protocol.wire.heartbeat import HEARTBEAT
from hwsync.protocol.wire.history import PAGE, ROW, VERDICT
from hwsync.protocol.wire.history import QUESTION as HISTORY
from hwsync.protocol.wire.itself import BOARDS, HEALTH, SIGN
from hwsync.protocol.wire.received import OF_GROUP
from hwsync.protocol.wire.received import TABLES as RECEIVED
from hwsync.protocol.wire.request import REQUEST
from hwsync.protocol.wire.response import COLLECTED, OUTPUT, RESPONSE
from hwsync.protocol.wire.schema import Field, Schema
from hwsync.protocol.wire.start import START, START_ORDER
from hwsync.protocol.wire.status import RESULT, STATUS

Tables = Mapping[str, Schema[Any]]

PROTOCOL: Final[Tables] = {
    "status": STATUS,
    "cancel": CANCEL,
    "query": QUERY,
    "reset": RESET,
    "analysis": ANALYSIS,
    "collected": COLLECTED,
    "output": OUTPUT,
    "heartbeat": HEARTBEAT,
    "clock": QUESTION,
    "clock/reply": ANSWER,
    "result": RESULT,
    "error": ERROR,
    "batch": BATCH,
    "members": MEMBERS,
    "boards": BOARDS,
    "coordinator": SIGN,
    "request": REQUEST,
    "start": START,
    "envelope": ENVELOPE,
    "start in an envelope": START_ORDER,
    "signed envelope": SEAL,
    "response": RESPONSE,
    "history": HISTORY,
    "history page": PAGE,
    "history row": ROW,
    "verdict": VERDICT,
    "analyst": OFFER,
}
"""In docs/protocol.md, by what the marker says."""

OPERATIONS: Final[Tables] = {"health": HEALTH}
"""In docs/operations.md."""


def markdown(schema: Schema[Any]) -> str:
    """One row for each field, in the order in which they are published."""
    lacking = [field for field in schema.fields if not field.needed]
    defaults = any(field.default_said or field.default is not None for field in lacking)
    head = ["field", "type", *(["default"] if defaults else []), "meaning"]
    lines = [row(head), "|---" * len(head) + "|"]
    for field in schema.fields:
        cells = [f"`{field.key}`", _type(field, schema, defaults)]
        lines.append(row([*cells, *([_default(field)] if defaults else []), field.meaning]))
    return "\n".join(lines)


def _type(field: Field, schema: Schema[Any], defaults: bool) -> str:
    said = field.form.said
    if field.null and said != "null":
        said += " or null"
    if field.form.loose and schema in (*RECEIVED.values(), *OF_GROUP.values()):
        return f"{said}, unchecked"
    return said if field.needed or defaults else f"{said}; may lack"


def _default(field: Field) -> str:
    if field.needed:
        return ""
    if field.default_said or field.default is None:
        return field.default_said or "null"
    if isinstance(field.default, float):
        return f"{field.default:g}"
    return f"`{dumps(field.default)}`"


def rewrite(text: str, tables: Tables) -> str:
    """The document with these tables made anew. Raises ``ValueError`` where a marker is missing."""
    for name, schema in tables.items():
        text = replaced(text, f"fields of {name}", markdown(schema))
    return text
