"""The coordinator's loop: what waits is decided, saved in one transaction, published, acknowledged.

The law: nothing is published or acknowledged that is not saved; what to publish follows from the
decisions alone; after a failed save nothing has happened, the file is read anew, and the same
messages are tried again.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hwsync.coordinator.analysts import Analysts
from hwsync.coordinator.batches import BatchNews
from hwsync.coordinator.boards import Boards
from hwsync.coordinator.deciding import Baseline, Round, RoundDecision
from hwsync.coordinator.degraded import Degraded
from hwsync.coordinator.deliveries import message_of, still_ours
from hwsync.coordinator.lab_time import LabClock, LabTime
from hwsync.coordinator.publishing import Publisher, Publishing, Signer, published_once
from hwsync.coordinator.schedule import Agenda, ConnectedClock, Resends, next_writing
from hwsync.coordinator.spreading import Spread
from hwsync.protocol import limits, replies, starts
from hwsync.protocol.answers import effects_on_appearance, effects_on_connect
from hwsync.protocol.batch import Batch, is_shared
from hwsync.protocol.effects import (
    Analyse,
    AnswerBatch,
    Effect,
    PublishBatch,
    PublishEnvelope,
    PublishReplies,
    PublishStatus,
    ReplyBatch,
)
from hwsync.protocol.errors import StoreError
from hwsync.protocol.groups import SIGN, Groups
from hwsync.protocol.offers import looked_at
from hwsync.protocol.record import MICRO, Command, Moment, Record, latest_start_s, replace
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.analyst import GONE, encode_offer
from hwsync.protocol.wire.messages import is_query, named_id
from hwsync.store.api import Storage
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed

log = logging.getLogger("hwsync.coordinator")

REPLY_LOOK_S: Final = 0.1  # after a reply, until it has arrived
SAVE_AGAIN_S: Final = 1.0  # after a failed save, before the same messages are tried again


class Coordinator:
    """One lab's coordinator: the loop's body, without the waiting.

        while not over:
            signals = ...  # whatever comes within ``coordinator.wait()`` seconds
            coordinator.step(signals)

    For one thread. ``hold_deadlines_s``: seconds after a connect in which no deadline fires.
    ``signer``: who signs envelopes; None: nobody. ``dice`` draws the pauses of repetitions,
    ``nonce`` the ids of requests without one. ``max_message``: bytes that the broker is said to
    take. Its construction reads the database, and raises ``StoreError`` where that fails; later
    failures raise nothing (``step``).
    """

    def __init__(
        self,
        store: Storage,
        publisher: Publisher,
        clock: LabClock,
        rules: Rules,
        *,
        hold_deadlines_s: float = limits.DEFAULT_SETTLE_S,
        signer: Signer | None = None,
        dice: random.Random | None = None,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
        max_message: int = limits.MAX_MESSAGE,
    ) -> None:
        self.store = store
        self.rules = replace(rules, signed=signer is not None, max_message=max_message)
        self.topics = Topics(rules.root)
        self.records: dict[str, Record] = {}
        self.batches: dict[str, Batch] = {}  # that are open, owed an answer, or a group's newest
        self.newest_keys: dict[str, str] = {}  # by group
        self.counts: Counter[str] = Counter()
        self.failure = ""  # why the last save failed; empty: it worked
        self._publisher = publisher
        self._clock = clock
        self.lab_time = LabTime(store, clock)
        self._nonce = nonce
        self._ticking = ConnectedClock(hold_deadlines_s)
        self._deadlines = Agenda()  # in ticks
        self._expiries = Agenda()  # on the wall clock; when nobody may collect any more
        self._starts = Agenda()  # in seconds of lab time; when it is too late for an instant
        self._barriers = Agenda()  # by batch, in ticks; how long who is not ready is waited for
        self._look_at_waiting = False  # for an analysis, by an analyser that somebody offers or not
        self._look_at_all = False  # whose start may have become possible unnoticed
        self._with_start: set[str] = set()  # users whose open command begins at an instant
        self._life = self.lab_time.life  # in which ``_starts`` counts
        self._write_at = next_writing(0.0)  # in ticks
        self._resends = Resends(dice or random.Random())
        self._to_analyse: list[tuple[str, str]] = []  # user, id
        self._owed: dict[tuple[str, str], Command] = {}  # ended; their replies may not have arrived
        self._replied: dict[tuple[str, str], int] = {}  # and on which connection they were sent
        self._waiting: list[Delivery] = []
        self._forget_packets = False
        self._save_again_at: float | None = None
        self._epoch_not_stored = False  # a newer epoch is known, and could not be stored yet
        self.epoch = 0
        self.publishing = Publishing(
            *(self.topics, publisher, clock.monotonic, signer, self._resends.journal),
            moment=lambda: self._moment(clock.monotonic()),
            contents=store.contents,
            regrades=store.regrades,
            max_message=max_message,
        )
        self._degraded = Degraded(self.topics, self.publishing.error)
        self.lab_time.pending = self._start_is_pending
        self.analysts = Analysts(self.topics, clock)
        self.boards = Boards(self.topics, clock, store.heard())
        self._spread = Spread(lambda: publisher.backlog)
        self._news = BatchNews(self, self.publishing, clock)
        self._batches_replied: dict[str, int] = {}  # keys; on which connection they were told
        self._load()

    def _load(self) -> list[Record]:
        """Read the file; the records of which more was stored than was known here."""
        now = self._clock.monotonic()
        stored = self.store.load(self._ticking.ticks(now))
        self._packets = self.store.packets()
        self._owed = {(command.user, command.id): command for command in self.store.owed()}
        epoch, doubted = self.store.epoch(self._clock.wall())
        self._epoch_not_stored &= epoch == self.epoch
        if self.rules.restored_at is None or epoch != self.epoch:  # else it has counted on
            restored_at = None if doubted is None else self._ticking.ticks(now) - doubted
            self.rules = replace(self.rules, restored_at=restored_at)
        self.epoch = epoch
        changed: list[Record] = []
        for user, record in stored.items():
            known = self.records.get(user)
            if known is not None and (known.epoch, known.seq) == (record.epoch, record.seq):
                # Its deadline has counted on since it was stored.
                stored[user] = replace(
                    record,
                    deadline_ticks=known.deadline_ticks,
                    taken_at=known.taken_at,
                    unoffered_ticks=known.unoffered_ticks,
                )
            else:
                changed.append(record)
            if known is not None:
                stored[user] = replace(stored[user], recent=known.recent)
        self.records = stored
        self._users_of_old_epoch = {
            user for user, record in stored.items() if record.epoch < self.epoch
        }
        for record in stored.values():
            self._schedule(record, now)
        before, self.batches, self._barriers = self.batches, {}, Agenda()
        found = list(self.store.batches(stored, self._ticking.ticks(now)))
        self.newest_keys = {batch.group: batch.key for batch in found if batch.group}
        for batch in found:
            was = before.get(batch.key, batch)
            if None not in (was.wait_until, batch.wait_until):  # it has counted on
                batch = replace(batch, wait_until=was.wait_until)
            self._keep(replace(batch, ticks=was.ticks, follows=was.follows))
        self._look_at_waiting = self._may_be_turns = self._look_at_all = True
        return changed

    def wait(self) -> float | None:
        """Seconds until ``step`` has something to do by itself; None: only when a signal comes.

        A caller that waits longer is late with deadlines and repetitions, and breaks nothing.
        """
        now = self._clock.monotonic()
        if self._save_again_at is not None:
            return max(self._save_again_at - now, 0.0)
        if self._to_analyse:
            return 0.0
        waits: list[float] = [REPLY_LOOK_S] if self._replied or self._batches_replied else []
        if (wait := self.publishing.outbox.wait()) is not None:
            waits.append(wait)
        if (deadline_ticks := self._deadlines.nearest()) is not None:
            wait = self._ticking.wait(now, deadline_ticks)
            waits += [] if wait is None else [wait]
            wait = self._ticking.until(now, self._write_at)
            waits += [] if wait is None else [wait]
        if self._ticking.runs and (expires_at := self._expiries.nearest()) is not None:
            waits.append(max(expires_at - self._clock.wall(), 0.0))
        if self._ticking.runs and (start := self._starts.nearest()) is not None:
            waits.append(max(start - self._moment(now).lab_us / MICRO, 0.0))
        parts = (self._spread, self._news, self.analysts)
        waits += [wait for part in parts if (wait := part.wait()) is not None]
        if (until := self._barriers.nearest()) is not None:
            wait = self._ticking.until(now, until)
            waits += [] if wait is None else [wait]
        if (at := self._resends.nearest()) is not None:
            waits.append(max(at - now, 0.0))
        return min(waits, default=None)

    def sign_with(self, signer: Signer | None) -> None:
        """Another key, or none; what waits is sent anew, signed so, at the next connect."""
        self.rules = replace(self.rules, signed=signer is not None)
        self.publishing.signer = signer

    def group_by(self, groups: Groups) -> None:
        """Other groups, for what is asked from now on; a batch keeps the members that it has."""
        self.rules = replace(self.rules, groups=groups)

    def step(self, signals: Sequence[Signal] = ()) -> Round | None:
        """Handle what came and what is due, in one transaction (docs/decisions.md, 18).

        ``signals``: all that came since the last step, in their order. Deliveries are acknowledged
        here, once what follows from them is saved. None: nothing can be saved now. Raises nothing
        of the database's: what could not be saved waits here, unacknowledged, and is tried again
        after ``SAVE_AGAIN_S``; meanwhile queries are answered, and everybody else is told so
        (``degraded``).
        """
        subscribed = self._receive(signals)
        self._look_at_offers(subscribed=subscribed)
        if subscribed:
            self._publish_all(self.records.values())
            for command in self._owed.values():
                record = self.records[command.user]
                self._perform_effects(command.user, replies.of(record, command))
            self._news.connected()
        now = self._clock.monotonic()
        self._look_at_lab_time(now)
        if self._save_again_at is not None and now < self._save_again_at:
            self._answer_queries()
            self.publishing.flush()
            return None
        if self._save_again_at is None and self._ticking.ticks(now) >= self._write_at:
            self.write_down()
        decided: RoundDecision | None = None
        commit_s: float | None = None
        try:
            if self._save_again_at is not None:
                # A failed commit may have been stored after all: what counts is what the file says.
                self._publish_all(self._load())
            decided = self._decide(now)
            if decided.changes:
                began = self._clock.monotonic()
                self.store.save(decided.changes, decided.moment.ticks)
                commit_s = self._clock.monotonic() - began
        except StoreError as error:
            log.error("cannot use the database: %s; trying again", error)
            # From now: a database that others hold may have kept us for seconds.
            self._save_again_at = self._clock.monotonic() + SAVE_AGAIN_S
            self._epoch_not_stored |= decided is not None and decided.changes.epoch is not None
            self.counts["failed_saves"] += 1
            self.failure = str(error) or type(error).__name__
            self._answer_queries()
            self._degraded.report(self._waiting, self.records, error, now)
            self.publishing.flush()
            return None
        if self._save_again_at is not None:
            self._save_again_at, self.failure = None, ""
            self._degraded.healed()
        self._adopt(decided, now)
        self._perform(decided)
        for delivery in self._waiting:
            self._publisher.acknowledge(delivery)
        messages, self._waiting = len(self._waiting), []
        self._resend(now)
        self._say_what_waits()
        self.publishing.flush()
        return Round(decided, messages, commit_s)

    def write_down(self) -> None:
        """Save what is left of the deadlines, so that another life counts on from there.

        No record moves by it; where it fails, that life only gives more time.
        """
        ticks = self._ticking.ticks(self._clock.monotonic())
        self._write_at = next_writing(ticks)
        try:
            heard = self.boards.to_store()
            waits = {key: batch.wait_until for key, batch in self.batches.items()}
            left = {key: until - ticks for key, until in waits.items() if until is not None}
            records = self.records.values()
            self.store.write_down(records, ticks, self.rules.restored_at, heard, left)
            self.boards.note_stored(heard)
        except StoreError as error:
            log.error("cannot write down what is left of the deadlines: %s", error)

    def _receive(self, signals: Sequence[Signal]) -> bool:
        """Take what came; whether a connection was subscribed. Deliveries go to those that wait."""
        subscribed = False
        self.boards.note(signals)
        for signal in signals:
            self.publishing.note_connection(signal)
            if self.analysts.note(signal):
                assert isinstance(signal, Delivery)
                self._publisher.acknowledge(signal)
            elif isinstance(signal, Delivery):
                self._hold(signal)
            elif isinstance(signal, Connected):
                # A new session's packet identifiers say nothing about the last one's.
                self._forget_packets |= not signal.session_present
                self._waiting = still_ours(self._waiting, signal.session_present)
            elif isinstance(signal, Subscribed):
                self._ticking.connect(self._clock.monotonic())
                subscribed = self._look_at_all = True
            elif isinstance(signal, Disconnected):
                self._ticking.disconnect(self._clock.monotonic())
                self._replied.clear()
                self._batches_replied.clear()
                self._spread.clear()
                self._news.disconnected()
        return subscribed

    def _look_at_offers(self, *, subscribed: bool) -> None:
        """Who waits for an analyser that nobody offers now, or that somebody does again.

        At a connect, which says all statuses, of all of them.
        """
        for name in self.analysts.look():
            self._publisher.publish(self.topics.analyst(name), encode_offer(GONE), retain=True)
        look = subscribed or self._look_at_waiting or self.analysts.offered != self.rules.offered
        if not look or not self._ticking.runs:
            return
        self._look_at_waiting = False
        self.rules = replace(self.rules, offered=self.analysts.offered)
        now = self._clock.monotonic()
        for record in list(self.records.values()):
            after = looked_at(record, self._ticking.ticks(now), self.rules)
            if after is not record:
                self.records[record.user] = after
                self._schedule(after, now)
                if not subscribed and not self._awaits_restore(record.user):
                    self._perform_effects(record.user, (PublishStatus(after),))

    def _hold(self, signal: Delivery) -> None:
        """While nothing can be saved, which may last for days, no more than is of use."""
        if self._save_again_at is not None:
            # Some brokers send again, while connected, what is not acknowledged for long.
            if signal.dup and any(replace(one, dup=True) == signal for one in self._waiting):
                return
            if self._may_tell_an_epoch(signal):  # the newest of each is enough
                self._waiting = [one for one in self._waiting if one.topic != signal.topic]
        self._waiting.append(signal)

    def _answer_queries(self) -> None:
        """What changes nothing needs no disk.

        But whoever names an id may ask what became of the message before: no overtaking there.
        """
        decided, others = self._begin_decision(self._clock.monotonic()), list[Delivery]()
        waiting = set[str]()  # the users of whom something waits
        for one in self._waiting:
            message = message_of(one)
            user, _ = self.topics.split(one.topic)
            # A message of a group that waits is one of every user.
            behind = user in waiting or any(name.startswith(SIGN) for name in waiting)
            free = not behind or named_id(message, self.topics) is None
            free = free and not self._awaits_restore(user) and not user.startswith(SIGN)
            if is_query(message, self.topics) and free and decided.try_to_decide(message):
                self._publisher.acknowledge(one)
            else:
                others.append(one)
                waiting.add(user)
        self._waiting = self._degraded.room(others)
        self.counts["dropped"] += len(others) - len(self._waiting)
        self._perform(decided)

    def _moment(self, now: float) -> Moment:
        lab = self.lab_time
        return Moment(self._clock.wall(), self._ticking.ticks(now), lab_us=lab.us(), life=lab.life)

    def _begin_decision(self, now: float) -> RoundDecision:
        sure, limit = self.publishing.outbox.capacity.sure, self.publishing.outbox.limit
        if (sure, limit) != (self.rules.max_message, self.rules.sendable):
            self.rules = replace(self.rules, max_message=sure, sendable=limit)
        known = (self.records, self._packets, self.store)
        about = (self.rules, self.topics, self._nonce)
        groups = (self.boards, self.batches, self.newest_keys)
        asked = (self._resends.heard, self.publishing.may_have_files)
        baseline = Baseline(*known, *about, *groups, self.epoch, *asked)
        return RoundDecision(baseline, self._moment(now))

    def _decide(self, now: float) -> RoundDecision:
        decided = self._begin_decision(now)
        if self._forget_packets:
            decided.begin_session()
        if self._users_of_old_epoch:
            # Before any message: what was open in the older database is not to be acted upon.
            decided.enter_epoch(self.epoch, sorted(self._users_of_old_epoch))
        # Who saw more than the database knows is heard before anything is decided on it.
        others: list[Delivery] = []
        for one in self._waiting:
            if self._may_tell_an_epoch(one):
                decided.decide_message(message_of(one))
            else:
                others.append(one)
        decided.begin_epoch()
        if self._may_be_turns:
            decided.take_turns()
        for one in others:
            decided.decide_message(message_of(one))
        if self._replied and self.publishing.all_acknowledged:
            for (user, id), sent_on in self._replied.items():
                # What was sent on an earlier connection may be lost: it is sent anew at a connect.
                if sent_on == self._publisher.connection:
                    decided.replies_arrived(user, id)
        if self._batches_replied and self.publishing.all_acknowledged:
            for key, sent_on in self._batches_replied.items():
                if sent_on == self._publisher.connection:
                    decided.batch_replies_arrived(key)
        for user, id in self._to_analyse:
            decided.analyse_outcome(user, id)
        nearest = self._deadlines.nearest()
        # While they are held back after a connect it is not 0, however long ago they passed.
        if nearest is not None and self._ticking.wait(now, nearest) == 0.0:
            for user in self._deadlines.passed(decided.moment.ticks):
                decided.end_by_deadline(user)
        if self._ticking.runs:  # whoever is heard later cannot collect it either: nothing to settle
            for user in self._expiries.passed(decided.moment.wall):
                decided.end_by_deadline(user)
            for user in self._starts.passed(decided.moment.lab_us / MICRO):
                decided.end_by_deadline(user)
        if self._ticking.runs:  # who is away hears of no instant
            decided.begin_together(self._may_begin_together(decided))
        decided.memory.shorten()
        return decided

    def _may_begin_together(self, decided: RoundDecision) -> list[str]:
        """The batches, by key, of which something that their start waits for may have changed."""
        keys = dict.fromkeys(self._barriers.passed(decided.moment.ticks))
        keys |= dict.fromkeys(decided.changes.batches)
        for user, _ in decided.heartbeats:
            record = self.records.get(user)
            if record is not None and record.current is not None and record.current.batch:
                keys[record.current.batch] = None
        if self._look_at_all:
            keys |= dict.fromkeys(self.batches)
        return list(keys)

    def _awaits_restore(self, user: str) -> bool:
        """Whether what is known of a user is of an older epoch, whose end is not yet stored."""
        return self._epoch_not_stored or user in self._users_of_old_epoch

    def _may_tell_an_epoch(self, delivery: Delivery) -> bool:
        _, kind = self.topics.split(delivery.topic)
        return kind in (TopicKind.STATUS, TopicKind.HEARTBEAT)

    def _adopt(self, decided: RoundDecision, now: float) -> None:
        """What was saved is what is known here."""
        self._to_analyse, self._users_of_old_epoch, self._epoch_not_stored = [], set(), False
        self._may_be_turns = self._look_at_all = False
        self.counts += decided.counts
        if decided.changes.epoch is not None:
            self.epoch, _ = decided.changes.epoch
            self.rules = replace(self.rules, restored_at=decided.moment.ticks)
        if decided.changes.forget_packets:
            self._packets.clear()
            self._forget_packets = False
        for mid, handled in decided.changes.packets.items():
            self._packets.pop(mid, None)  # the last one that came stands last
            if handled is not None:
                self._packets[mid] = handled
        self.records |= decided.changes.records
        for key, command in decided.changes.commands.items():
            if command.replies and command.report:
                self._owed[key] = command
            else:
                self._owed.pop(key, None)
                self._replied.pop(key, None)
        for batch in decided.changes.batches.values():
            if batch.group and batch.key in decided.changes.new_batches:
                older = self.newest_keys.get(batch.group, "")
                self.newest_keys[batch.group] = batch.key
                if older in self.batches:
                    self._keep(self.batches[older])
            self._keep(batch)
        for record in decided.changes.records.values():
            self._schedule(record, now)

    def _keep(self, batch: Batch) -> None:
        """In memory are the batches that are open, owed an answer, or their group's newest."""
        self.batches[batch.key] = batch
        owed = bool(batch.replies)
        if not owed:
            self._batches_replied.pop(batch.key, None)
        self._barriers.set(batch.key, batch.wait_until if batch.ended is None else None)
        newest = self.newest_keys.get(batch.group) == batch.key
        if batch.ended is not None and not owed and not newest:
            del self.batches[batch.key]

    def _perform(self, decided: RoundDecision) -> None:
        effects = list(published_once(decided.in_order()))
        is_open = False
        for _, effect in effects:
            if isinstance(effect, PublishBatch | AnswerBatch | ReplyBatch):
                self._news.tell(effect)
                batch = self.batches.get(effect.key)
                is_open |= batch is not None and batch.ended is None
        if is_open and not decided.started:
            self._say_of_groups()  # before what its boards are told; its end comes behind that
        for user, effect in effects:
            if user in decided.started:
                self._spread.release(user)
                if isinstance(effect, PublishStatus):
                    self.publishing.perform(user, effect)
                    continue
            self._perform_effects(user, (effect,))
        appeared = {
            user
            for user, heartbeat in decided.heartbeats
            if self._resends.note_presence(user, heartbeat)
        }
        for user in sorted(appeared):
            record = self.records.get(user)
            if record is not None:
                self._perform_effects(user, effects_on_appearance(record))

    def _perform_effects(self, user: str, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Analyse):
                self._to_analyse.append((user, effect.command.id))
                continue
            if isinstance(effect, PublishBatch | AnswerBatch | ReplyBatch):
                continue  # told before
            if self._is_for_nobody(user, effect) or self._spread.holds(user, effect):
                continue
            if isinstance(effect, PublishReplies) and (user, effect.record.id) in self._owed:
                self._replied[user, effect.record.id] = self._publisher.connection
            self.publishing.perform(user, effect)

    def _is_for_nobody(self, user: str, effect: Effect) -> bool:
        """A batch's envelope, and its board is away: it is sent when the board appears."""
        if not isinstance(effect, PublishEnvelope):
            return False
        command = effect.record.current
        return command is not None and is_shared(command.batch) and self._resends.is_away(user)

    def _say_what_waits(self) -> None:
        """What is said of groups, as far as it is due; of boards, as far as there is room."""
        while (said := self._spread.next(self.records)) is not None:
            user, effects = said
            for effect in effects:
                if not self._is_for_nobody(user, effect):
                    self.publishing.perform(user, effect)
        self._say_of_groups()

    def _say_of_groups(self) -> None:
        for key in self._news.flush():
            batch = self.batches.get(key)
            # One asker too many of an open batch is told at once: its end is owed to the others.
            if batch is not None and batch.ended is not None and batch.replies:
                self._batches_replied[key] = self._publisher.connection

    def _publish_all(self, records: Iterable[Record]) -> None:
        """Each status and everything due: a broker may have forgotten the last second.

        What a restore has left open is not due: it is told when its end is stored.
        """
        for record in records:
            if not self._awaits_restore(record.user):
                self._perform_effects(record.user, effects_on_connect(record))

    def _schedule(self, record: Record, now: float) -> None:
        """Note the deadline, and the next repetition of an envelope."""
        self._deadlines.set(record.user, record.due_ticks)
        self._expiries.set(record.user, record.expires_at)
        command = record.current
        if command is not None and command.request.start is not None and command.report is None:
            self._with_start.add(record.user)
        else:
            self._with_start.discard(record.user)
        moment = self._moment(now)
        left = latest_start_s(record, moment)
        self._starts.set(record.user, None if left is None else moment.lab_us / MICRO + left)
        self._resends.schedule(record, now)

    def _look_at_lab_time(self, now: float) -> None:
        """In another life what waits for an instant of this one ends at once."""
        self.lab_time.look()
        if self._life != self.lab_time.life:
            self._life = self.lab_time.life
            for user in sorted(self._with_start):
                self._schedule(self.records[user], now)

    def _start_is_pending(self) -> bool:
        """Whether anybody waits for an instant: then lab time goes on, whatever its clock says."""
        moment = self._moment(self._clock.monotonic())
        return any(starts.is_pending(self.records[user], moment) for user in self._with_start)

    def _resend(self, now: float) -> None:
        """Send again the envelopes that nobody collected."""
        for user in self._resends.overdue_users(now):
            record = self.records[user]
            topic = self.topics.of(user, TopicKind.ENVELOPE)
            if self._resends.plan_next(record, now) and not self._publisher.under_way(topic):
                self._perform_effects(user, (PublishEnvelope(record),))
                self.counts["resent"] += 1
