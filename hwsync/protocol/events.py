"""What happened, in the past tense: the machine's input (docs/protocol.md, section 2).

An event carries the id that it names, or None where a person named none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from hwsync.protocol.batch import NO_OPTIONS, Options, Part
from hwsync.protocol.record import AnalysedBy, Command, Reply, Request, RunReport, Verb


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT message, as received."""

    topic: str
    payload: bytes
    retain: bool = False
    dup: bool = False
    mid: int = 0  # packet identifier; 0 for QoS 0
    reply: Reply | None = None  # MQTT 5: the response topic


@dataclass(frozen=True, slots=True)
class Requested:
    """Somebody asked for a program to run, on one board or on those of a group.

    ``listed``: the boards of a batch without a group, as each member's own request has them.
    ``options``: of a group's. ``part``: of which batch this is a member's request, once that is
    known. ``contents``: the bytes of its files, by their hash.
    """

    request: Request
    reply: Reply | None = None
    listed: tuple[str, ...] | None = None
    options: Options = NO_OPTIONS
    part: Part | None = None
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    verb: ClassVar[Verb] = Verb.REQUEST

    @property
    def id(self) -> str | None:
        """The sender's id."""
        return self.request.id


@dataclass(frozen=True, slots=True)
class Collected:
    """A device has it and has not started it; by hand neither id, journal nor boot."""

    id: str | None = None
    journal: str | None = None
    boot: int | None = None
    wait_until: float | None = None  # in ticks: how long its batch waits for who is not ready
    verb: ClassVar[Verb] = Verb.RETRIEVAL


@dataclass(frozen=True, slots=True)
class Returned:
    """A result came; by hand without id, journal and boot.

    ``contents``: the bytes of its files, by their hash.
    """

    report: RunReport
    id: str | None = None
    journal: str | None = None
    boot: int | None = None
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    verb: ClassVar[Verb] = Verb.RESPONSE


@dataclass(frozen=True, slots=True)
class Analysed:
    """An analysis came: a person's, an analyst's (``by``), or the coordinator's own.

    ``regrade``: a further one, of a command that has ended. ``outcome`` and ``ran``: the end that
    it judges; None: whichever the command has.
    """

    text: str
    id: str | None = None
    by: AnalysedBy | None = None
    regrade: bool = False
    outcome: str | None = None
    ran: str | None = None
    verb: ClassVar[Verb] = Verb.ANALYSIS


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody wants the command stopped; ``of_group``: with others, by a group's message."""

    id: str | None = None
    of_group: bool = False
    verb: ClassVar[Verb] = Verb.CANCEL


@dataclass(frozen=True, slots=True)
class ResetAsked:
    """Somebody wants the record at rest, whatever runs."""

    id: str | None = None
    queue: bool = False  # and its queue empty
    forget: bool = False  # only where it is at rest: nothing is to be kept of it at the broker
    verb: ClassVar[Verb] = Verb.RESET


@dataclass(frozen=True, slots=True)
class Queried:
    """Somebody asked what the record says; ``files``: whose bytes the answer is to have."""

    id: str | None = None
    files: tuple[str, ...] = ()
    verb: ClassVar[Verb] = Verb.QUERY


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The coordinator's clock says that the present state ends."""

    id: str
    verb: ClassVar[Verb] = Verb.EXPIRE


@dataclass(frozen=True, slots=True)
class NextInQueue:
    """The record is at rest, and it is the turn of this command, which waits.

    In its queue, or in a batch that has a place for it.
    """

    command: Command
    verb: ClassVar[Verb] = Verb.NEXT

    @property
    def id(self) -> str:
        """The command's."""
        return self.command.id


@dataclass(frozen=True, slots=True)
class StartFixed:
    """Its batch begins at this instant, and it is ready."""

    id: str
    at_us: int  # microseconds of lab time
    life: str
    verb: ClassVar[Verb] = Verb.START


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Its batch begins without it, or not at all."""

    id: str
    reason: str
    verb: ClassVar[Verb] = Verb.LEFT_OUT


@dataclass(frozen=True, slots=True)
class Restored:
    """The database is older than what was said before: a new epoch begins."""

    epoch: int
    id: ClassVar[None] = None
    verb: ClassVar[Verb] = Verb.RESTORE


Event = (
    Requested
    | Collected
    | Returned
    | Analysed
    | CancelAsked
    | ResetAsked
    | Queried
    | DeadlinePassed
    | NextInQueue
    | StartFixed
    | LeftOut
    | Restored
)


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """A device said that it is there, or its will that it is not. It moves no record."""

    online: bool
    journal: str
    boot: int
    seen: tuple[int, int] | None = None
    can: tuple[str, ...] = ()  # what this version of a device can beside the first one


@dataclass(frozen=True, slots=True)
class StatusReceived:
    """A status that the broker had kept, or our own that came back. It moves no record."""

    order: tuple[int, int]  # (epoch, seq)


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing to decide: an envelope that came back, or a cleared retained message. Counted."""

    why: str
