"""What the coordinator says of itself, below ``@hwsync``: the list of boards, and its sign.

(docs/protocol.md, section 3.) The sign is retained, so that it stands there also where nobody has
it any more; no will takes it away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hwsync.protocol.jsons import dumps, is_number, size
from hwsync.protocol.limits import EXPIRES_AT_S, MAX_BOARDS_LIST
from hwsync.protocol.wire.schema import read_object

MAX_NAME: Final = 4_096  # bytes of a host's name, or of a path
_FRAME: Final = 200  # bytes at most of the list beside its boards


def encode_boards(
    time: float,
    listening: float,
    heard: Iterable[tuple[str, float | None]],
    left_out: int = 0,
) -> bytes:
    """The list of the boards; ``heard``: (user, seconds ago, None: it is offline).

    What was heard last comes first; what has no room in ``MAX_BOARDS_LIST`` bytes is left out, and
    counted with those that were ``left_out`` before.
    """
    boards: dict[str, float | None] = {}
    size = _FRAME
    for user, seconds in heard:
        said = None if seconds is None else round(seconds, 1)
        size += len(user) + len(str(said)) + 4  # quotes, colon, comma
        if size > MAX_BOARDS_LIST:
            left_out += 1
        else:
            boards[user] = said
    return dumps(
        {
            "time": time,
            "listening": round(listening, 1),
            "left_out": left_out,
            "boards": boards,
        }
    ).encode()


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
        said = {"host": self.host, "database": self.database, "started": self.started}
        return dumps(said | {"time": time, "stopped": stopped}).encode()


def read_sign(payload: bytes) -> Sign | None:
    """None: it is no sign. What it says can be printed and written."""
    fields = read_object(payload) or {}
    host, database, stopped = (fields.get(name) for name in ("host", "database", "stopped"))
    started, time = fields.get("started"), fields.get("time")
    if not isinstance(stopped, bool) or not (_is_name(host) and _is_name(database)):
        return None
    if not (_is_time(started) and _is_time(time)):
        return None
    return Sign(host, database, started, time, stopped)  # type: ignore[arg-type]


def _is_name(value: object) -> bool:
    try:
        return isinstance(value, str) and size(value) <= MAX_NAME
    except ValueError:
        return False


def _is_time(value: object) -> bool:
    low, high = EXPIRES_AT_S
    return is_number(value) and low <= value <= high  # type: ignore[operator]
