"""What is to be done, in the imperative: the machine's output. Somebody else does it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hwsync.protocol.batch import Batch
from hwsync.protocol.errors import Refused
from hwsync.protocol.files import note_of
from hwsync.protocol.record import Command, Record, Regrade, Reply, State, Verb, replace


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """Publish the record as it is after this change; retained if it is ``kept``."""

    record: Record


@dataclass(frozen=True, slots=True)
class PublishEnvelope:
    """Send the device its program."""

    record: Record


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Answer on ``result/<id>`` with the whole of a command."""

    command: Command
    state: State
    place: int = 0  # in the queue, from 1
    files: tuple[str, ...] = ()  # paths of those whose bytes it is to have


@dataclass(frozen=True, slots=True)
class PublishReplies:
    """Tell whoever gave a response topic of the end; the record is as the command ended it."""

    record: Record


@dataclass(frozen=True, slots=True)
class PublishBatch:
    """Publish what became of a batch, if it is its group's newest, when there is time for it."""

    key: str


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """The same to who asked, at once; on ``result/<id>`` where a newer one was asked since."""

    key: str


@dataclass(frozen=True, slots=True)
class ReplyBatch:
    """Tell whoever gave a response topic of the end of a batch."""

    key: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class PublishError:
    """Tell operators why a message was refused, and in which state."""

    refusal: Refused
    state: State
    topic: str = ""  # the refused message's, as far as it is kept


@dataclass(frozen=True, slots=True)
class RepeatError:
    """Publish an error as it was: its message came again."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class ReplyError:
    """Tell whoever gave a response topic that the request was refused."""

    reply: Reply
    payload: bytes  # the error, as it is published


@dataclass(frozen=True, slots=True)
class ClearKept:
    """Take from the broker what it keeps of the user: status and heartbeat."""


@dataclass(frozen=True, slots=True)
class Analyse:
    """Run the command's analyser."""

    command: Command


Effect = (
    PublishStatus
    | PublishEnvelope
    | PublishResult
    | PublishReplies
    | PublishBatch
    | AnswerBatch
    | ReplyBatch
    | PublishError
    | RepeatError
    | ReplyError
    | ClearKept
    | Analyse
)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One row of the append-only log."""

    verb: Verb
    before: State
    after: State
    id: str
    late: bool = False
    note: str = ""
    brief: bool = False  # its message stands in another row: of a request this one has the hash


@dataclass(frozen=True, slots=True)
class Decision:
    """The record as it becomes, and what goes with it."""

    record: Record
    entry: LogEntry | None = None  # set exactly when something changed
    command: Command | None = None  # a changed command that is not the record's own, or new replies
    effects: tuple[Effect, ...] = ()
    refused: Refused | None = None
    unlogged: bool = False  # what changed has no row and no number of its own (``protocol.idle``)
    turn: bool = False  # it is the queue's turn: no message's doing
    regrade: tuple[str, Regrade] | None = None  # a new one, of the command with that id
    withdrawn: str | None = None  # the id of a command whose regrades are withdrawn

    @property
    def moved(self) -> bool:
        """Whether a move of the table was made (which may lead to the same state)."""
        return self.refused is None and self.entry is not None and not self.entry.late


def changed_by(decision: Decision | BatchDecision) -> tuple[Command, ...]:
    """The commands that a decision saves, as they become."""
    if isinstance(decision, BatchDecision):
        return ()
    own = decision.record.current if decision.entry is not None else None
    return tuple(one for one in (decision.command, own) if one is not None)


def with_files(entry: LogEntry, commands: Iterable[Command]) -> LogEntry:
    """The row of the log, which says of a request and a result which files their command has."""
    command = next((one for one in commands if one.id == entry.id), None)
    if command is None or entry.verb not in (Verb.REQUEST, Verb.RESPONSE):
        return entry
    asked = entry.verb is Verb.REQUEST
    files = command.request.files if asked else command.report.files if command.report else ()
    note = note_of(files)
    return replace(entry, note="; ".join(filter(None, (note, entry.note)))) if note else entry


@dataclass(frozen=True, slots=True)
class BatchDecision:
    """A batch as it becomes, beside what its members' records do; None: none is known.

    ``refused``: the message for the group, which then changed nothing.
    """

    batch: Batch | None
    effects: tuple[Effect, ...] = ()
    refused: Refused | None = None
