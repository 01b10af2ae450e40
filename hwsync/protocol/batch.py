"""A batch: one request for several boards (docs/protocol.md, "Groups and batches").

The law: what became of a member is read from its ordinary command, of which ``Command.batch`` is
the batch's key, and is stored nowhere else. Here stands what no command has: who the members are,
who refused it, what was asked of all together; and how many of them wait, have begun and have
ended, which is counted anew at each start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from hwsync.protocol.errors import Code
from hwsync.protocol.groups import SIGN
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import (
    Command,
    Moment,
    Outcome,
    Record,
    Reply,
    Request,
    Start,
    replace,
)

NOBODY: Final[Mapping[str, Code]] = MappingProxyType({})
NOT_BEGUN: Final = "not begun"  # how the reason begins of who never began


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a group's members together."""

    parallel: int | None = None  # at most so many at the same time
    abort: float | None = None  # a share of all: nobody begins once more have not ended ok
    online: bool = False  # who is offline now is missing at once


NO_OPTIONS: Final = Options()


@dataclass(frozen=True, slots=True)
class Part:
    """One member's part of a batch: what is the same for all, so that it is computed once."""

    key: str
    digest: str
    program_sha256: str
    waits: bool = False  # for its place


class Stage(Enum):
    """How far a member's command is."""

    WAITING = "waiting"  # for its place in the batch
    QUEUED = "queued"  # in its board's own queue
    BEGUN = "begun"  # it has its place: in state 1 or 2
    OK = "ok"
    BAD = "bad"  # it ended with another outcome


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. ``group``: its name without the sign; empty: each member was asked by itself.

    ``request``: what a group's members were asked, None where each was asked by itself. ``refused``
    has who will never have a command of it, by the code. What stands behind ``replies`` is counted
    from the members' commands.
    """

    key: str
    group: str
    id: str
    members: tuple[str, ...]
    request: Request | None = None
    digest: str = ""
    options: Options = NO_OPTIONS
    seq: int = 1
    issued: float = 0.0  # coordinator's wall clock
    ticks: float | None = None  # when it was accepted; None: in an earlier life
    follows: bool = False  # its group had one before
    ended: float | None = None  # coordinator's wall clock; None: it is open
    refused: Mapping[str, Code] = field(default_factory=lambda: NOBODY)
    replies: tuple[Reply, ...] = ()  # who is to be told of its end, until they surely were
    start: Start | None = None  # None: each member begins when it is granted
    wait_until: float | None = None  # in ticks; who is not ready is waited for; None: nobody is
    start_at_us: int | None = None  # microseconds of lab time; None: no instant is fixed
    start_life: str = ""  # the life whose lab time that is
    waiting: tuple[str, ...] = field(default=(), compare=False)  # the first of them begins next
    queued: int = field(default=0, compare=False)
    begun: int = field(default=0, compare=False)
    ok: int = field(default=0, compare=False)
    bad: int = field(default=0, compare=False)

    @property
    def has_place(self) -> bool:
        """Whether one more may begin."""
        return self.options.parallel is None or self.begun < self.options.parallel

    @property
    def is_aborted(self) -> bool:
        """Whether so many have not ended ``ok`` that nobody begins any more."""
        share = self.options.abort
        return share is not None and self.bad > share * len(self.members)

    @property
    def is_over(self) -> bool:
        """Whether each member has ended, or refused it."""
        return self.ok + self.bad + len(self.refused) >= len(self.members)

    @property
    def is_idle(self) -> bool:
        """Whether nobody's command of it is open."""
        return not (self.waiting or self.queued or self.begun)


def with_start(batch: Batch, start: Start | None, moment: Moment) -> Batch:
    """A new batch with its start: at the instant that is named, or when its members are ready."""
    if start is None:
        return batch
    if start.at_us is None:
        return replace(batch, start=start, wait_until=moment.ticks + start.wait)
    return replace(batch, start=start, start_at_us=start.at_us, start_life=moment.life)


def apart(times: Iterable[float], bounds: Iterable[float]) -> tuple[float, float]:
    """Seconds between the first and the last of some starts, and how wrong that is at most.

    Both of one life, and at least one; ``bounds``: of each of the times.
    """
    times = list(times)
    return max(times) - min(times), sum(sorted(bounds)[-2:])


def group_key(group: str, id: str) -> str:
    """The key of a group's batch; no id has a space or the sign."""
    return f"{SIGN}{group} {id}"


def list_key(id: str, members: tuple[str, ...]) -> str:
    """The key of a batch without a group: it is that list and that id."""
    return f"{id} {hashlib.sha256(dumps(members).encode()).hexdigest()}"


def is_shared(key: str) -> bool:
    """Whether the texts of the request stand once, with the batch: a group was asked."""
    return key.startswith(SIGN)


def stage(record: Record, id: str, outcome: str | None) -> Stage:
    """How far a member's command is; ``outcome``: how it ended, None: it has not."""
    if outcome is not None:
        return Stage.OK if outcome == Outcome.OK else Stage.BAD
    if id == record.id:
        return Stage.BEGUN
    return Stage.QUEUED if id in record.queue else Stage.WAITING


def stage_of(command: Command, record: Record) -> Stage:
    """The same of the command itself."""
    return stage(record, command.id, command.report.outcome if command.report else None)


def moved(batch: Batch, user: str, before: Stage | None, after: Stage) -> Batch:
    """The batch after a member went from one stage to another; None: it had none before."""
    waiting = batch.waiting
    if before is not after:
        if before is Stage.WAITING:
            at = waiting.index(user)  # mostly the first
            waiting = waiting[:at] + waiting[at + 1 :]
        if after is Stage.WAITING:
            waiting = (*waiting, user)

    def count(which: Stage, number: int) -> int:
        return number - (before is which) + (after is which)

    return replace(
        batch,
        seq=batch.seq + 1,
        waiting=waiting,
        queued=count(Stage.QUEUED, batch.queued),
        begun=count(Stage.BEGUN, batch.begun),
        ok=count(Stage.OK, batch.ok),
        bad=count(Stage.BAD, batch.bad),
    )


def counted(batch: Batch, stages: Mapping[str, Stage]) -> Batch:
    """The batch with its figures; ``stages``: by member, of those that have a command of it."""
    every = list(stages.values())
    return replace(
        batch,
        waiting=tuple(user for user in batch.members if stages.get(user) is Stage.WAITING),
        queued=every.count(Stage.QUEUED),
        begun=every.count(Stage.BEGUN),
        ok=every.count(Stage.OK),
        bad=every.count(Stage.BAD),
    )
