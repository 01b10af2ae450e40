"""Several records and one event: what becomes of each of them (docs/protocol.md, section 2).

The law: everything that the protocol says of records is decided below ``hwsync.protocol``; here is
what concerns more than one change: the queue's turn, a reset that empties the queue, a new epoch,
one user too many, a message that comes again. A function takes what is known (``Known``) and
returns its decisions in the order in which they are saved and published, in one transaction. It
changes nothing and performs nothing; who called it saves the decisions, and takes them over
(``Draft.take``).

    draft = Draft(known)
    for message in messages:
        for decision in decide(user, event, moment, draft, rules):
            draft.take(decision)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from hwsync.protocol import epochs, idle, limits, machine, named, starts, waiting
from hwsync.protocol.analysis import outcome_line
from hwsync.protocol.answers import refuse
from hwsync.protocol.effects import Decision, Effect, PublishError, PublishStatus
from hwsync.protocol.errors import Code, DatabaseError, Refused
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
    DeadlinePassed,
    Event,
    HeartbeatReceived,
    Message,
    NextInQueue,
    Requested,
    ResetAsked,
    Restored,
)
from hwsync.protocol.presence import is_outdated_will
from hwsync.protocol.record import Command, Moment, Record, State, replace
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import TopicKind

Order = tuple[int, int]  # (epoch, seq)


class Known(Protocol):
    """What is known before an event: looked up here, and never changed.

    A lookup may raise what its source raises; it passes through every function of this module.
    """

    @property
    def epoch(self) -> int:
        """The present one: of a record that is made now."""

    def record(self, user: str) -> Record | None:
        """The user's record, None where nobody has used that name."""

    def command(self, user: str, id: str) -> Command | None:
        """The command with that id of that user, None where there is none."""

    def count(self) -> int:
        """How many users have a record."""

    def device(self, user: str) -> HeartbeatReceived | None:
        """What was heard last of the user's device in this life; None: nothing was."""


@dataclass(slots=True)
class Draft:
    """What is known, as the decisions so far leave it: ``Known`` once more, and nothing is saved.

    ``base``: what is saved; its lookups may raise, as ``Known`` says. ``records`` and ``commands``
    (by user and id) have what was changed, and only that: saved together they are ``base`` after
    all ``decisions``. To throw a draft away undoes it.
    """

    base: Known
    records: dict[str, Record] = field(default_factory=dict)
    commands: dict[tuple[str, str], Command] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    heard: dict[str, HeartbeatReceived] = field(default_factory=dict)  # since what is saved
    _new: int = 0  # users that had no record

    @property
    def epoch(self) -> int:
        """That of what is saved: a draft begins none."""
        return self.base.epoch

    def record(self, user: str) -> Record | None:
        """The user's record, None where nobody has used that name."""
        return self.records.get(user) or self.base.record(user)

    def command(self, user: str, id: str) -> Command | None:
        """The command with that id of that user, None where there is none."""
        record = self.record(user)
        if record is not None and record.current is not None and record.current.id == id:
            return record.current
        return self.commands.get((user, id)) or self.base.command(user, id)

    def count(self) -> int:
        """How many users have a record."""
        return self.base.count() + self._new

    def device(self, user: str) -> HeartbeatReceived | None:
        """What was heard last of the user's device in this life; None: nothing was."""
        return self.heard.get(user) or self.base.device(user)

    def hear(self, user: str, heartbeat: HeartbeatReceived) -> None:
        """A heartbeat or will counts for what is decided from here on."""
        if not is_outdated_will(self.device(user), heartbeat):
            self.heard[user] = heartbeat

    def record_of(self, user: str) -> Record:
        """The user's record; one at rest, which nobody has changed yet, for a new name."""
        return self.record(user) or Record(user, epoch=self.epoch)

    def take(self, decision: Decision) -> None:
        """The decision counts: what follows is decided on what it leaves."""
        self.decisions.append(decision)
        record, other = decision.record, decision.command
        changed = decision.entry is not None or decision.unlogged
        if changed and record.current is not None:
            self.commands[record.user, record.id] = record.current
        if other is not None:
            self.commands[record.user, other.id] = other
        if changed or other is not None:
            self._new += self.record(record.user) is None
            self.records[record.user] = record


@dataclass(frozen=True, slots=True)
class Handled:
    """What the last message without an id under a packet identifier was, and its error."""

    topic: str  # as far as it is kept
    digest: bytes  # SHA-256 of the payload
    error: bytes | None


def handled(message: Message, error: bytes | None) -> Handled:
    """What is remembered of a message; ``error``: what was published about it."""
    digest = hashlib.sha256(message.payload).digest()
    return Handled(message.topic[: limits.KEPT_TOPIC], digest, error)


@dataclass(slots=True)
class Memory:
    """What the broker sends again of messages without an id (docs/protocol.md, section 2).

    A message that is marked as sent again (DUP), with the packet identifier, topic and text of one
    that was handled, is answered as the first time and not performed again. Whatever names an id
    needs no memory: its repeats are copies by their id.

    By packet identifier. ``saved``: those heard longest ago first; ``changed``: None: forgotten.
    ``new_session``: the broker began to count anew, so that what is saved says nothing any more.
    Each message is looked for, decided and noted, in the order in which they came; ``changed`` is
    saved together with what they changed (docs/decisions.md, 21).
    """

    saved: Mapping[int, Handled]
    changed: dict[int, Handled | None] = field(default_factory=dict)
    new_session: bool = False

    def find(self, message: Message, id: str | None) -> Handled | None:
        """What was remembered of a message that comes again; None: it is to be handled."""
        if not message.dup or id is not None:
            return None
        before = self.changed.get(message.mid)
        if before is None and not self.new_session:
            before = self.saved.get(message.mid)
        same = before is not None and before == handled(message, before.error)
        return before if same else None

    def note(self, message: Message, error: bytes | None, *, named: bool) -> None:
        """Remember a message without an id.

        Any other message (``named``) that takes over the packet identifier ends that.
        """
        if not message.mid:
            return
        if not named:
            self.changed[message.mid] = handled(message, error)
        elif message.mid in self.saved or message.mid in self.changed:
            self.changed[message.mid] = None

    def shorten(self) -> None:
        """Forget those that were heard longest ago, where there are more than may be.

        No broker sends them again: it has sent ``limits.PACKETS`` others since.
        """
        saved = () if self.new_session else self.saved
        old = [mid for mid in saved if mid not in self.changed]
        new = sum(one is not None for one in self.changed.values())
        for mid in old[: max(len(old) + new - limits.PACKETS, 0)]:
            self.changed[mid] = None


def decide(user: str, event: Event, moment: Moment, known: Known, rules: Rules) -> list[Decision]:
    """What follows from an event for a user: one decision for each change, in their order.

    The first ones are the event's own; behind them stands what the queue does when its turn has
    come (``Decision.turn``). All of them are saved in one transaction, and their effects performed
    after it, in the same order (docs/protocol.md, section 2, "Publishing"). ``user``: a valid name,
    which may be new.

    Never raises ``Refused``: a refusal is a decision, which is saved and published too. Raises
    ``DatabaseError`` where a command that waits in the queue is not known: nothing is decided then,
    and the database is to be looked at.
    """
    draft = Draft(known)
    _decide(draft, user, event, moment, rules)
    return draft.decisions


def restore(
    users: Iterable[str], epoch: int, moment: Moment, known: Known, rules: Rules
) -> list[Decision]:
    """A new epoch begins: what was open or waited is lost, and never sent again.

    ``users``: whose records are of an older one (docs/protocol.md, section 2, "Epochs"). The new
    ``epoch`` itself is to be saved in the same transaction.
    """
    draft = Draft(known)
    for user in users:
        for id in draft.record_of(user).queue:
            command = draft.command(user, id)
            if command is not None:
                lost = waiting.lose(draft.record_of(user), command, moment)
                draft.take(_within(draft, lost, command, moment, rules))
        _decide(draft, user, Restored(epoch), moment, rules)
    return draft.decisions


def expire(user: str, moment: Moment, known: Known, rules: Rules) -> list[Decision]:
    """The clock says that the present state may end; whether it does the table says.

    Called too early it decides nothing (docs/protocol.md, section 2, "Deadlines").
    """
    record = Draft(known).record_of(user)
    return decide(user, DeadlinePassed(record.id), moment, known, rules)


def analyse(user: str, id: str, moment: Moment, known: Known, rules: Rules) -> list[Decision]:
    """The coordinator's own analysis of the record's command, unless somebody gave one."""
    command = Draft(known).record_of(user).current
    if command is None or command.id != id or not command.report or command.analysis is not None:
        return []
    return decide(user, Analysed(outcome_line(command.report), id), moment, known, rules)


def unreadable(
    user: str, kind: TopicKind | None, refusal: Refused, moment: Moment, known: Known, rules: Rules
) -> Decision:
    """A message that is refused before it is an event; ``user``: as its topic has it.

    A result of which id and journal could be read is settled, so that nobody repeats it for ever.
    """
    draft = Draft(known)
    record = draft.record_of(user)
    if not limits.is_user(user):
        return Decision(record, effects=(PublishError(refusal, record.state),), refused=refusal)
    if kind is TopicKind.RESPONSE and refusal.id and refusal.journal:
        decision = named.settle_refused(record, refusal.id, refusal.journal, moment, refusal)
        if _is_one_too_many(draft, decision):
            decision = _without_record(record, refusal)
        return _within(draft, decision, None, moment, rules)
    known_command = None if refusal.id is None else draft.command(user, refusal.id)
    return refuse(record, refusal, known_command)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What somebody saw of a record, beside what is known of it."""

    newer: int | None = None  # its epoch, where it is more than is known: an older database
    forged: Order | None = None  # it is more than anybody can have counted to
    effects: tuple[Effect, ...] = ()


NOTHING_NEW: Final = Sighting()


def compare(user: str, order: Order | None, known: Known, *, of_device: bool) -> Sighting:
    """What a status, or what a device says that it saw (``of_device``), tells of the database.

    ``order`` None: it says nothing. Where ``Sighting.newer`` is set, no message may be decided on
    this database before ``restore`` (docs/protocol.md, section 2, "Epochs").
    """
    record = Draft(known).record_of(user)
    if order is None or order <= (record.epoch, record.seq):
        return NOTHING_NEW
    if epochs.is_believed(order[0], of_device=of_device):
        return Sighting(newer=order[0])
    # What is kept at the broker is ours again.
    again = not of_device and record.kept
    return Sighting(forged=order, effects=(PublishStatus(record),) if again else ())


def _decide(draft: Draft, user: str, event: Event, moment: Moment, rules: Rules) -> None:
    if isinstance(event, ResetAsked) and event.queue:
        _empty_queue(draft, user, event, moment, rules)
    draft.take(_one(draft, user, event, moment, rules))
    while (command := _whose_turn(draft.record_of(user), draft)) is not None:
        taken = _one(draft, user, NextInQueue(command), moment, rules)
        draft.take(replace(taken, turn=True))


def _one(draft: Draft, user: str, event: Event, moment: Moment, rules: Rules) -> Decision:
    """What one event does to one record."""
    command = None if event.id is None else draft.command(user, event.id)
    if isinstance(event, Requested) and command is None:
        refusal = starts.cannot(event.request, draft.device(user))
        if refusal is not None:
            return refuse(draft.record_of(user), machine.about(refusal, event))
    decision = machine.decide(draft.record_of(user), event, moment, command, rules)
    if _is_one_too_many(draft, decision):
        return _one_too_many(draft, user, event)
    return decision


def _empty_queue(draft: Draft, user: str, event: ResetAsked, moment: Moment, rules: Rules) -> None:
    """Each waiting request is cancelled, where the reset itself will be accepted.

    So the reset is decided twice: here, to know that; and afterwards, on what is left.
    """
    if _one(draft, user, event, moment, rules).moved:
        for id in draft.record_of(user).queue:
            draft.take(_one(draft, user, CancelAsked(id), moment, rules))


def _whose_turn(record: Record, draft: Draft) -> Command | None:
    """The command that follows where a record is at rest and requests wait; None: none does."""
    if record.state is not State.REST or not record.queue:
        return None
    command = draft.command(record.user, record.queue[0])
    if command is None:
        raise DatabaseError(f"the queue of {record.user} names {record.queue[0]}, which is lost")
    return command


def _is_one_too_many(draft: Draft, decision: Decision) -> bool:
    """Whether this would be the record of one user more than may be."""
    new = decision.entry is not None and draft.record(decision.record.user) is None
    return new and draft.count() >= limits.MAX_USERS


def _one_too_many(draft: Draft, user: str, event: Event) -> Decision:
    """A message that would make one record too many: refused, a result settled too."""
    refusal = Refused(
        Code.NOT_ALLOWED,
        f"{user} is new, and there are records of {limits.MAX_USERS} boards already",
        "is its name right? hwsync status lists the boards",
    )
    refusal, record = machine.about(refusal, event), draft.record_of(user)
    if refusal.id and refusal.journal:
        return _without_record(record, refusal)
    return refuse(record, refusal)


def _without_record(record: Record, refusal: Refused) -> Decision:
    """A result is settled in a status that is published once, and kept by nobody."""
    settled = idle.turned_away(record, refusal.id or "", refusal.journal or "", refusal)
    return replace(settled, unlogged=False)


def _within(
    draft: Draft, decision: Decision, command: Command | None, moment: Moment, rules: Rules
) -> Decision:
    """A decision that is not the table's, as far as its user has room."""
    before = draft.record_of(decision.record.user)
    return idle.within(before, command, decision, moment, rules.allowance)
