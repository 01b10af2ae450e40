"""What else is asked of the coordinator: cancel, query, reset and analysis.

The law: without an id they mean the present command, and are empty (docs/protocol.md, sections 2
and 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypedDict

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import AnalysedBy, Analyser
from hwsync.protocol.wire.analyst import analysed_by_json, analysed_by_of
from hwsync.protocol.wire.files import Paths
from hwsync.protocol.wire.forms import ANYTHING, Flag, Id, OutcomeWord, RanWord, bounded, is_text
from hwsync.protocol.wire.schema import (
    CLEARS,
    Default,
    Doubt,
    Form,
    Json,
    Schema,
    object_in,
    object_of,
    text_of,
)

if TYPE_CHECKING:
    from hwsync.protocol import events


def _is_analyser(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"name", "version", "fault"}:
        return False
    fault, name = value.get("fault"), value.get("name")
    own = name in (Analyser.MANUAL, Analyser.OUTCOME)  # these are given by nobody of that name
    named = limits.is_analyser(name) and not own and limits.is_version(value.get("version"))
    return named and (fault is None or (is_text(fault) and bool(fault.strip())))


def _no_analyser(key: str, value: Any) -> Doubt:
    what = f"{key!r} must be an object of name, version and fault"
    hint = f"a name has {limits.ANALYSER_FORM}, and is not manual or outcome; a version has "
    return Code.BAD_PAYLOAD, what, f"{hint}{limits.VERSION_FORM}; fault is null or one line"


_ANALYSER: Final = Form('`{"name", "version", "fault"}`', _is_analyser, _no_analyser)


class Named(TypedDict):
    """On ``cancel``, where it is not empty."""

    id: Annotated[Id, "of the command that is meant"]


class QueryFields(Named):
    """On ``query``, where it is not empty."""

    files: NotRequired[
        Annotated[
            Paths | None,
            Default(None),
            "paths of files that came back: the answer on `result/<id>` has their bytes. One such "
            "answer a second a board",
        ]
    ]


class ResetFields(TypedDict):
    """On ``reset``, where it is not empty."""

    id: NotRequired[
        Annotated[Id, Default(None, "the present command"), "of the command that is meant"]
    ]
    queue: NotRequired[
        Annotated[Flag, Default(False), "empty the queue, too (section 2); then `id` may lack"]
    ]
    forget: NotRequired[Annotated[Flag, Default(False), "forget the name (above); stands alone"]]


class AnalysisFields(TypedDict):
    """On ``analysis``, where it is no plain text."""

    analysis: Annotated[
        Annotated[object, ANYTHING] | None,
        "the analysis; what is no text is kept as compact JSON",
    ]
    id: NotRequired[Annotated[Id | None, Default(None), "of the command that it judges"]]
    analyser: NotRequired[
        Annotated[
            Annotated[dict[str, Any], _ANALYSER] | None,
            Default(None),
            "of an analyst: which analyser gave it, in which version, and null, or why it failed "
            "itself (section 7)",
        ]
    ]
    regrade: NotRequired[
        Annotated[
            Flag,
            Default(False),
            "a further one of a command that has ended; needs `id` and `analyser`",
        ]
    ]
    outcome: NotRequired[
        Annotated[
            OutcomeWord | None,
            Default(None),
            "of the end that it judges; where the command has another one by now, the analysis is "
            "refused (section 7). Needs `id`",
        ]
    ]
    ran: NotRequired[Annotated[RanWord | None, Default(None), "likewise"]]


CANCEL: Final = Schema.of("the cancel", Named, closed=True)
QUERY: Final = Schema.of("the query", QueryFields, closed=True)
RESET: Final = Schema.of("the reset", ResetFields, closed=True)
ANALYSIS: Final = Schema.of("the analysis", AnalysisFields, closed=True)


_EXAMPLE: Final = 'send it empty, or {"id": "…"}'


def encode_id(id: str | None) -> bytes:
    """A cancel, reset or query: empty, or naming its command."""
    return b"" if id is None else dumps({"id": id}).encode()


def encode_query(id: str, files: Iterable[str]) -> bytes:
    """A query for a command and the bytes of these files of it."""
    return dumps({"id": id, "files": list(files)}).encode()


def encode_reset(id: str | None, *, queue: bool) -> bytes:
    """A reset, which may empty the queue too."""
    named = {} if id is None else {"id": id}
    return dumps({**named, "queue": True}).encode() if queue else encode_id(id)


FORGET: Final = dumps({"forget": True}).encode()
"""A reset of a user who was a typing error."""


def encode_analysis(
    value: object, id: str | None, analyser: AnalysedBy | None = None, regrade: bool = False,
    *, outcome: str | None = None, ran: str | None = None,
) -> bytes:  # fmt: skip
    """An analysis, any JSON, for that command or for the current one.

    ``analyser``: whose it is, None: a person's; ``regrade``: a further one of what has ended;
    ``outcome`` and ``ran``: the end that was judged.
    """
    fields: Json = {"analysis": value}
    if id is not None:
        fields["id"] = id
    if analyser is not None:
        fields["analyser"] = analysed_by_json(analyser)
    if outcome is not None:
        fields["outcome"] = outcome
    if ran is not None:
        fields["ran"] = ran
    return dumps({**fields, "regrade": True} if regrade else fields).encode()


def read_cancel(payload: bytes) -> events.CancelAsked:
    """Which command is to be stopped. Raises ``Refused``."""
    from hwsync.protocol import events

    if not payload:
        return events.CancelAsked()
    return events.CancelAsked(CANCEL.read(object_of(payload, CANCEL.what, _EXAMPLE))["id"])


def read_query(payload: bytes) -> events.Queried:
    """What the record is asked for. Raises ``Refused``."""
    from hwsync.protocol import events

    if not payload:
        return events.Queried()
    fields = QUERY.read(object_of(payload, QUERY.what, _EXAMPLE))
    return events.Queried(fields["id"], tuple(dict.fromkeys(fields["files"] or ())))


def read_reset(payload: bytes) -> events.ResetAsked:
    """What is to come to rest, and be forgotten. Raises ``Refused``."""
    from hwsync.protocol import events

    if not payload:
        return events.ResetAsked()
    obj = object_of(payload, RESET.what, 'send it empty, {"id": "…"} or {"queue": true}')
    if obj.get("forget") is True and ("id" in obj or obj.get("queue")):
        raise RESET.refuse(
            obj,
            Code.BAD_PAYLOAD,
            "'forget' stands alone",
            'first {"queue": true}, then {"forget": true}',
        )
    fields = RESET.read(obj)
    if not (fields["queue"] or fields["forget"] or "id" in obj):
        raise RESET.wrong(obj, "id")
    return events.ResetAsked(fields["id"], fields["queue"], fields["forget"])


def read_analysis(payload: bytes) -> events.Analysed | events.Ignored:
    """What is said of a result. Raises ``Refused``."""
    from hwsync.protocol import events

    if not payload:
        return events.Ignored(CLEARS)
    text = text_of(payload)
    try:
        obj = object_in(text)
    except ValueError:
        obj = None
    if obj is None or "analysis" not in obj:
        return events.Analysed(bounded(text, limits.MAX_ANALYSIS, "the analysis"))
    fields = ANALYSIS.read(obj)
    value, by = fields["analysis"], fields["analyser"]
    if fields["regrade"] and (by is None or fields["id"] is None):
        raise ANALYSIS.refuse(
            obj, Code.BAD_PAYLOAD, "'regrade' needs 'id' and 'analyser'", "whose, and by whom"
        )
    if fields["id"] is None and (fields["outcome"], fields["ran"]) != (None, None):
        raise ANALYSIS.refuse(
            obj, Code.BAD_PAYLOAD, "'outcome' and 'ran' need 'id'", "whose end was judged"
        )
    try:
        stored = value if isinstance(value, str) else dumps(value)
        text = bounded(stored, limits.MAX_ANALYSIS, "the analysis")
        return events.Analysed(
            text, fields["id"], None if by is None else analysed_by_of(by), fields["regrade"],
            fields["outcome"], fields["ran"],
        )  # fmt: skip
    except ValueError as error:
        raise ANALYSIS.refuse(obj, Code.BAD_PAYLOAD, str(error)) from None
    except Refused as error:
        raise ANALYSIS.refuse(obj, error.code, error.message, error.hint) from None
