"""The coordinator's loop: what waits is decided, saved in one transaction, published, acknowledged.

The law: nothing is published or acknowledged that is not saved; what to publish follows from the
decisions alone; after a failed save nothing has happened, and the same messages are tried again.
One message that makes hwsync fail is recorded as refused, and the loop lives.
"""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from hwsync.coordinator.deadlines import Agenda, ConnectedClock, backoff
from hwsync.coordinator.store import FAILURES, Batch, Handled, Store
from hwsync.protocol import limits
from hwsync.protocol.analysis import outcome_line
from hwsync.protocol.effects import (
    Analyse,
    Decision,
    Effect,
    PublishEnvelope,
    PublishError,
    PublishResult,
    PublishStatus,
)
from hwsync.protocol.errors import Code, HwsyncError, Refused
from hwsync.protocol.events import (
    Analysed,
    DeadlinePassed,
    Event,
    HeartbeatHeard,
    Ignored,
    Message,
)
from hwsync.protocol.jsons import dumps
from hwsync.protocol.late import settle_refused
from hwsync.protocol.machine import Rules, decide, due, refuse
from hwsync.protocol.messages import read
from hwsync.protocol.record import (
    Command,
    Moment,
    Record,
    State,
    encode_envelope,
    encode_result,
    encode_status,
)
from hwsync.protocol.topics import Kind, Topics
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed

log = logging.getLogger("hwsync.coordinator")

SAVE_AGAIN_S: Final = 1.0  # after a failed save, before the same messages are tried again


class Publisher(Protocol):
    """What the loop needs of the transport."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Send; False where nobody is connected."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that it need not send this again."""


class Clock(Protocol):
    """Both clocks, in seconds."""

    def wall(self) -> float:
        """Unix time."""

    def monotonic(self) -> float:
        """Never jumps."""


@dataclass(frozen=True, slots=True)
class Presence:
    """The device that was heard last."""

    journal: str
    boot: int
    online: bool


@dataclass(slots=True)
class Plan:
    """One batch while it is decided: what will be saved, and what is done after."""

    moment: Moment
    batch: Batch = field(default_factory=Batch)
    effects: list[tuple[str, Effect | bytes]] = field(default_factory=list)  # bytes: an error
    resend: set[str] = field(default_factory=set)
    presence: dict[str, Presence] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


class Coordinator:
    """One lab's coordinator. ``step`` is called from one thread, with all that waits."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        clock: Clock,
        rules: Rules,
        *,
        settle: float = limits.DEFAULT_SETTLE_S,
        dice: random.Random | None = None,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.store = store
        self.rules = rules
        self.topics = Topics(rules.root)
        self.counts: Counter[str] = Counter()
        self._publisher = publisher
        self._clock = clock
        self._dice = dice or random.Random()
        self._nonce = nonce
        self._ticking = ConnectedClock(settle)
        self._deadlines = Agenda()
        self._resends = Agenda()
        self._attempts: dict[str, tuple[str, int, float]] = {}  # user: id, attempt, due
        self._presence: dict[str, Presence] = {}
        self._analysed: list[tuple[str, Analysed]] = []
        self._waiting: list[Delivery] = []
        self._save_again_at: float | None = None
        self._forget_packets = False
        self._load()

    def _load(self) -> None:
        now = self._clock.monotonic()
        self.records = self.store.load(self._ticking.ticks(now))
        self._packets = self.store.packets()
        for record in self.records.values():
            self._schedule(record)

    def wait(self) -> float | None:
        """Seconds until ``step`` has something to do by itself; None: only when a signal comes."""
        now = self._clock.monotonic()
        if self._save_again_at is not None:
            return max(self._save_again_at - now, 0.0)
        if self._analysed:
            return 0.0
        waits: list[float] = []
        if (due_at := self._deadlines.nearest()) is not None:
            wait = self._ticking.wait(now, due_at)
            waits += [] if wait is None else [wait]
        if (at := self._resends.nearest()) is not None:
            waits.append(max(at - now, 0.0))
        return min(waits, default=None)

    def step(self, signals: Sequence[Signal] = ()) -> None:
        """Handle what came and what is due."""
        subscribed = False
        for signal in signals:
            if isinstance(signal, Delivery):
                self._waiting.append(signal)
            elif isinstance(signal, Connected):
                # A new session's packet identifiers say nothing about the last one's.
                self._forget_packets |= not signal.session_present
                # Unacknowledged, they come again; but where the session is gone, only we have them.
                kept = [] if signal.session_present else self._waiting
                self._waiting = [replace(delivery, mid=0) for delivery in kept]
            elif isinstance(signal, Subscribed):
                self._ticking.connect(self._clock.monotonic())
                subscribed = True
            elif isinstance(signal, Disconnected):
                self._ticking.disconnect(self._clock.monotonic())
        if subscribed:
            self._publish_everything()
        now = self._clock.monotonic()
        if self._save_again_at is not None and now < self._save_again_at:
            return
        plan = self._plan(now)
        if not self._save(plan, now):
            return
        self._perform(plan)
        for delivery in self._waiting:
            self._publisher.acknowledge(delivery)
        self._waiting = []
        self._resend(now)

    def _plan(self, now: float) -> Plan:
        ticks = self._ticking.ticks(now)
        plan = Plan(Moment(self._clock.wall(), ticks))
        if self._forget_packets:
            plan.batch.forget_packets = True
        for delivery in self._waiting:
            self._hear(plan, delivery)
        for user, analysed in self._analysed:
            self._decide(plan, user, analysed, None)
        nearest = self._deadlines.nearest()
        if nearest is not None and self._ticking.wait(now, nearest) == 0.0:
            for user in self._deadlines.passed(ticks):
                record = self._record(plan, user)
                if record.current is not None:
                    self._decide(plan, user, DeadlinePassed(record.id), None)
        return plan

    def _save(self, plan: Plan, now: float) -> bool:
        """Save the batch and take it over; after a failure everything is as before."""
        if plan.batch:
            try:
                self.store.save(plan.batch, plan.moment.ticks)
            except FAILURES as error:
                log.error("cannot save: %s; trying again", error)
                self._save_again_at = now + SAVE_AGAIN_S
                self.counts["failed_saves"] += 1
                self._try_load()
                return False
        self._save_again_at = None
        self._analysed = []
        self.counts += plan.counts
        self._presence |= plan.presence
        if plan.batch.forget_packets:
            self._packets.clear()
            self._forget_packets = False
        for mid, handled in plan.batch.packets.items():
            if handled is None:
                self._packets.pop(mid, None)
            else:
                self._packets[mid] = handled
        self.records |= plan.batch.records
        for record in plan.batch.records.values():
            self._schedule(record)
        return True

    def _try_load(self) -> None:
        """A failed commit may have been stored after all: what counts is what the file says."""
        try:
            self._load()
        except FAILURES as error:
            log.error("cannot read the database: %s", error)

    def _hear(self, plan: Plan, delivery: Delivery) -> None:
        message = Message(
            delivery.topic, delivery.payload, delivery.retain, delivery.dup, delivery.mid
        )
        user, _ = self.topics.split(delivery.topic)
        try:
            event = read(message, self.topics)
        except Refused as refusal:
            if self._repeated(plan, user, message, refusal.id):
                return
            self._unreadable(plan, user, refusal, message)
            return
        except Exception:
            self._poison(plan, user, message)
            return
        if isinstance(event, Ignored):
            plan.counts["ignored"] += 1
        elif isinstance(event, HeartbeatHeard):
            self._appeared(plan, user, event)
        elif not self._repeated(plan, user, message, event.id):
            self._decide(plan, user, event, message)

    def _decide(self, plan: Plan, user: str, event: Event, message: Message | None) -> None:
        record = self._record(plan, user)
        try:
            known = self._known(plan, record, event.id)
            nonce = "" if event.id else self._nonce()
            moment = Moment(plan.moment.wall, plan.moment.ticks, nonce)
            decision = decide(record, event, moment, known, self.rules)
        except FAILURES:
            raise
        except Exception:
            if message is None:
                raise
            self._poison(plan, user, message)
            return
        self._take(plan, decision, message, event.id)
        if decision.refused is None:
            kind = "accepted" if decision.entry and not decision.entry.late else "answered"
            plan.counts["late" if decision.entry and decision.entry.late else kind] += 1

    def _unreadable(self, plan: Plan, user: str, refusal: Refused, message: Message) -> None:
        record = self._record(plan, user)
        _, kind = self.topics.split(message.topic)
        valid = limits.is_user(user)
        if kind is Kind.RESPONSE and valid and refusal.id and refusal.journal:
            self._take(
                plan,
                settle_refused(record, refusal.id, refusal.journal, plan.moment, refusal),
                message,
                refusal.id,
            )
            return
        known = self._known(plan, record, refusal.id) if valid else None
        decision = refuse(record, refusal, known)
        if not valid:
            decision = Decision(record, effects=decision.effects[:1], refused=refusal)
        self._take(plan, decision, message, refusal.id)

    def _poison(self, plan: Plan, user: str, message: Message) -> None:
        log.exception("hwsync failed on a message on %s", message.topic, extra={"user": user})
        refusal = Refused(
            Code.BAD_PAYLOAD,
            "hwsync failed on this message; this is a bug of hwsync and stands in its log",
            "please report it with the payload",
        )
        record = self._record(plan, user)
        error = PublishError(refusal, record.state)
        self._take(plan, Decision(record, effects=(error,), refused=refusal), message, None)

    def _take(
        self, plan: Plan, decision: Decision, message: Message | None, id: str | None
    ) -> None:
        """Put one decision into the plan; ``id`` is the one that the message named."""
        record, refusal = decision.record, decision.refused
        user = record.user
        if decision.entry is not None:
            plan.batch.records[user] = record
            plan.batch.log.append((record, decision.entry, message))
            if record.current is not None:
                plan.batch.commands[user, record.id] = record.current
            log.info(
                "%s: %s to %s%s",
                decision.entry.verb,
                int(decision.entry.before),
                int(decision.entry.after),
                f" (late; {decision.entry.note})" if decision.entry.late else "",
                extra={"user": user, "id": decision.entry.id},
            )
        if decision.command is not None:
            plan.batch.commands[user, decision.command.id] = decision.command
        error: bytes | None = None
        for effect in decision.effects:
            if isinstance(effect, PublishError):
                error = _error_json(effect, message)
                plan.effects.append((user, error))
            else:
                plan.effects.append((user, effect))
        if refusal is not None and message is not None:
            self._record_refusal(plan, record, refusal, message)
        if message is not None and message.mid:
            self._remember(plan, message, id is not None, error)

    def _record_refusal(
        self, plan: Plan, record: Record, refusal: Refused, message: Message
    ) -> None:
        valid = limits.is_user(record.user)
        state = record.state if valid else None
        owner = record.user if valid else ""
        plan.batch.refused.append((owner, plan.moment.wall, refusal, message, state))
        plan.counts[f"refused_{refusal.code}"] += 1
        log.warning(
            "refused (%s) on %s: %s",
            refusal.code,
            message.topic[:120],
            refusal.message,
            extra={"user": owner, "id": refusal.id},
        )

    def _remember(self, plan: Plan, message: Message, named: bool, error: bytes | None) -> None:
        """Keep what a message without an id was: the broker may send it again."""
        if not named:
            digest = hashlib.sha256(message.payload).digest()
            plan.batch.packets[message.mid] = Handled(message.topic, digest, error)
        elif message.mid in self._packets or message.mid in plan.batch.packets:
            plan.batch.packets[message.mid] = None

    def _repeated(self, plan: Plan, user: str, message: Message, id: str | None) -> bool:
        """Whether the broker sent a handled message without an id again; it is answered again."""
        if not message.dup or id is not None:
            return False
        handled = plan.batch.packets.get(message.mid, self._packets.get(message.mid))
        digest = hashlib.sha256(message.payload).digest()
        if (
            handled is None
            or self._forget_packets
            or (handled.topic, handled.digest) != (message.topic, digest)
        ):
            return False
        plan.counts["duplicates"] += 1
        if handled.error is not None:
            plan.effects.append((user, handled.error))
        if limits.is_user(user):
            plan.effects.append((user, PublishStatus(self._record(plan, user))))
        return True

    def _appeared(self, plan: Plan, user: str, heard: HeartbeatHeard) -> None:
        """A device that is new here, or back, is sent what waits for it."""
        before = plan.presence.get(user, self._presence.get(user))
        if before is not None and not heard.online and before.boot > heard.boot:
            return  # an earlier boot's will
        plan.presence[user] = Presence(heard.journal, heard.boot, heard.online)
        known = before is not None and before.online
        same = before is not None and (before.journal, before.boot) == (heard.journal, heard.boot)
        if heard.online and not (known and same):
            plan.resend.add(user)

    def _record(self, plan: Plan, user: str) -> Record:
        return plan.batch.records.get(user) or self.records.get(user) or Record(user)

    def _known(self, plan: Plan, record: Record, id: str | None) -> Command | None:
        if id is None:
            return None
        if record.current is not None and record.current.id == id:
            return record.current
        changed = plan.batch.commands.get((record.user, id))
        return changed or self.store.command(record.user, id)

    def _perform(self, plan: Plan) -> None:
        for user, effect in plan.effects:
            if isinstance(effect, bytes):
                self._publish(self.topics.of(user, Kind.ERROR), effect)
            else:
                self._carry_out(user, effect)
        for user in plan.resend:
            record = self.records.get(user)
            if record is not None and record.state is State.REQUESTED:
                self._carry_out(user, PublishEnvelope(record))

    def _carry_out(self, user: str, effect: Effect) -> None:
        if isinstance(effect, PublishStatus):
            record = effect.record
            topic = self.topics.of(user, Kind.STATUS)
            self._publish(topic, encode_status(record), retain=record.seq > 0)
        elif isinstance(effect, PublishEnvelope):
            self._publish(self.topics.of(user, Kind.COMMAND), encode_envelope(effect.record))
        elif isinstance(effect, PublishResult):
            topic = self.topics.result(user, effect.command.id)
            self._publish(topic, encode_result(effect.command, effect.state))
        elif isinstance(effect, Analyse) and effect.command.account is not None:
            text = outcome_line(effect.command.account)
            self._analysed.append((user, Analysed(text, effect.command.id)))

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        try:
            self._publisher.publish(topic, payload, retain=retain)
        except HwsyncError as error:
            log.error("cannot publish on %s: %s", topic[:120], error)

    def _publish_everything(self) -> None:
        """Every status and everything due: a broker may have forgotten the last second."""
        for user, record in self.records.items():
            for effect in due(record):
                self._carry_out(user, effect)

    def _schedule(self, record: Record) -> None:
        """Note the deadline, and the next repetition of an envelope."""
        if record.due_at is not None:
            self._deadlines.add(record.due_at, record.user)
        if record.state is not State.REQUESTED:
            self._attempts.pop(record.user, None)
            return
        waiting = self._attempts.get(record.user)
        if waiting is None or waiting[0] != record.id:
            self._again(record, 0)

    def _again(self, record: Record, attempt: int) -> None:
        at = self._clock.monotonic() + backoff(attempt, self._dice)
        self._attempts[record.user] = (record.id, attempt, at)
        self._resends.add(at, record.user)

    def _resend(self, now: float) -> None:
        """Send again the envelopes that nobody collected; not to a device known to be away."""
        for user in self._resends.passed(now):
            record, waiting = self.records.get(user), self._attempts.get(user)
            if record is None or waiting is None or waiting[0] != record.id or waiting[2] > now:
                continue
            presence = self._presence.get(user)
            if presence is None or presence.online:
                self._carry_out(user, PublishEnvelope(record))
                self.counts["resent"] += 1
            self._again(record, waiting[1] + 1)


def _error_json(effect: PublishError, message: Message | None) -> bytes:
    refusal = effect.refusal
    return dumps(
        {
            "error": refusal.code,
            "message": refusal.message,
            "hint": refusal.hint,
            "topic": message.topic if message else "",
            "id": refusal.id,
            "journal": refusal.journal,
            "state": int(effect.state),
        }
    ).encode()
