"""What an analyst says of itself, and how it is said which analyser gave an analysis.

The law: an analyst is online by its own word, and its will takes that back. Who offers more than
may be counted offers nothing (docs/protocol.md, section 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NotRequired, TypedDict

from hwsync.protocol import limits
from hwsync.protocol.errors import Code
from hwsync.protocol.jsons import dumps, is_number
from hwsync.protocol.record import AnalysedBy, Analyser
from hwsync.protocol.wire.forms import TEXTS, Flag, Number
from hwsync.protocol.wire.schema import Default, Doubt, Form, Json, Schema, loose, object_of

OWN: Final = frozenset(Analyser)  # who analyses them is no analyst


def _are_analysers(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= limits.MAX_ANALYSERS
        and all(limits.is_analyser(name) and name not in OWN for name in value)
        and all(map(limits.is_version, value.values()))
    )


def _no_analysers(key: str, value: Any) -> Doubt:
    what = f"{key!r} must be an object: at most {limits.MAX_ANALYSERS:,} versions by name"
    return Code.BAD_PAYLOAD, what, f"a name has {limits.ANALYSER_FORM}"


class OfferFields(TypedDict):
    """On ``@hwsync/analysts/<analyst>``."""

    online: Annotated[Flag, "false: it has gone; in its will"]
    analysers: NotRequired[
        Annotated[
            dict[str, str],
            Form("object, version by name", _are_analysers, _no_analysers),
            Default({}),
            "what it offers",
        ]
    ]
    time: NotRequired[
        Annotated[Number | None, Default(None), "its clock, in Unix seconds; a will has none"]
    ]
    repeats: NotRequired[
        Annotated[
            Flag,
            Default(False),
            "it says this again every 30 s; where it is silent for 90 s it has gone",
        ]
    ]
    broken: NotRequired[
        Annotated[
            object,
            loose(TEXTS),
            "those of them that are broken: each of their runs gets a fault at once",
        ]
    ]


OFFER: Final = Schema.of("what the analyst says of itself", OfferFields)


@dataclass(frozen=True, slots=True)
class Offer:
    """What an analyst says of itself: versions of its analysers, by name."""

    online: bool
    analysers: Mapping[str, str]
    time: float | None = None  # its clock, in Unix seconds
    broken: tuple[str, ...] = ()  # those of them whose runs get a fault, for people
    repeats: bool = False  # every ``limits.HEARTBEAT_S``


GONE: Final = Offer(online=False, analysers={})


def encode_offer(offer: Offer) -> bytes:
    """What it says; that it has gone says no more than that, and is its will."""
    if not offer.online:
        return dumps({"online": False}).encode()
    fields: Json = {"online": True, "analysers": dict(offer.analysers), "time": offer.time}
    fields |= {"repeats": True} if offer.repeats else {}
    return dumps({**fields, "broken": list(offer.broken)} if offer.broken else fields).encode()


def read_offer(payload: bytes) -> Offer:
    """What it said; an empty one clears it. Raises ``Refused``."""
    if not payload:
        return GONE
    if len(payload) > limits.MAX_OFFER:
        raise OFFER.refuse(
            {}, Code.TOO_LARGE, f"{len(payload)} bytes", f"at most {limits.MAX_OFFER} bytes"
        )
    obj = object_of(payload, OFFER.what, 'such as {"online": true}')
    fields = OFFER.read(obj)
    if not fields["online"]:
        return Offer(online=False, analysers={}, time=fields["time"])
    broken: Any = obj.get("broken")
    named = tuple(one for one in fields["analysers"] if TEXTS.holds(broken) and one in broken)
    return Offer(True, fields["analysers"], fields["time"], named, fields["repeats"])


def _is_by(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("version"), str)
        and isinstance(value.get("fault"), str | None)
    )


def _are_regrades(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_by(one) and isinstance(one.get("analysis"), str) and is_number(one.get("time"))
        for one in value
    )


ANALYSED_BY: Final = Form('`{"name", "version", "fault"}`', _is_by)
REGRADES: Final = Form('list of `{"name", "version", "fault", "analysis", "time"}`', _are_regrades)


def analysed_by_json(by: AnalysedBy) -> Json:
    """Which analyser gave an analysis, as it is published and kept."""
    return {"name": by.name, "version": by.version, "fault": by.fault}


def analysed_by_of(obj: Mapping[str, Any]) -> AnalysedBy:
    """The same, read; of a fault one line, and not more than may be."""
    fault = obj.get("fault")
    line = None if fault is None else " ".join(fault.split())[: limits.MAX_FAULT]
    return AnalysedBy(obj["name"], obj["version"], line)
