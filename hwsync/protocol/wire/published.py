"""What an operator hears, as types: the fields of each kind by name, and one message of any kind.

The law: the fields of a type are those that ``wire.heard`` has checked; what a sender may say
besides is ``object`` here, and whoever shows it looks first what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, cast

from hwsync.protocol.topics import Kind


class Told(TypedDict):
    """The program and how it ended: what a status and a result have in common."""

    id: str
    state: int  # a ``State``
    queued: int  # status: commands that wait; result: the command's place, 0: none
    user: str
    journal: str | None
    boot: int | None
    hw_command: str
    hw_response: str
    server_analysis: str
    outcome: str | None  # None: it has not ended
    ran: str | None
    reason: str
    exit_code: int | None
    stderr: str
    duration: float | None  # s
    started: float | None  # Unix seconds
    start_error: float | None
    clock_bound: float | None
    truncated: bool
    name: NotRequired[str | None]
    order: NotRequired[list[list[Any]] | None]  # of [stream, bytes]


class Status(Told):
    """On ``status``: the record of a user."""

    epoch: int
    seq: int
    start_at: float | None
    cancelling: bool
    settled: list[list[str]]  # of [id, journal]
    login: bool
    command: str  # what was said last
    time: float  # Unix seconds
    deadline: float | None  # Unix seconds; None: the state does not end by itself


class Result(Told):
    """On ``result/<id>``: the whole of one command."""

    number: int
    issued: float  # Unix seconds
    timeout: float  # s
    stdin: str
    args: list[str]
    meta: str  # JSON
    analyser: str
    late: bool
    orphan: bool
    pruned: bool


class Error(TypedDict):
    """On ``error``: a refusal."""

    error: str  # a ``Code``, or a later version's
    message: str
    hint: str
    topic: str  # of the message that was refused
    id: str | None
    journal: str | None


class Output(TypedDict):
    """On ``output``: one piece, while the program runs."""

    id: str
    n: int
    stream: str
    text: str
    at: NotRequired[int | None]  # bytes of its stream before it
    skipped: NotRequired[int | None]  # bytes


class Heartbeat(TypedDict):
    """On ``heartbeat``: a device, or its will."""

    online: bool
    journal: str
    boot: int
    time: NotRequired[float | None]  # Unix seconds, by the board's clock
    seen: NotRequired[object]
    version: NotRequired[object]
    busy: NotRequired[object]
    refusing: NotRequired[object]
    former: NotRequired[object]
    board: NotRequired[object]
    temperature: NotRequired[object]  # °C
    memory_free_mb: NotRequired[object]
    disk_free_mb: NotRequired[object]


class Health(TypedDict):
    """On ``@hwsync/health``: the coordinator."""

    condition: str
    time: NotRequired[float | None]  # Unix seconds
    reason: NotRequired[object]
    version: NotRequired[object]
    host: NotRequired[object]
    database: NotRequired[object]
    started: NotRequired[object]  # Unix seconds
    clock: NotRequired[object]
    uptime: NotRequired[object]  # s
    users: NotRequired[object]
    states: NotRequired[object]
    queued: NotRequired[object]
    other: NotRequired[object]
    max_message: NotRequired[object]  # bytes
    given_up: NotRequired[object]
    given_up_last: NotRequired[object]


class Boards(TypedDict):
    """On ``@hwsync/boards``: whom the coordinator hears."""

    time: float  # Unix seconds
    listening: float  # s
    left_out: int
    boards: dict[str, float | None]  # seconds ago; None: it is offline


@dataclass(frozen=True, slots=True)
class Heard:
    """One message of ``user``. Its fields are what ``read_heard`` says; empty: it was cleared.

    The properties name its kind: each but one is None.
    """

    user: str
    kind: Kind
    fields: Mapping[str, Any]

    @property
    def status(self) -> Status | None:
        """A cleared one is none."""
        return cast(Status, self.fields) if self.kind is Kind.STATUS and self.fields else None

    @property
    def result(self) -> Result | None:
        return cast(Result, self.fields) if self.kind is Kind.RESULT and self.fields else None

    @property
    def told(self) -> Status | Result | None:
        """A status or a result."""
        return self.status or self.result

    @property
    def error(self) -> Error | None:
        return cast(Error, self.fields) if self.kind is Kind.ERROR and self.fields else None

    @property
    def heartbeat(self) -> Heartbeat | None:
        return cast(Heartbeat, self.fields) if self.kind is Kind.HEARTBEAT and self.fields else None

    @property
    def health(self) -> Health | None:
        return cast(Health, self.fields) if self.kind is Kind.HEALTH and self.fields else None

    @property
    def boards(self) -> Boards | None:
        return cast(Boards, self.fields) if self.kind is Kind.BOARDS and self.fields else None
