"""One batch of messages, decided: what will be saved, and what is done once it is.

The law: nothing here is saved, published or acknowledged; a plan that is thrown away has changed
nothing. One message that makes hwsync fail is recorded as refused, and the others are decided.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from hwsync.coordinator.store import FAILURES, Batch, Handled, RefusedRow, Store
from hwsync.protocol import limits
from hwsync.protocol.analysis import outcome_line
from hwsync.protocol.answers import refuse
from hwsync.protocol.effects import Decision, Effect, PublishError, PublishResult, PublishStatus
from hwsync.protocol.epochs import is_believed
from hwsync.protocol.errors import Code, DatabaseError, Refused
from hwsync.protocol.events import (
    Analysed,
    CancelAsked,
    DeadlinePassed,
    Event,
    HeartbeatHeard,
    Ignored,
    Message,
    NextInQueue,
    ResetAsked,
    Restored,
    StatusHeard,
)
from hwsync.protocol.idle import turned_away, within
from hwsync.protocol.jsons import dumps
from hwsync.protocol.late import forsaken, settle_refused
from hwsync.protocol.machine import about, decide
from hwsync.protocol.messages import read
from hwsync.protocol.record import Command, Moment, Record, Reply, State
from hwsync.protocol.replies import check
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import Kind, Topics
from hwsync.transport import Delivery

log = logging.getLogger("hwsync.coordinator")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a plan starts from: everything that is saved, and the rules."""

    records: Mapping[str, Record]
    packets: Mapping[int, Handled]
    store: Store
    rules: Rules
    topics: Topics
    nonce: Callable[[], str]
    epoch: int = 0


@dataclass(slots=True)
class Plan:
    """One batch while it is decided. ``effects``: by user, in order; bytes are an error's."""

    saved: Saved
    moment: Moment
    batch: Batch = field(default_factory=Batch)
    effects: list[tuple[str, Effect | bytes]] = field(default_factory=list)
    refusals: list[tuple[Reply, bytes]] = field(default_factory=list)  # to a response topic
    heartbeats: list[tuple[str, HeartbeatHeard]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _said: dict[str, Record] = field(default_factory=dict)  # the last status of each user
    _results: dict[tuple[str, str], PublishResult] = field(default_factory=dict)  # by user and id
    newer: int = -1  # an epoch of which more was said than the database knows; -1: none
    beyond: dict[str, tuple[int, int]] = field(default_factory=dict)  # by user: not believed

    def hear(self, message: Message) -> None:
        """Decide what a message means. Raises ``FAILURES`` where the database cannot be read."""
        user, _ = self.saved.topics.split(message.topic)
        try:
            event = read(message, self.saved.topics)
        except Refused as refusal:
            if not self._repeated(user, message, refusal.id):
                self._unreadable(user, refusal, message)
            return
        except Exception:
            self._poison(user, message)
            return
        if isinstance(event, Ignored | HeartbeatHeard | StatusHeard):
            self.counts["ignored"] += isinstance(event, Ignored)
            if isinstance(event, HeartbeatHeard):
                self.heartbeats.append((user, event))
                self._compare(user, event.seen, of_device=True)
            if isinstance(event, StatusHeard):
                self._compare(user, event.order, of_device=False)
            self._remember(message, True, None)
        elif not self._repeated(user, message, event.id):
            self._decide(user, event, message)

    def try_to_hear(self, message: Message) -> bool:
        """The same for a query; False where the database cannot be read."""
        try:
            self.hear(message)
        except FAILURES:
            return False
        return True

    def _compare(self, user: str, order: tuple[int, int] | None, *, of_device: bool) -> None:
        """Take note of what somebody saw of a record, where it is more than the database has."""
        record = self.record(user)
        if order is None or order <= (record.epoch, record.seq):
            return
        if not is_believed(order[0], of_device=of_device):
            self.counts["ignored"] += 1  # nobody could have counted so far
            self.beyond[user] = order
            if not of_device and record.seq and not record.forgotten:
                self.effects.append((user, PublishStatus(record)))  # what is kept is ours again
            return
        self.newer = max(self.newer, order[0])

    def begin_epoch(self, epoch: int) -> None:
        """The database was found to be old: what is decided from here on is of a new epoch."""
        self.batch.epoch = (epoch, self.moment.wall)
        rules = replace(self.saved.rules, restored_at=self.moment.ticks)
        self.saved = replace(self.saved, epoch=epoch, rules=rules)
        self.rise(epoch, sorted(self.saved.records.keys() | self.batch.records.keys()))

    def rise(self, epoch: int, users: Iterable[str]) -> None:
        """A new epoch: what was open is lost, and never sent again."""
        for user in users:
            for id in self.record(user).queue:
                command = self._known(self.record(user), id)
                if command is not None:
                    decision = forsaken(self.record(user), command, self.moment)
                    self._take(self._within(decision, command), None, id)
            self._decide(user, Restored(epoch), None)

    def replied(self, user: str, id: str) -> None:
        """The replies of a command have arrived: they are owed no more."""
        record = self.record(user)
        command = self._known(record, id)
        if command is not None and command.replies:
            command = replace(command, replies=())
            self.batch.commands[user, id] = command
            if record.id == id:
                self.batch.records[user] = replace(record, current=command)

    def deadline(self, user: str) -> None:
        """Decide what follows from the passing of a deadline."""
        record = self.record(user)
        if record.current is not None:
            self._decide(user, DeadlinePassed(record.id), None)

    def analyse(self, user: str, id: str) -> None:
        """Analyse the outcome of the record's own command, unless somebody did."""
        command = self.record(user).current
        if command and command.id == id and command.account and command.analysis is None:
            self._decide(user, Analysed(outcome_line(command.account), id), None)

    def record(self, user: str) -> Record:
        """The user's record as this plan leaves it."""
        return (
            self.batch.records.get(user)
            or self.saved.records.get(user)
            or Record(user, epoch=self.saved.epoch)
        )

    def _decide(self, user: str, event: Event, message: Message | None) -> None:
        try:
            decision = self._decision(user, event)
            if self._is_too_many(decision):
                decision = _one_too_many(decision.record.user, event, self.saved.epoch)
            if isinstance(event, ResetAsked) and event.queue and decision.moved:
                for id in decision.record.queue:
                    self._decide(user, CancelAsked(id), message)
                decision = self._decision(user, event)
        except FAILURES:
            raise
        except Exception:
            if message is None:
                raise
            self._poison(user, message)
            return
        self._take(decision, message, event.id)
        if decision.refused is None:
            kind = "accepted" if decision.entry and not decision.entry.late else "answered"
            self.counts["late" if decision.entry and decision.entry.late else kind] += 1
        self._next(user)

    def _is_too_many(self, decision: Decision) -> bool:
        """Whether this would be the record of one user more than may be."""
        user, known = decision.record.user, self.saved.records
        new = decision.entry is not None and user not in known and user not in self.batch.records
        if not new or len(known) + len(self.batch.records) < limits.MAX_USERS:
            return False
        return len(known.keys() | self.batch.records.keys()) >= limits.MAX_USERS

    def _within(self, decision: Decision, known: Command | None) -> Decision:
        """A decision that is not the table's, as far as its user has room."""
        before, allowance = self.record(decision.record.user), self.saved.rules.allowance
        return within(before, known, decision, self.moment, allowance)

    def _decision(self, user: str, event: Event) -> Decision:
        record = self.record(user)
        known = self._known(record, event.id)
        nonce = "" if event.id else self.saved.nonce()
        moment = replace(self.moment, nonce=nonce)
        return decide(record, event, moment, known, self.saved.rules)

    def _next(self, user: str) -> None:
        """Take the next command from the queue where the record came to rest."""
        record = self.record(user)
        if record.state is State.REST and record.queue:
            command = self._known(record, record.queue[0])
            if command is None:
                raise DatabaseError(f"the queue of {user} names {record.queue[0]}, which is lost")
            self._decide(user, NextInQueue(command), None)

    def _unreadable(self, user: str, refusal: Refused, message: Message) -> None:
        record = self.record(user)
        _, kind = self.saved.topics.split(message.topic)
        valid = limits.is_user(user)
        if kind is Kind.RESPONSE and valid and refusal.id and refusal.journal:
            decision = settle_refused(record, refusal.id, refusal.journal, self.moment, refusal)
            if self._is_too_many(decision):
                decision = turned_away(record, refusal.id, refusal.journal, refusal)
                decision = replace(decision, unlogged=False)
            self._take(self._within(decision, None), message, refusal.id)
            return
        known = self._known(record, refusal.id) if valid else None
        decision = refuse(record, refusal, known)
        if not valid:
            decision = Decision(record, effects=decision.effects[:1], refused=refusal)
        self._take(decision, message, refusal.id)

    def _poison(self, user: str, message: Message) -> None:
        log.exception("hwsync failed on a message on %s", message.topic, extra={"user": user})
        refusal = Refused(
            Code.BAD_PAYLOAD,
            "hwsync failed on this message; this is a bug of hwsync and stands in its log",
            "please report it with the payload",
        )
        record = self.record(user)
        error = PublishError(refusal, record.state)
        self._take(Decision(record, effects=(error,), refused=refusal), message, None)

    def _take(self, decision: Decision, message: Message | None, id: str | None) -> None:
        """Put one decision into the plan; ``id`` is the one that the message named."""
        record, refusal = decision.record, decision.refused
        user = record.user
        if decision.entry is not None:
            self.batch.log.append((record, decision.entry, message))
        self.counts["unlogged"] += decision.unlogged
        if decision.entry is not None or decision.unlogged:
            self.batch.records[user] = record
            if record.current is not None:
                self.batch.commands[user, record.id] = record.current
        if decision.command is not None:
            self.batch.records[user] = record
            self.batch.commands[user, decision.command.id] = decision.command
        error: bytes | None = None
        for effect in decision.effects:
            if isinstance(effect, PublishError):
                error = error_json(effect, message)
                self._answer(user, message, error)
            else:
                self._tell(user, effect)
        if refusal is not None and message is not None:
            self._refused(record, refusal, message)
        if message is not None:
            self._remember(message, id is not None, error)

    def _answer(self, user: str, message: Message | None, error: bytes) -> None:
        """An error goes to its topic, and to the response topic of a request."""
        self.effects.append((user, error))
        reply = message.reply if message else None
        if message is None or reply is None:
            return
        _, kind = self.saved.topics.split(message.topic)
        with suppress(Refused):
            check(reply, self.saved.topics.root, None)
            if kind in (Kind.REQUEST, Kind.COMMAND):
                self.refusals.append((reply, error))

    def _refused(self, record: Record, refusal: Refused, message: Message) -> None:
        valid, user = limits.is_user(record.user), record.user
        known = user in self.saved.records or user in self.batch.records
        self.batch.refused.append(
            RefusedRow(
                user if valid else "",
                user if valid and known else "",
                self.moment.wall,
                refusal,
                message,
                record.state if valid else None,
            )
        )
        self.counts[f"refused_{refusal.code}"] += 1

    def _remember(self, message: Message, named: bool, error: bytes | None) -> None:
        """Keep what a message without an id was: the broker may send it again.

        Any other message that takes over the packet identifier ends that.
        """
        if not message.mid:
            return
        if not named:
            digest = hashlib.sha256(message.payload).digest()
            topic = message.topic[: limits.KEPT_TOPIC]
            self.batch.packets[message.mid] = Handled(topic, digest, error)
        elif message.mid in self.saved.packets or message.mid in self.batch.packets:
            self.batch.packets[message.mid] = None

    def forget_packets(self) -> None:
        """Those that were heard longest ago, where there are too many: no broker sends them again.

        The saved ones are in the order in which they came.
        """
        saved = () if self.batch.forget_packets else self.saved.packets
        old = [mid for mid in saved if mid not in self.batch.packets]
        new = sum(one is not None for one in self.batch.packets.values())
        for mid in old[: max(len(old) + new - limits.PACKETS, 0)]:
            self.batch.packets[mid] = None

    def _repeated(self, user: str, message: Message, id: str | None) -> bool:
        """Whether the broker sent a handled message without an id again; it is answered again."""
        if not message.dup or id is not None:
            return False
        handled = self.batch.packets.get(message.mid)
        if handled is None and not self.batch.forget_packets:
            handled = self.saved.packets.get(message.mid)
        digest = hashlib.sha256(message.payload).digest()
        topic = message.topic[: limits.KEPT_TOPIC]
        if handled is None or (handled.topic, handled.digest) != (topic, digest):
            return False
        self.counts["duplicates"] += 1
        if handled.error is not None:
            self._answer(user, message, handled.error)
        if limits.is_user(user):
            self._tell(user, PublishStatus(self.record(user)))
        return True

    def _tell(self, user: str, effect: Effect) -> None:
        """A status that was said in this round, and has not changed since, answers for all.

        So does a result, and it goes to the last place: it proves that what came before it was
        heard, errors too.
        """
        if isinstance(effect, PublishStatus):
            if self._said.get(user) == effect.record:
                return
            self._said[user] = effect.record
        if isinstance(effect, PublishResult):
            before = self._results.get((user, effect.command.id))
            if before == effect:
                self.effects = [one for one in self.effects if one[1] is not before]
            self._results[user, effect.command.id] = effect
        self.effects.append((user, effect))

    def _known(self, record: Record, id: str | None) -> Command | None:
        if id is None:
            return None
        if record.current is not None and record.current.id == id:
            return record.current
        changed = self.batch.commands.get((record.user, id))
        return changed or self.saved.store.command(record.user, id)


def _one_too_many(user: str, event: Event, epoch: int) -> Decision:
    """A message that would make the record of one user more: refused, a result settled too."""
    refusal = Refused(
        Code.NOT_ALLOWED,
        f"{user} is new, and there are records of {limits.MAX_USERS} users already",
        "is its name right? hwsync status lists the users",
    )
    refusal, record = about(refusal, event), Record(user, epoch=epoch)
    if refusal.id and refusal.journal:
        return replace(turned_away(record, refusal.id, refusal.journal, refusal), unlogged=False)
    return refuse(record, refusal)


def message_of(delivery: Delivery) -> Message:
    """What the core needs of a message that came."""
    reply = Reply(delivery.reply_topic, delivery.correlation) if delivery.reply_topic else None
    return Message(
        delivery.topic, delivery.payload, delivery.retain, delivery.dup, delivery.mid, reply
    )


def still_ours(deliveries: Iterable[Delivery], session_present: bool) -> list[Delivery]:
    """What of these a new connection does not bring again: only we have it.

    Unacknowledged ones come again where the broker kept the session, those of QoS 0 never.
    """
    return [replace(one, mid=0) for one in deliveries if not (session_present and one.qos)]


def error_json(effect: PublishError, message: Message | None) -> bytes:
    """The error as it is published; ``message``: the refused one."""
    refusal = effect.refusal
    return dumps(
        {
            "error": refusal.code,
            "message": refusal.message,
            "hint": refusal.hint,
            "topic": message.topic[: limits.KEPT_TOPIC] if message else "",
            "id": refusal.id,
            "journal": refusal.journal,
            "state": int(effect.state),
        }
    ).encode()
