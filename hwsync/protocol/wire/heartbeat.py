"""The heartbeat: what a board says of itself (docs/protocol.md, section 3).

The law: a reader needs the first fields only; the rest is for people, and a wrong one spoils no
heartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypedDict

from hwsync.protocol.jsons import dumps
from hwsync.protocol.wire.forms import (
    COUNT,
    ID,
    NUMBER,
    OBJECT,
    SEEN,
    TEXT,
    TEXTS,
    Count,
    Flag,
    Id,
    Number,
)
from hwsync.protocol.wire.schema import Schema, loose, object_of

if TYPE_CHECKING:
    from hwsync.protocol import events


class Heartbeat(TypedDict):
    """On ``heartbeat``: a device, or its will."""

    online: Annotated[Flag, "false: it has gone; in its will"]
    journal: Annotated[Id, "the device's"]
    boot: Annotated[Count, "its count of starts"]
    seen: NotRequired[
        Annotated[
            object | None,
            loose(SEEN),
            "the newest status that it knows; the coordinator refuses anything else",
        ]
    ]
    version: NotRequired[Annotated[object, loose(TEXT), "of hwsync"]]
    busy: NotRequired[Annotated[object | None, loose(ID), "the command that waits or runs"]]
    running: NotRequired[Annotated[object | None, loose(ID), "the command that runs"]]
    python: NotRequired[Annotated[object, loose(TEXT), "version of the programs' interpreter"]]
    board: NotRequired[Annotated[object, loose(TEXT), "its model"]]
    temperature: NotRequired[Annotated[object, loose(NUMBER), "°C"]]
    throttled: NotRequired[Annotated[object, loose(COUNT), "a Raspberry Pi's own bits; 0: never"]]
    disk_free_mb: NotRequired[Annotated[object, loose(COUNT), "where the journal is"]]
    memory_free_mb: NotRequired[Annotated[object, loose(COUNT), "that programs can have"]]
    refusing: NotRequired[
        Annotated[
            object | None,
            loose(TEXT),
            "why it refuses whatever it is sent (its journal cannot be written)",
        ]
    ]
    former: NotRequired[
        Annotated[object, loose(OBJECT), "results that wait under each earlier name (section 5)"]
    ]
    can: NotRequired[
        Annotated[
            object,
            loose(TEXTS),
            "what it can beside version 1: `start` (section 6), `files` (section 5). A request "
            "that a board which is online cannot do is refused",
        ]
    ]
    clock: NotRequired[
        Annotated[
            object | None,
            loose(OBJECT),
            "what it knows of [lab time](#one-clock): `bound` in seconds, `offset` (lab time less "
            "its raw clock, in seconds with six decimals), `drift_ppm`, `samples`, `age` (seconds "
            "since the last one), `life`, and `slewed` where it has no raw clock; null: nothing",
        ]
    ]
    time: NotRequired[Annotated[Number | None, "its clock, in Unix seconds; a will has none"]]


START: Final = "start"  # it can begin a program at an instant
FILES: Final = "files"  # it takes files along, and brings files back
CAPABILITIES: Final = (START, FILES)  # those that the coordinator asks for
HEARTBEAT: Final = Schema.of("the heartbeat", Heartbeat)
_NEEDED: Final = HEARTBEAT.part("journal", "boot", "online", "seen")


def encode_heartbeat(*, online: bool, journal: str, boot: int, **more: object) -> bytes:
    """The retained heartbeat, or (``online`` false) the will."""
    return dumps({"online": online, "journal": journal, "boot": boot, **more}).encode()


def read_heartbeat(payload: bytes) -> events.HeartbeatReceived | events.Ignored:
    """Which device is there, or has gone. Raises ``Refused`` where its first fields are none."""
    from hwsync.protocol import events

    if not payload:
        return events.Ignored("a cleared heartbeat")
    obj = object_of(payload, HEARTBEAT.what, 'a device sends {"online", "journal", "boot", …}')
    fields = _NEEDED.read(obj)
    seen: Any = fields["seen"]
    can: Any = obj.get("can")
    return events.HeartbeatReceived(
        fields["online"],
        fields["journal"],
        fields["boot"],
        seen and (seen[0], seen[1]),
        tuple(one for one in CAPABILITIES if TEXTS.holds(can) and one in can),
    )
