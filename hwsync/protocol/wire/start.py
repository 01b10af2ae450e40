"""A start at an instant: what a request asks for, and what a device is told (docs/protocol.md, 6).

The law: of the two ways, an instant that is named and one that is fixed for a whole batch, a
request takes one, and says nothing that belongs to the other. Seconds of JSON are whole
microseconds from here on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NotRequired, TypedDict, cast

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import Micros, is_count
from hwsync.protocol.record import MICRO, Command, Start
from hwsync.protocol.wire.forms import Flag, Id, Instant, seconds, to_micros
from hwsync.protocol.wire.schema import Default, Doubt, Form, Json, Schema

_TOGETHER_ONLY: Final = ("wait", "lead", "need")


def _no_start(key: str, value: Any) -> Doubt:
    return (
        Code.BAD_PAYLOAD,
        f"{key!r} must be an object or null",
        'such as {"at": 1700000000}, in seconds of lab time',
    )


START_OBJECT: Final = Form("object", lambda value: isinstance(value, dict), _no_start)


def _no_need(key: str, value: Any) -> Doubt:
    return Code.BAD_PAYLOAD, f"{key!r} must be a whole number, 1 to {limits.MAX_USERS}", ""


_NEED: Final = Form(
    f"integer, 1 to {limits.MAX_USERS:,}",
    lambda value: is_count(value) and 1 <= value <= limits.MAX_USERS,
    _no_need,
)


class StartFields(TypedDict):
    """In a request: when it is to begin."""

    at: NotRequired[
        Annotated[
            Instant | None,
            Default(None),
            "the instant, in seconds of lab time: not past, and at most a day ahead",
        ]
    ]
    together: NotRequired[
        Annotated[
            Flag,
            Default(False),
            "the coordinator fixes the instant when the members of the batch are ready",
        ]
    ]
    wait: NotRequired[
        Annotated[
            float,
            seconds(limits.START_WAIT_S),
            Default(limits.DEFAULT_START_WAIT_S),
            "seconds of connection for the members to get ready; only with `together`",
        ]
    ]
    lead: NotRequired[
        Annotated[
            float,
            seconds(limits.START_LEAD_S),
            Default(limits.DEFAULT_START_LEAD_S),
            "seconds between the decision and the instant, at least; only with `together`",
        ]
    ]
    within: NotRequired[
        Annotated[
            float,
            seconds(limits.START_WITHIN_S),
            Default(limits.DEFAULT_START_WITHIN_S),
            "seconds that it may be late, or its clock uncertain: else it is not released",
        ]
    ]
    need: NotRequired[
        Annotated[
            int,
            _NEED,
            Default(1),
            "how many members must be ready, else nobody starts; only with `together`",
        ]
    ]


class StartOrderFields(TypedDict):
    """In an envelope: what the device needs to know of its start."""

    within: Annotated[
        float,
        seconds(limits.START_WITHIN_S),
        "seconds that it may be late, or its clock uncertain",
    ]
    together: Annotated[
        Flag, "others begin at the same instant: the device spreads its questions for the time"
    ]
    start_at: NotRequired[
        Annotated[
            Instant | None,
            Default(None),
            "the instant, in seconds of lab time; null: not yet fixed",
        ]
    ]
    start_life: NotRequired[
        Annotated[Id | None, Default(None), "the life whose lab time that is; null as `start_at`"]
    ]


START: Final = Schema.of("'start'", StartFields, closed=True)
START_ORDER: Final = Schema.of("the envelope's 'start'", StartOrderFields)


@dataclass(frozen=True, slots=True)
class StartOrder:
    """What an envelope says of its start, as it was read."""

    within: float  # seconds
    together: bool
    start_at_us: int | None = None  # microseconds of lab time; None: not yet fixed
    start_life: str = ""


def read_start(obj: Mapping[str, Any]) -> Start:
    """When a request is to begin. Raises ``Refused``, without the request's id."""
    fields = START.read(obj)
    at, together = fields["at"], fields["together"]
    if (at is not None) == together:
        raise Refused(
            Code.BAD_PAYLOAD,
            "'start' must have either 'at' or 'together'",
            '{"at": 1700000000}, in seconds of lab time, or {"together": true}',
        )
    odd = [key for key in _TOGETHER_ONLY if key in obj and not together]
    if odd:
        raise Refused(
            Code.BAD_PAYLOAD, f"'start': {odd[0]!r} goes with 'together' only", "leave it out"
        )
    return Start(
        float(fields["within"]),
        None if at is None else to_micros(at),
        float(fields["wait"]),
        float(fields["lead"]),
        fields["need"],
    )


def start_json(start: Start) -> Json:
    """The same as a request says it: for a repeat's digest, and as it is stored."""
    if start.at_us is not None:
        return {"at": start.at_us / MICRO, "within": start.within}
    return {
        "together": True,
        "wait": start.wait,
        "lead": start.lead,
        "within": start.within,
        "need": start.need,
    }


def start_order_json(command: Command) -> Json | None:
    """What the command's envelope says of its start; None: it has none."""
    start = command.request.start
    if start is None:
        return None
    fixed = command.start_at_us
    fields: StartOrderFields = {
        "within": start.within,
        "together": start.together,
        "start_at": None if fixed is None else Micros(fixed),
        "start_life": command.start_life or None,
    }
    return cast(Json, fields)


def read_start_order(obj: Mapping[str, Any]) -> StartOrder | None:
    """What an envelope says of its start, or None where that is none."""
    if not START_ORDER.holds(obj):
        return None
    fields = START_ORDER.read(obj)
    at, life = fields["start_at"], fields["start_life"]
    if (at is None) != (life is None):
        return None
    return StartOrder(
        float(fields["within"]),
        fields["together"],
        None if at is None else to_micros(at),
        life or "",
    )
