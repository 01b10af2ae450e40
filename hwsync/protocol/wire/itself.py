"""What the coordinator says of itself, below ``@hwsync``: its health, the boards, and its sign.

The law: of the health only people read more than its condition and time, so that a figure which is
none spoils nothing. The sign is retained, so that it stands there also where nobody has it any
more; no will takes it away (docs/protocol.md, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, NotRequired, TypedDict

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps
from hwsync.protocol.limits import MAX_BOARDS_LIST
from hwsync.protocol.wire.forms import (
    COUNT,
    NUMBER,
    OBJECT,
    TEXT,
    Count,
    Flag,
    Instant,
    Number,
    Seconds,
    Text,
    is_seconds,
    text,
)
from hwsync.protocol.wire.schema import Form, Schema, loose, read_object

MAX_NAME: Final = 4_096  # bytes of a host's name, or of a path
_FRAME: Final = 200  # bytes at most of the list beside its boards


def _are_boards(value: Any) -> bool:
    return isinstance(value, dict) and all(
        limits.is_user(user) and (heard is None or is_seconds(heard))
        for user, heard in value.items()
    )


_TEXT: Final = loose(TEXT)
_COUNT: Final = loose(COUNT)
_NUMBER: Final = loose(NUMBER)
_OBJECT: Final = loose(OBJECT)


class Condition(StrEnum):
    """The first word of a health message."""

    OK = "ok"
    DEGRADED = "degraded"  # the last save failed: nothing is accepted or answered until one works
    STOPPED = "stopped"  # it was ended in order
    GONE = "gone"  # the will: it was killed, or its connection is lost


class Health(TypedDict):
    """On ``@hwsync/health``: the coordinator."""

    condition: Annotated[Text, "as above"]
    reason: NotRequired[Annotated[object, _TEXT, "as above; empty unless it is degraded"]]
    version: NotRequired[Annotated[object, _TEXT, "of hwsync"]]
    schema: NotRequired[Annotated[object, _COUNT, "of its database"]]
    head: NotRequired[
        Annotated[
            object,
            _OBJECT,
            "how far its log is: the number of the last `row` and its `hash`. Whoever keeps one "
            "can prove later that no row up to it was changed ([records.md](records.md#a-receipt))",
        ]
    ]
    host: NotRequired[Annotated[object, _TEXT, "the name of the coordinator's machine"]]
    database: NotRequired[Annotated[object, _TEXT, "where its database is there"]]
    started: NotRequired[Annotated[object, _NUMBER, "when it started, by its own clock"]]
    time: NotRequired[Annotated[Number | None, "when it said this, by the same clock"]]
    clock: NotRequired[
        Annotated[object, _TEXT, "empty, or what is wrong with that clock ([below](#clocks))"]
    ]
    lab_time: NotRequired[
        Annotated[
            Number | None,
            "[lab time](protocol.md#one-clock) at that moment, with six decimals",
        ]
    ]
    life: NotRequired[Annotated[object, _TEXT, "the name of its present life"]]
    lab_ahead: NotRequired[
        Annotated[object, _NUMBER, "by how much it is ahead of `time`; beyond 0.5 a life ends"]
    ]
    uptime: NotRequired[Annotated[object, _NUMBER, "how long it has been running"]]
    connected_since: NotRequired[
        Annotated[
            object | None, _NUMBER, "since when it is subscribed at the broker; null: it is not"
        ]
    ]
    reconnects: NotRequired[Annotated[object, _COUNT, "connections after the first"]]
    users: NotRequired[Annotated[object, _COUNT, "boards with a record"]]
    states: NotRequired[
        Annotated[object, _OBJECT, "how many of them are in each state, by its name"]
    ]
    queued: NotRequired[Annotated[object, _COUNT, "requests that wait in queues"]]
    analysts: NotRequired[Annotated[object, _COUNT, "analysts that are online"]]
    analysts_refused: NotRequired[
        Annotated[object, _COUNT, "words of analysts that were not heard: wrong, or too many"]
    ]
    unoffered: NotRequired[
        Annotated[
            object,
            _OBJECT,
            "how many boards wait for each analyser that no analyst offers, by its name",
        ]
    ]
    inbox_deepest: NotRequired[
        Annotated[object, _COUNT, "the most messages that ever waited for the loop at once"]
    ]
    accepted: NotRequired[Annotated[object, _COUNT, "events that moved a record"]]
    answered: NotRequired[
        Annotated[object, _COUNT, "events that changed nothing (queries, copies)"]
    ]
    late: NotRequired[
        Annotated[object, _COUNT, "events that came late and were stored with their command"]
    ]
    duplicates: NotRequired[Annotated[object, _COUNT, "messages that the broker sent again"]]
    ignored: NotRequired[
        Annotated[
            object,
            _COUNT,
            "messages without a meaning, such as empty ones that clear a retained message",
        ]
    ]
    resent: NotRequired[
        Annotated[object, _COUNT, "envelopes that were sent again, since nobody collected them"]
    ]
    unlogged: NotRequired[
        Annotated[
            object,
            _COUNT,
            "events that have no row in the log, since a board's allowance for "
            "[what leads to nothing](protocol.md#what-leads-to-nothing) was used up",
        ]
    ]
    passed_over: NotRequired[
        Annotated[
            object,
            _COUNT,
            "messages that could not be read (more than 64 KiB of MQTT 5 properties, properties "
            "that are none, a topic that is not UTF-8): acknowledged and dropped; the log names "
            "the topic, at most once a minute",
        ]
    ]
    refused: NotRequired[
        Annotated[object, _OBJECT, "refused messages by [error code](protocol.md#error-codes)"]
    ]
    failed_saves: NotRequired[
        Annotated[
            object,
            _COUNT,
            "transactions that could not be saved; each is tried again after a second",
        ]
    ]
    dropped: NotRequired[
        Annotated[
            object,
            _COUNT,
            "messages of QoS 0 that came while nothing could be saved, and for which there was no "
            "room: more than 4 MiB waited; answers that had no room while "
            "[one message at a time](protocol.md#3-topics) was sent",
        ]
    ]
    clock_answers: NotRequired[
        Annotated[
            object, _COUNT, "how often a board was told [what time it is](protocol.md#one-clock)"
        ]
    ]
    clock_dropped: NotRequired[
        Annotated[
            object,
            _COUNT,
            "such questions that were not answered: more than 20 a second of one board, or nothing "
            "could be saved",
        ]
    ]
    history_answers: NotRequired[
        Annotated[object, _COUNT, "how many pages of [history](protocol.md#10-history) were told"]
    ]
    history_refused: NotRequired[
        Annotated[object, _COUNT, "such questions that were refused, most of them for their number"]
    ]
    rounds: NotRequired[Annotated[object, _COUNT, "transactions that were committed"]]
    round_messages_last: NotRequired[Annotated[object, _COUNT, "messages in the last one"]]
    round_messages_largest: NotRequired[Annotated[object, _COUNT, "messages in the largest one"]]
    commit_last: NotRequired[Annotated[object, _NUMBER, "how long the last commit took"]]
    commit_largest: NotRequired[Annotated[object, _NUMBER, "how long the longest took"]]
    commit_sum: NotRequired[
        Annotated[object, _NUMBER, "how long all took; by `rounds` it is the average"]
    ]
    other: NotRequired[
        Annotated[
            object | None,
            _OBJECT,
            "the other coordinator of this root that was heard: `host`, `database`, `started`, and "
            "how many `seconds` ago ([below](#two-coordinators))",
        ]
    ]
    max_message: NotRequired[
        Annotated[
            object,
            _COUNT,
            "the largest message in bytes that is sent now: less than 4,194,304 where the broker "
            "takes less ([protocol.md](protocol.md#3-topics))",
        ]
    ]
    given_up: NotRequired[
        Annotated[object, _COUNT, "replies and answers that the broker refused each time"]
    ]
    given_up_last: NotRequired[Annotated[object, _TEXT, "the last one's topic, and why"]]


class Boards(TypedDict):
    """On ``@hwsync/boards``: whom the coordinator hears."""

    time: Annotated[Number, "the coordinator's clock, for comparing a board's"]
    listening: Annotated[Seconds, "for how many seconds the coordinator has been subscribed"]
    left_out: Annotated[Count, "how many boards are not in the list, for want of room"]
    boards: Annotated[
        dict[str, float | None],
        Form("object", _are_boards),
        "by board, the seconds since its heartbeat came, by a clock that cannot jump, or null "
        "where its will, or `online` false, came last",
    ]
    gone: NotRequired[
        Annotated[
            object,
            _OBJECT,
            "by board that has null above, the seconds since a heartbeat of it came, where that is "
            "known; of whoever was heard last, as far as there is room",
        ]
    ]


class SignFields(TypedDict):
    """On ``@hwsync/coordinator``: which coordinator serves this root."""

    host: Annotated[str, text(MAX_NAME), "the name of its machine"]
    database: Annotated[str, text(MAX_NAME), "where its database is there"]
    started: Annotated[Instant, "when it was started, by its clock"]
    time: Annotated[Instant, "when it said so"]
    stopped: Annotated[Flag, "it has ended in order"]


HEALTH: Final = Schema.of("the health", Health)
BOARDS: Final = Schema.of("the boards", Boards)
SIGN: Final = Schema.of("the sign", SignFields)


def encode_health(fields: Mapping[str, Any]) -> bytes:
    """The health as it is published; the fields are those of ``Health``."""
    return dumps(fields).encode()


GONE: Final = encode_health({"condition": Condition.GONE})
"""The will."""


def encode_boards(
    time: float,
    listening: float,
    heard: Iterable[tuple[str, float | None]],
    left_out: int = 0,
    last: Mapping[str, float] | None = None,
) -> bytes:
    """The list of the boards; ``heard``: (user, seconds ago, None: it is offline).

    What was heard last comes first; what has no room in ``MAX_BOARDS_LIST`` bytes is left out, and
    counted with those that were ``left_out`` before. ``last``: how many seconds ago those were
    heard that are offline, where that is known; it takes the room that is left.
    """
    boards: dict[str, float | None] = {}
    gone: dict[str, float] = {}
    size = _FRAME
    for user, seconds in heard:
        said = None if seconds is None else round(seconds, 1)
        size += len(user) + len(str(said)) + 4  # quotes, colon, comma
        if size > MAX_BOARDS_LIST:
            left_out += 1
        else:
            boards[user] = said
    for user, ago in sorted((last or {}).items(), key=lambda one: one[1]):
        size += len(user) + len(str(round(ago, 1))) + 4
        if size > MAX_BOARDS_LIST:
            break
        if user in boards:
            gone[user] = round(ago, 1)
    fields: Boards = {
        "time": time,
        "listening": round(listening, 1),
        "left_out": left_out,
        "boards": boards,
        "gone": gone,
    }
    return dumps(fields).encode()


@dataclass(frozen=True, slots=True)
class Sign:
    """Which coordinator it is: its machine, its database there, and when it was started.

    ``started`` and ``time`` (when it said so): Unix seconds, by its clock; ``stopped``: it has
    ended in order.
    """

    host: str
    database: str
    started: float
    time: float = 0.0
    stopped: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """The machine, and the file."""
        return self.host, self.database

    def is_same(self, other: Sign) -> bool:
        """Whether both are of one life of one process."""
        return (self.place, self.started) == (other.place, other.started)

    def encode(self, time: float, *, stopped: bool = False) -> bytes:
        """What is published."""
        fields: SignFields = {
            "host": self.host,
            "database": self.database,
            "started": self.started,
            "time": time,
            "stopped": stopped,
        }
        return dumps(fields).encode()


def read_sign(payload: bytes) -> Sign | None:
    """None: it is no sign. What it says can be printed and written."""
    obj = read_object(payload)
    if obj is None or not SIGN.holds(obj):
        return None
    return Sign(obj["host"], obj["database"], obj["started"], obj["time"], obj["stopped"])
