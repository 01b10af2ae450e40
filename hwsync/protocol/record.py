"""What is known of one user and of one command: frozen values.

The law: a change is a replacement. ``Record`` is the level that everybody reconciles with; its
``current`` is the command that the record is about, and stays readable at rest
(docs/protocol.md, section 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum, StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from hwsync.protocol import limits
from hwsync.protocol.files import Files, NotKeptFiles
from hwsync.protocol.output import Order

if TYPE_CHECKING:
    from dataclasses import replace as replace
else:
    _KNOWN = {}  # by class: the place of each field's name, and what reads all of them in order

    def replace(value, /, **changes):
        """``dataclasses.replace``, in a third of its time: the same arguments, the same result.

        The standard one looks at each field's description anew, and gives all of them by name: 11
        us for a record, seven times for each message. Raises ``TypeError`` for a name that is no
        field.
        """
        cls = value.__class__
        try:
            places, read = _KNOWN[cls]
        except KeyError:
            places, read = _KNOWN[cls] = _learn(cls)
        values = list(read(value))
        try:
            for name, changed in changes.items():
                values[places[name]] = changed
        except KeyError:
            raise TypeError(f"{cls.__name__} has no field {name!r}") from None
        return cls(*values)

    def _learn(cls):
        names = [field.name for field in fields(cls)]
        if len(names) < 2 or not all(field.init and not field.kw_only for field in fields(cls)):
            raise TypeError(f"{cls.__name__} is not made of two fields or more, given in order")
        return {name: place for place, name in enumerate(names)}, attrgetter(*names)


class State(IntEnum):
    """Where a user's record stands."""

    REST = 0  # nothing asked; the last cycle's fields stay readable
    REQUESTED = 1  # a program waits to be collected
    COLLECTED = 2  # one device has it and was granted the run
    RETURNED = 3  # the result is stored and waits for analysis


class Verb(StrEnum):
    """What moved the record last; the first six are the original system's."""

    QUERY = "status_query"
    REQUEST = "hw_command_request"
    RETRIEVAL = "hw_command_retrieval"
    RESPONSE = "hw_response_provide"
    ANALYSIS = "server_analysis_provide"
    RESET = "reset"
    CANCEL = "cancel"
    EXPIRE = "expire"  # any deadline
    RESTORE = "restore"  # an older database was put back
    START = "start"  # the coordinator fixes the instant at which the members of a batch begin
    LEFT_OUT = "left_out"  # and ends the command of a member that was not ready
    NEXT = "next"  # the coordinator takes the next command from the queue; never in a status


class Analyser(StrEnum):
    """Who says what a result is worth, but for the analysers of analysts (section 7)."""

    MANUAL = "manual"  # somebody publishes the analysis; so where nobody says which one
    OUTCOME = "outcome"  # the coordinator writes one line from the device's report


class Outcome(StrEnum):
    """How a run ended."""

    OK = "ok"  # exit 0
    ERROR = "error"  # another exit code
    TIMEOUT = "timeout"  # its time limit
    KILLED = "killed"  # another limit, or a signal
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # the device died while it ran
    REJECTED = "rejected"  # the device refused it
    EXPIRED = "expired"  # never collected
    LOST = "lost"  # collected, no answer in time


class Ran(StrEnum):
    """Whether the program ran, as far as anybody can know."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"


RAN_BY_OUTCOME: Final = {
    Outcome.OK: Ran.YES,
    Outcome.ERROR: Ran.YES,
    Outcome.TIMEOUT: Ran.YES,
    Outcome.KILLED: Ran.YES,
    Outcome.INTERRUPTED: Ran.MAYBE,
    Outcome.REJECTED: Ran.NO,
    Outcome.EXPIRED: Ran.NO,
    Outcome.LOST: Ran.MAYBE,
}
"""What follows from the outcome; of a cancelled run only the device knows."""


WHO_ASKED: Final = "who asked "
MICRO: Final = 1_000_000  # of a second: lab time is counted in whole microseconds


@dataclass(frozen=True, slots=True)
class Start:
    """When a command is to begin (docs/protocol.md, section 6). Times are seconds.

    At an instant of lab time (``at_us``), or together with the other members of its batch.
    """

    within: float = limits.DEFAULT_START_WITHIN_S  # how late, or how uncertain, it may be
    at_us: int | None = None  # microseconds of lab time; None: together
    wait: float = limits.DEFAULT_START_WAIT_S  # for the members to get ready
    lead: float = limits.DEFAULT_START_LEAD_S  # between the decision and the instant
    need: int = 1  # of the members that must be ready, else nobody starts

    @property
    def together(self) -> bool:
        """Whether the instant is fixed when the members of the batch are ready."""
        return self.at_us is None

    @property
    def within_us(self) -> int:
        """``within`` in microseconds."""
        return round(self.within * MICRO)


@dataclass(frozen=True, slots=True)
class Request:
    """A program and how to run it (docs/protocol.md, section 4)."""

    program: str
    id: str | None = None  # the sender's; without one the coordinator makes one
    timeout: float = limits.DEFAULT_TIMEOUT_S  # seconds of run time
    expires: float = limits.DEFAULT_EXPIRES_S  # seconds until it must be collected; 0: no limit
    grace: float = limits.DEFAULT_GRACE_S  # seconds past the timeout, then it is lost
    stdin: str = ""
    args: tuple[str, ...] = ()
    analysis: str | None = None  # an analyser's name; None: the coordinator's default
    meta: str = "{}"  # compact JSON, kept with the command
    queue: bool = False  # wait behind the present command instead of being refused
    name: str | None = None  # of the file that is run; None: not given
    expires_at: float | None = None  # Unix seconds; from then on it must not be collected
    start: Start | None = None  # None: it begins as soon as it was granted
    files: Files = ()  # that go into the run's folder, sorted by their paths
    collect: tuple[str, ...] = ()  # patterns of the files that are to come back


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a command ended: the device's report, or the coordinator's where no device gave one."""

    outcome: Outcome
    ran: Ran
    reason: str = ""  # one line for people
    response: str = ""  # standard output
    stderr: str = ""
    exit_code: int | None = None
    duration: float | None = None  # seconds
    started: float | None = None  # Unix seconds by the device's own clock, uncorrected
    start_error: float | None = None  # seconds late, of a synchronized start
    clock_bound: float | None = None  # seconds the correction may be off
    truncated: bool = False
    sha256_stdout: str = ""  # hexadecimal, of the whole stream, cut or not; empty: not known
    sha256_stderr: str = ""
    order: Order | None = None  # in which response and stderr came; None: not known
    files: Files = ()  # that came back, sorted by their paths
    not_kept: NotKeptFiles = ()  # that did not
    ran_on: str = ""  # compact JSON, an object; empty: nobody said


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an MQTT 5 request wants its answer (docs/protocol.md, section 3)."""

    topic: str
    correlation: bytes = b""  # given back with the answer


class KnownBy(StrEnum):
    """How it is known who asked for a command."""

    REPLY_TOPIC = "reply topic"  # who gets the answer; another may have named it, and not hear it
    CLAIM = "claim"  # the sender's own word, which proves nothing


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asked for a command, and how that is known (``protocol.admission``)."""

    name: str
    known_by: KnownBy

    @property
    def note(self) -> str:
        """The same in the log; the name last, so that no name can look like more than a claim."""
        return f"{WHO_ASKED}({self.known_by}): {self.name}"


@dataclass(frozen=True, slots=True)
class AnalysedBy:
    """Which analyser of an analyst gave an analysis."""

    name: str
    version: str
    fault: str | None = None  # why it failed itself: then the analysis says nothing of the program

    @property
    def key(self) -> tuple[str, str]:
        """Of a command there is one analysis for each (docs/protocol.md, section 7)."""
        return self.name, self.version


@dataclass(frozen=True, slots=True)
class Regrade:
    """A later analysis of a command that has ended; it is kept beside the first one."""

    by: AnalysedBy
    analysis: str
    time: float  # coordinator's wall clock


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a user, from its request to its end, and what was heard of it since."""

    user: str
    id: str
    request: Request
    digest: str = ""  # what a repeat must equal; empty for an orphan: its text is not known
    number: int = 0  # the user's how-many-eth command
    issued: float = 0.0  # coordinator's wall clock
    journal: str | None = None  # the grant: the device that collected it; None by hand
    boot: int | None = None
    report: RunReport | None = None  # None while it is open
    answered_by: str | None = None  # the journal whose result is the report
    journals_answered: tuple[str, ...] = ()  # whose result is stored or was refused for good
    accepted: frozenset[Verb] = frozenset()  # what it was told already: a copy is a duplicate
    late_collected: tuple[str, int] | None = None  # the last device that collected it too late
    analysis: str | None = None  # None while nobody gave one
    late: bool = False  # something of it was stored after its end
    orphan: bool = False  # only its result is known (the database was restored)
    replies: tuple[Reply, ...] = ()  # who is to be told of its end, until they surely were
    doubtful: bool = False  # a restore ended it, or it may be a repeat from before one
    pruned: bool = False  # its texts were dropped with the years; hashes and end stay
    asker: Asker | None = None  # of the first request that named the id; None: nobody is known
    program_sha256: str = ""  # hexadecimal; empty where its text was never known here
    start_at_us: int | None = None  # microseconds of lab time; None: no instant is fixed
    start_life: str = ""  # the life whose lab time that is
    batch: str = ""  # the key of the batch that made it (``protocol.batch``); empty: none did
    analysed_by: AnalysedBy | None = None  # None: a person, or the coordinator's ``outcome``
    regraded: tuple[tuple[str, str], ...] = ()  # the keys of its regrades, the oldest first
    no_analysis: str = ""  # why state 3 ended without one

    def without_false_no(self, report: RunReport) -> RunReport:
        """The account, but ran maybe instead of no where a restored database may have forgotten it.

        docs/protocol.md, section 2, "Epochs".
        """
        if self.doubtful and report.ran is Ran.NO:
            return replace(report, ran=Ran.MAYBE)
        return report

    @property
    def analyser(self) -> str:
        """Who analyses it, an ``Analyser``; ``manual`` where nobody said."""
        return self.request.analysis or Analyser.MANUAL

    @property
    def waits_for_analyst(self) -> bool:
        """Whether its analyser is one that analysts offer."""
        return self.analyser not in (Analyser.MANUAL, Analyser.OUTCOME)

    @property
    def name(self) -> str:
        """Of the file that is run; empty where there is no program."""
        return "" if self.orphan or not self.id else self.request.name or limits.DEFAULT_NAME


NO_COMMAND: Final = Command("", "", Request(""))
"""Stands for the command of a record that never had one."""
NO_REPORT: Final = RunReport(Outcome.OK, Ran.YES)
"""Stands for the report of a command that has not ended: its texts are empty."""


@dataclass(frozen=True, slots=True)
class Record:
    """The level: one for each user."""

    user: str
    state: State = State.REST
    epoch: int = 0
    seq: int = 0  # of the last change; 0: never changed, so nothing is kept of this user
    verb: Verb | None = None
    time: float = 0.0  # coordinator's wall clock at the last change
    deadline_wall: float | None = None  # the same clock, an estimate, for people
    deadline_ticks: float | None = None  # in ticks (``Moment.ticks``): the one that counts
    cancelling: bool = False
    settled: tuple[tuple[str, str], ...] = ()  # the last [id, journal] whose result is stored
    count: int = 0  # commands so far
    queue: tuple[str, ...] = ()  # the ids that wait behind the present command, the next one first
    taken_at: float | None = None  # in ticks; when the present command was taken from the queue
    forgotten: bool = False  # a typing error: not published until something changes it
    current: Command | None = None
    recent: tuple[float, ...] = ()  # ticks; its last requests, where they are counted; not stored
    queue_bytes: int = 0  # of the requests in the queue, and of those below
    idle: float = field(default=0.0, compare=False)  # bytes stored for nothing (``protocol.idle``)
    idle_at: float = field(default=0.0, compare=False)  # coordinator's wall clock, of that figure
    batched: tuple[tuple[str, str], ...] = ()  # [id, batch] that wait for a place in their batch
    unoffered_ticks: float | None = None  # in ticks: the end of state 3 while nobody offers it

    @property
    def id(self) -> str:
        """The current command's id, empty before the first cycle."""
        return self.current.id if self.current else ""

    @property
    def waits(self) -> Command | None:
        """The command that waits here to be collected; None: none does."""
        return self.current if self.state is State.REQUESTED else None

    @property
    def expires_at(self) -> float | None:
        """Unix seconds from which on nobody may collect what waits here."""
        return self.waits.request.expires_at if self.waits else None

    @property
    def due_ticks(self) -> float | None:
        """In ticks: when its state ends by the time of connection; None: it does not."""
        ends = (self.deadline_ticks, self.unoffered_ticks)
        return min((end for end in ends if end is not None), default=None)

    @property
    def kept(self) -> bool:
        """Whether the broker is to keep its status: it was changed, and is not forgotten."""
        return self.seq > 0 and not self.forgotten

    def state_of(self, id: str) -> State:
        """With which state a command is shown: the record's, or rest for another one."""
        return self.state if id == self.id else State.REST

    def is_waiting(self, id: str) -> bool:
        """Whether a command waits here, and has not begun: in the queue, or in its batch."""
        return id in self.queue or any(id == one for one, _ in self.batched)

    def place(self, id: str) -> int:
        """Where a command waits in the queue, from 1; 0: it does not."""
        return self.queue.index(id) + 1 if id in self.queue else 0


@dataclass(frozen=True, slots=True)
class Moment:
    """What the outside world says now: the core has no clock and no dice of its own."""

    wall: float  # Unix seconds, for people
    ticks: float  # seconds on the monotonic clock while connected: deadlines count on it
    nonce: str = field(default="", repr=False)  # at least 64 random bits, for an id
    lab_us: int = 0  # microseconds of lab time, in ``life`` (docs/protocol.md, section 6)
    life: str = ""  # of lab time


def is_past(expires_at: float | None, moment: Moment) -> bool:
    """Whether the wall clock has reached it; None: it never does."""
    return expires_at is not None and expires_at <= moment.wall


def latest_start_s(record: Record, moment: Moment) -> float | None:
    """Seconds for which what waits here could still begin at its instant; None: it has none.

    0: it is past by more than it may be. An instant of another life is past.
    """
    command = record.waits
    if command is None or command.start_at_us is None or command.request.start is None:
        return None
    if command.start_life != moment.life:
        return 0.0
    return max(command.start_at_us + command.request.start.within_us - moment.lab_us, 0) / MICRO


def is_over(record: Record, moment: Moment) -> bool:
    """Whether nobody may collect what waits here any more, whoever was connected meanwhile."""
    return is_past(record.expires_at, moment) or latest_start_s(record, moment) == 0


def ends_at(record: Record, moment: Moment) -> float | None:
    """Unix seconds, an estimate: when the record's state ends by itself; None: it does not."""
    left = None if record.due_ticks is None else record.due_ticks - moment.ticks
    start = latest_start_s(record, moment)
    ends = [moment.wall + wait for wait in (left, start) if wait is not None]
    ends += [] if record.expires_at is None else [record.expires_at]
    return min(ends, default=None)
