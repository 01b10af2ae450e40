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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hwsync.protocol import epochs, grouped, limits, named, together, turns
from hwsync.protocol.analysis import outcome_line
from hwsync.protocol.answers import refuse
from hwsync.protocol.draft import Draft, Known
from hwsync.protocol.effects import BatchDecision, Decision, Effect, PublishError, PublishStatus
from hwsync.protocol.errors import Refused
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
    DeadlinePassed,
    Event,
    Message,
    Requested,
    ResetAsked,
    Restored,
)
from hwsync.protocol.grouped import GroupEvent
from hwsync.protocol.record import Moment, State
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import TopicKind

Order = tuple[int, int]  # (epoch, seq)


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


def decide(
    user: str, event: Event, moment: Moment, known: Known, rules: Rules
) -> list[Decision | BatchDecision]:
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


def decide_group(
    group: str,
    event: GroupEvent,
    members: Sequence[str],
    is_offline: Callable[[str], bool],
    moment: Moment,
    known: Known,
    rules: Rules,
) -> list[Decision | BatchDecision]:
    """What follows from an event for a group, for all its members in one transaction.

    ``group``: its name without the sign; ``members``: who they are at this moment, of ``all`` for a
    cancel and a reset whoever is not at rest. ``is_offline``: whether a board is known to be. The
    row of the log of the first change alone keeps a request. Raises as ``decide`` does.
    """
    draft = Draft(known)
    try:
        grouped.decide(draft, group, event, members, is_offline, moment, rules)
    except Refused as refusal:
        refusal = refusal.about(event.id)  # whoever asked knows his answer by it
        return [BatchDecision(None, grouped.on_refusal(refusal), refusal)]
    return draft.decisions


def take_turns(known: Known, moment: Moment, rules: Rules) -> list[Decision | BatchDecision]:
    """Whoever could have begun already: nobody, unless a life before this one left it undone."""
    draft = Draft(known)
    draft.touched |= dict.fromkeys(
        one.key for one in draft.open_batches() if one.waiting or one.queued
    )
    if draft.touched:
        turns.of_batches(draft, moment, rules)
    return draft.decisions


@dataclass(frozen=True, slots=True)
class Begun:
    """What a look at batches that begin together has decided, and for whom an instant was fixed."""

    decisions: list[Decision | BatchDecision]
    users: frozenset[str]


def begin_together(keys: Iterable[str], moment: Moment, known: Known, rules: Rules) -> Begun:
    """Batches of these whose members are ready, or are waited for no longer.

    ``keys``: every one of which something may have changed, a device's presence included.
    """
    draft = Draft(known)
    users = {user for key in keys for user in together.begin(draft, key, moment, rules)}
    turns.of_batches(draft, moment, rules)
    return Begun(draft.decisions, frozenset(users))


def restore(
    users: Iterable[str], epoch: int, moment: Moment, known: Known, rules: Rules
) -> list[Decision | BatchDecision]:
    """A new epoch begins: what was open or waited is lost, and never sent again.

    ``users``: whose records are of an older one (docs/protocol.md, section 2, "Epochs"). The new
    ``epoch`` itself is to be saved in the same transaction.
    """
    draft, users = Draft(known), list(users)
    for user in users:  # all that waits first: nobody's end is anybody's turn
        turns.lose_waiting(draft, user, moment, rules)
    for user in users:
        _decide(draft, user, Restored(epoch), moment, rules)
    return draft.decisions


def expire(user: str, moment: Moment, known: Known, rules: Rules) -> list[Decision | BatchDecision]:
    """The clock says that the present state may end; whether it does the table says.

    Called too early it decides nothing (docs/protocol.md, section 2, "Deadlines").
    """
    record = Draft(known).record_of(user)
    return decide(user, DeadlinePassed(record.id), moment, known, rules)


def analyse(
    user: str, id: str, moment: Moment, known: Known, rules: Rules
) -> list[Decision | BatchDecision]:
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
        if turns.is_one_too_many(draft, decision):
            decision = turns.without_record(record, refusal)
        return turns.within(draft, decision, None, moment, rules)
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
    if isinstance(event, Requested) and event.listed is not None:
        grouped.join(draft, user, event, moment, rules)
    else:
        if isinstance(event, ResetAsked) and event.queue:
            _empty_queue(draft, user, event, moment, rules)
        draft.take(turns.one(draft, user, event, moment, rules))
    turns.of_queue(draft, user, moment, rules)
    turns.of_batches(draft, moment, rules)


def _empty_queue(draft: Draft, user: str, event: ResetAsked, moment: Moment, rules: Rules) -> None:
    """Each waiting request is cancelled, in a batch too, where the reset itself will be accepted.

    So the reset is decided twice: here, to know that; and afterwards, on what is left.
    """
    record = draft.record_of(user)
    rests = record.state is State.REST and event.id is None  # there may be no room for its row
    if rests or turns.one(draft, user, event, moment, rules).moved:
        for id in (*record.queue, *(id for id, _ in record.batched)):
            draft.take(turns.one(draft, user, CancelAsked(id), moment, rules))
