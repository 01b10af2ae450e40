"""History over MQTT: a question about one board's commands, and the page that answers it.

The law: a question says where its answer goes, since that says whose commands it may show
(``protocol.history``). Where both are there, the response topic of MQTT 5 counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, NotRequired, TypedDict

from hwsync.protocol import limits
from hwsync.protocol.analysis import Verdict, cut_message
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import dumps, is_count, size
from hwsync.protocol.record import Outcome
from hwsync.protocol.wire.forms import (
    Count,
    ExitCode,
    Flag,
    Id,
    Number,
    OutcomeWord,
    RanWord,
    StateNumber,
    Text,
    Texts,
    User,
    is_text,
    text,
)
from hwsync.protocol.wire.ran_on import RAN_ON
from hwsync.protocol.wire.schema import Default, Doubt, Form, Json, Schema, loose, read_object

OPEN: Final = "open"  # in the place of an outcome: it has none yet
OUTCOMES: Final = frozenset((*Outcome, OPEN))


def _are_outcomes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, str) and one in OUTCOMES for one in value
    )


def _no_outcomes(key: str, value: Any) -> Doubt:
    return Code.BAD_PAYLOAD, f"{key!r} must be a list of {', '.join((*Outcome, OPEN))}", ""


def _is_meta(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    text = dumps(value)
    return is_text(text) and size(text) <= limits.HISTORY_TEXT


def _no_meta(key: str, value: Any) -> Doubt:
    most = f"at most {limits.HISTORY_TEXT:,} bytes"
    return Code.BAD_PAYLOAD, f"{key!r} must be an object of {most}", 'such as {"course": "1b"}'


def _is_last(value: Any) -> bool:
    return is_count(value) and 1 <= value <= limits.HISTORY_ROWS


def _no_last(key: str, value: Any) -> Doubt:
    most = f"1 to {limits.HISTORY_ROWS}"
    return Code.BAD_PAYLOAD, f"{key!r} must be {most}", "'after' of a page asks for the next one"


class Question(TypedDict):
    """On ``history`` and ``history/all``."""

    since: NotRequired[
        Annotated[
            Number | None,
            Default(None),
            "asked for at this time or later, in Unix seconds of the coordinator's clock; below 0: "
            "so many seconds before now",
        ]
    ]
    until: NotRequired[Annotated[Number | None, Default(None), "likewise, at this time or before"]]
    last: NotRequired[
        Annotated[
            int,
            Form(f"integer, 1 to {limits.HISTORY_ROWS}", _is_last, _no_last),
            Default(limits.HISTORY_ROWS),
            "at most so many rows in the page, the newest ones",
        ]
    ]
    outcome: NotRequired[
        Annotated[
            Annotated[list[str], Form("list of texts", _are_outcomes, _no_outcomes)] | None,
            Default(None),
            f"one of these outcomes; `{OPEN}` is who has none yet",
        ]
    ]
    by: NotRequired[
        Annotated[
            Annotated[str, text(limits.MAX_CLAIM)] | None,
            Default(None),
            "who asked for it ([below](#who-asked))",
        ]
    ]
    meta: NotRequired[
        Annotated[
            Annotated[dict[str, Any], Form("object", _is_meta, _no_meta)] | None,
            Default(None),
            "its `meta` has each of these values; a text stands for a number or the like, too: "
            '`"3"` for 3',
        ]
    ]
    name: NotRequired[
        Annotated[
            Annotated[str, text(limits.MAX_PATTERN)] | None,
            Default(None),
            "the name of its program's file; `*` stands for any characters, `?` for one",
        ]
    ]
    analyser: NotRequired[
        Annotated[
            Annotated[str, Form("name of an analyser", limits.is_analyser)] | None,
            Default(None),
            "who analyses it, as its request says",
        ]
    ]
    judged: NotRequired[
        Annotated[
            Flag | None,
            Default(None),
            "true: it has a first analysis; false: it has ended, or is in state 3, without one",
        ]
    ]
    id: NotRequired[Annotated[Id | None, Default(None), "this command alone"]]
    after: NotRequired[
        Annotated[Count | None, Default(None), "the cursor of the page before: what is older"]
    ]
    reply: NotRequired[
        Annotated[
            Annotated[str, text(limits.MAX_REPLY_TOPIC)] | None,
            Default(None),
            "where the answer goes, without MQTT 5: `replies/<account>`, or below it",
        ]
    ]


class VerdictFields(TypedDict):
    """What one analysis says, as ``protocol.analysis.Verdict``."""

    name: Annotated[Text | None, "the analyser's; null: a person's, or the line of `outcome`"]
    version: Annotated[Text | None, "likewise"]
    fault: Annotated[Text | None, "why the analyser itself failed"]
    passed: Annotated[Flag | None, "null: it does not say"]
    score: Annotated[Number | None, "from 0 to 1; null: it does not say"]
    message: Annotated[Text, "its first line that is not blank, 200 characters at most"]
    time: Annotated[Number | None, "when it came, of a further one"]


VERDICT: Final = Schema.of("the verdict", VerdictFields)


def _are_verdicts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and VERDICT.holds(one) for one in value
    )


_VERDICTS: Final = Form("list of objects", _are_verdicts)


def verdict_json(verdict: Verdict) -> VerdictFields:
    """A verdict in a row."""
    return {
        "name": verdict.name,
        "version": verdict.version,
        "fault": verdict.fault and verdict.fault[: limits.HISTORY_MESSAGE],
        "passed": verdict.passed,
        "score": verdict.score,
        "message": cut_message(verdict.message),
        "time": verdict.time,
    }


def verdicts_json(first: Verdict | None, others: Sequence[Verdict]) -> list[VerdictFields]:
    """The verdicts of a row: the first one, and the others as far as there is room.

    The newest of each analyser that says something goes before all else: whatever is left out, what
    counts of a run stays the same.
    """
    room = limits.HISTORY_VERDICTS - (first is not None)
    counts: dict[str | None, int] = {}
    for place, one in enumerate(others):
        if one.fault is None and (one.passed, one.score) != (None, None):
            counts[one.name] = place
    order = sorted(range(len(others)), key=lambda place: (place in counts.values(), place))
    some = [others[place] for place in sorted(order[-room:])]
    return [verdict_json(one) for one in [*([first] if first else []), *some]]


class Row(TypedDict):
    """One command in a page."""

    id: Annotated[Id, "of the command"]
    number: Annotated[Count, "the board's how-many-eth command"]
    state: Annotated[StateNumber, "of the record, where it is the record's own command, else 0"]
    issued: Annotated[Number, "when it was asked for, by the coordinator's clock"]
    by: Annotated[Text | None, "who asked for it; null where nobody is known"]
    known_by: Annotated[Text | None, "`reply topic` or `claim`"]
    name: Annotated[Text, "of the file that it was run as; empty where no program is known"]
    outcome: Annotated[OutcomeWord | None, "null while it is open"]
    ran: Annotated[RanWord | None, "likewise"]
    reason: Annotated[Text, "as in the status"]
    exit_code: Annotated[ExitCode | None, "the program's exit code"]
    started: Annotated[Number | None, "as in the status"]
    duration: Annotated[Number | None, "seconds of run time, by the device"]
    files: Annotated[Texts, "names of the files that came back"]
    analysis: Annotated[Text, "its beginning"]
    meta: Annotated[Text, "compact JSON; empty where it is longer"]
    line: Annotated[
        Text, "the first line of its output that is not blank; without one, the last of `stderr`"
    ]
    analyser: NotRequired[Annotated[Text | None, "who analyses it (section 7)"]]
    no_analysis: NotRequired[Annotated[Text | None, "as in the status"]]
    verdicts: NotRequired[
        Annotated[
            Annotated[list[VerdictFields], _VERDICTS] | None,
            "what its analyses say (section 7): the first one, if there is one, then the others, "
            "the oldest first; 16 at most, and what each analyser said last before all else",
        ]
    ]
    clock_bound: NotRequired[Annotated[Number | None, "as in the status"]]
    ran_on: NotRequired[Annotated[object | None, loose(RAN_ON), "as in the status"]]


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and ROW.holds(one) for one in value
    )


class Page(TypedDict):
    """The answer to a question."""

    user: Annotated[User, "the board's name"]
    all: Annotated[Flag, "everybody's commands, not only the asker's own"]
    time: Annotated[Number, "the coordinator's clock"]
    rows: Annotated[
        list[Row], Form("list of objects", _are_rows), "the newest first; their fields stand below"
    ]
    after: Annotated[
        Count | None, "the cursor: there may be older ones; null: there are none, and this was all"
    ]


QUESTION: Final = Schema.of("the question", Question, closed=True)
ROW: Final = Schema.of("the row", Row)
PAGE: Final = Schema.of("the page", Page)


def encode_question(fields: Json) -> bytes:
    """A question with these keys of ``Question``; those that are None stand for their default."""
    return dumps({key: value for key, value in fields.items() if value is not None}).encode()


def read_page(payload: bytes) -> Page | None:
    """The page of an answer; None where it is none."""
    fields = read_object(payload)
    try:
        return None if fields is None else PAGE.read(fields)
    except Refused:
        return None
