"""What was seen of a lab from outside: the checker's input.

The law: these are observations, not beliefs. What an operator sent and was told, which programs
began and ended (a witness outside hwsync says so), and everything that a coordinator published.
Times are seconds on one clock that never jumps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwsync.protocol.limits import DEFAULT_NAME

Json = Mapping[str, Any]
FileList = tuple[tuple[str, int, str], ...]
"""Files by their path, size and SHA-256 in hexadecimal, sorted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An operator sent a message; ``kind`` is its topic's last level."""

    at: float
    operator: str
    user: str
    kind: str
    id: str | None = None
    program: str = ""  # of a request
    name: str = DEFAULT_NAME  # of its program's file
    expires_at: float | None = None  # Unix seconds, by the coordinator's clock
    expires: float | None = None  # seconds of connection; None: not known, or no limit
    start: Json | None = None  # at which instant it is to begin, as it was asked for
    batch: tuple[str, ...] = ()  # the boards that are to begin together
    group: str = ""  # that was asked, this user with it
    parallel: int | None = None
    timeout: float | None = None  # seconds of its run; None: not known, or the default
    grace: float | None = None  # seconds past that
    files: FileList = ()  # that go with its program


@dataclass(frozen=True, slots=True)
class Answered:
    """A status, a result or an error that names the id came to the operator who had asked."""

    at: float
    operator: str
    user: str
    id: str
    fields: Json  # an error has the key ``error``
    program: str = ""  # of the request that it answers


@dataclass(frozen=True, slots=True)
class Began:
    """A program began: it may have done something. ``id``: as whoever ran it understood."""

    at: float
    user: str
    id: str
    program: str
    journal: str = ""  # of the device; empty: not known, or a person
    name: str | None = None  # of the file that it was run as; None: not known
    bound_us: int | None = None  # how wrong its device's lab time may be, by its own word
    asked: float | None = None  # when its device sent the newest question that was answered
    files: FileList | None = None  # that it found in its folder; None: not known
    made: FileList | None = None  # that it writes there and that are asked for; None: not known


@dataclass(frozen=True, slots=True)
class Ended:
    """A program ended."""

    at: float
    user: str
    id: str
    program: str
    journal: str = ""
    heard: bool = False  # its device, with its journal, was there to see it end by itself


@dataclass(frozen=True, slots=True)
class Said:
    """The coordinator published a status or a result."""

    at: float
    user: str
    kind: str  # "status" or "result"
    fields: Json
    kept: bool = False  # retained


@dataclass(frozen=True, slots=True)
class SaidOfBatch:
    """The coordinator published what became of a group's batch; ``kept``: retained."""

    at: float
    group: str
    fields: Json
    kept: bool


@dataclass(frozen=True, slots=True)
class Copied:
    """A message came to the coordinator as two, or was stored by a commit that failed."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class PutBack:
    """An older database was put in the place of the present one; all of it is from before."""

    at: float
    copied_at: float


@dataclass(frozen=True, slots=True)
class JournalLost:
    """The journal of a device was deleted, or a copy of it was put in its place."""

    at: float
    user: str
    journal: str


@dataclass(frozen=True, slots=True)
class Served:
    """One life of a coordinator that could work: its disk took everything, and nobody stopped it.

    ``seconds``: of connection in it; ``last``: of these, since it connected last.
    """

    at: float
    until: float
    seconds: float
    last: float


@dataclass(frozen=True, slots=True)
class LifeBegan:
    """Lab time began a life, or a coordinator goes on with it."""

    at: float
    life: str
    lab_us: int  # microseconds of lab time then


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The result of a command that the coordinator did not know, and had no room to keep."""

    at: float
    user: str
    id: str


@dataclass(frozen=True, slots=True)
class Judged:
    """Somebody published an analysis; ``id``: None: of the present command.

    ``text``: as it is kept; ``by``: the analyser's name and version; None: a person gave it.
    """

    at: float
    who: str
    user: str
    id: str | None
    text: str
    by: tuple[str, str] | None = None
    regrade: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    """The coordinator heard which analysers an analyst offers; none: it has gone.

    An empty ``analyst``: the coordinator connects, and what it hears from now on counts.
    """

    at: float
    analyst: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept: which, of whom, and what was seen."""

    promise: str
    user: str
    id: str
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.user} {self.id}: {self.text}"


Seen = (
    Asked
    | Answered
    | Began
    | Ended
    | Said
    | SaidOfBatch
    | Copied
    | PutBack
    | JournalLost
    | Served
    | LifeBegan
    | TurnedAway
    | Judged
    | Offered
)
