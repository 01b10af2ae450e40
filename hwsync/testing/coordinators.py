"""The coordinator of a pretended world: the real loop, on the real store.

The law: whatever it says, acknowledges or gives up is looked at here, at that moment, where the
checker could not see it later.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, Final

from hwsync.coordinator.clock_answers import ClockAnswers
from hwsync.coordinator.deliveries import message_of
from hwsync.coordinator.intake import MAX_ROUND
from hwsync.coordinator.loop import Coordinator
from hwsync.coordinator.service import CLIENT_ID, subscriptions
from hwsync.coordinator.startup_gate import StartupGate
from hwsync.coordinator.vitals import Vitals
from hwsync.notify import Notifier
from hwsync.protocol.errors import Code, DatabaseError, Refused, StoreError
from hwsync.protocol.groups import SIGN
from hwsync.protocol.jsons import loads
from hwsync.protocol.record import Command, Record, State, Verb
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.analyst import read_offer
from hwsync.protocol.wire.messages import named_id
from hwsync.store.api import Changes
from hwsync.store.pruning import Pruning
from hwsync.store.store import Store
from hwsync.testing.context import Context
from hwsync.testing.history import LifeBegan, Offered, Said, SaidOfBatch, Served, TurnedAway
from hwsync.testing.port import ADDRESS, Port
from hwsync.testing.processes import Process
from hwsync.testing.questions import WatchedHistories
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed

TURN_S: Final = 0.5  # in which whoever can begin does


class WatchedStore(Store):
    """The real store, with injection points, a disk that may be full, and a memory of commits."""

    def __init__(self, process: CoordinatorProcess) -> None:
        self.process = process
        self.committed: dict[str, tuple[int, int]] = {}
        super().__init__(process.path)

    def save(self, changes: Changes, ticks: float) -> None:
        process = self.process
        process.point("before a commit")
        process.needs_the_disk()
        for record, _, message in changes.log:
            if message is not None:
                process.decides(record)
        for row in changes.refused:
            process.turns_away(row.user, row.message.topic, row.refusal)
        super().save(changes, ticks)
        for user, record in changes.records.items():
            self.committed[user] = (record.epoch, record.seq)
        for record, entry, message in changes.log:
            if message is not None:
                process.handled.add((message.topic, message.payload))
            elif (entry.verb, entry.before) == (Verb.LEFT_OUT, State.COLLECTED) and record.current:
                process.leaves_out(record.user, record.current)
            elif (entry.verb, entry.before) == (Verb.EXPIRE, State.COLLECTED) and record.current:
                process.given_up(record.user, record.current)
        for row in changes.refused:
            process.handled.add((row.message.topic, row.message.payload))
        process.point("after a commit")
        if any((one.waiting or one.begun) and one.ok + one.bad for one in changes.batches.values()):
            process.point("as a turn is due")
        if process.lies:
            process.lies = process.served = False
            process.context.fault("a commit that fails though it is stored", process.name)
            messages = [one[2] for one in changes.log] + [one.message for one in changes.refused]
            process.context.copied |= {(one.topic, one.payload) for one in messages if one}
            raise StoreError(os.strerror(errno.EIO))

    def write_down(
        self,
        records: Iterable[Record],
        ticks: float,
        restored_at: float | None = None,
        heard: Mapping[str, float] | None = None,
        waits: Mapping[str, float] | None = None,
    ) -> None:
        process = self.process
        process.point("before the time is written down")
        process.needs_the_disk()
        super().write_down(records, ticks, restored_at, heard, waits)
        process.point("after the time is written down")


class CoordinatorProcess(Process):
    """The real loop on a real database."""

    url = ADDRESS

    points = (
        *("before a commit", "after a commit", "before a publish", "after a publish"),
        *("before an acknowledgement", "after an acknowledgement"),
        *("before the time is written down", "after the time is written down"),
    )

    def __init__(self, context: Context, *, hold_deadlines_s: float, rules: Rules) -> None:
        super().__init__(context, "coordinator")
        self.path = context.folder / "hwsync.db"
        self.topics = Topics()
        self.handled: set[tuple[str, bytes]] = set()  # what was stored of messages, accepted or not
        self.said_last: dict[str, bytes] = {}  # by user: the last status that is retained
        self._unsettled: set[tuple[str, str, str]] = set()  # what was turned away, until it is told
        self.lies = False  # the next commit raises though it is stored
        self.served = False  # in this life nothing kept it from counting its time
        self._connected = self._life_began = 0.0
        self._connected_at: float | None = None
        self._last_beats: dict[str, Mapping[str, Any]] = {}  # by user
        self._free: dict[str, float] = {}  # by batch: since when somebody could begin
        self._hold_deadlines_s, self.rules = hold_deadlines_s, rules
        self.store: WatchedStore | None = None
        self.coordinator: Coordinator | None = None
        self.gate: StartupGate | None = None
        self.answers: ClockAnswers | None = None
        self.histories: WatchedHistories | None = None
        self._readings = Random("histories")  # the worlds without stay as they are
        self.says_health = False  # somebody waits until it says how it is
        self.vitals: Vitals | None = None

    def needs_the_disk(self) -> None:
        """Raises ``StoreError`` while it is full."""
        if self.disk_full:
            self.served = False
            self.context.fault("full disk, coordinator", self.name)
            raise StoreError(os.strerror(errno.ENOSPC))

    def pause(self, seconds: float) -> None:
        self.served = False
        super().pause(seconds)

    def _count(self, signals: Iterable[Signal]) -> None:
        """The time of connection, as the loop should count it."""
        for signal in signals:
            if isinstance(signal, Subscribed | Disconnected):
                if self._connected_at is not None:
                    self._connected += self.context.now - self._connected_at
                self._connected_at = None
            if isinstance(signal, Subscribed):
                self._connected_at = self.context.now

    def _listen(self, signals: Iterable[Signal]) -> None:
        """The last that came of each board's presence."""
        for signal in signals:
            if isinstance(signal, Connected):
                self.context.see(Offered(self.context.now, ""))  # what the broker keeps follows
            if isinstance(signal, Delivery) and signal.payload:
                user, kind = self.topics.split(signal.topic)
                if kind is TopicKind.ANALYSTS:
                    self._hear_offer(signal)
                if kind is TopicKind.HEARTBEAT:
                    self._last_beats[user] = loads(signal.payload.decode())

    def _hear_offer(self, delivery: Delivery) -> None:
        """What an analyst says of itself, where it can be read."""
        with contextlib.suppress(Refused):
            names = tuple(sorted(read_offer(delivery.payload).analysers))
            self.context.see(
                Offered(self.context.now, str(self.topics.analyst_of(delivery.topic)), names)
            )

    def _look_at_turns(self, coordinator: Coordinator) -> None:
        """Nobody waits in a batch that has a place for him, whose record is at rest."""
        now, records = self.context.now, coordinator.records
        for batch in coordinator.batches.values():
            free = not coordinator.failure and batch.ended is None and batch.has_place
            rests = (user for user in batch.waiting if records[user].state is State.REST)
            user = next(rests, None) if free and not batch.is_aborted else None
            if user is None:
                self._free.pop(batch.key, None)
            elif now - self._free.setdefault(batch.key, now) > TURN_S:
                self.context.violate("ends", user, batch.id, "its turn was not looked at")

    def begin(self) -> None:
        context = self.context
        self.served, self._connected, self._connected_at = not self.disk_full, 0.0, None
        self._life_began = context.now
        self._last_beats, self._free = {}, {}
        context.see(Offered(context.now, ""))
        try:
            self.store = WatchedStore(self)
        except DatabaseError as error:
            context.violate("process", "coordinator", "", f"the database cannot be opened: {error}")
            self.kill(restart=False)
            return
        clean = not context.habits.remembers
        self.port = Port(
            context.schedule,
            context.broker,
            self.cable,
            context.dice,
            CLIENT_ID,
            on_signal=self.put,
            subscriptions=subscriptions(self.topics),
            clean_session=clean,
            prefer_v5=True,
            raw_us=self.raw_us,
        )
        self.coordinator = Coordinator(
            self.store,
            self,
            self,
            self.rules,
            hold_deadlines_s=self._hold_deadlines_s,
            dice=Random(context.dice.random()),
            nonce=context.nonce,
        )
        self.answers = ClockAnswers(self, self.coordinator, self)
        self.histories = WatchedHistories(self, self.coordinator, self.path, self._readings)
        self._life = ""
        self.gate = StartupGate(self, self.topics, self, context.nonce())
        if self.says_health:
            self.vitals = Vitals(self.coordinator, self, self, Notifier({}))
        self.store.committed = {
            user: (record.epoch, record.seq) for user, record in self.coordinator.records.items()
        }
        self.port.start()

    def work(self) -> float | None:
        assert self.coordinator is not None
        assert self.gate is not None
        lab = self.coordinator.lab_time
        self.context.lives[lab.life] = lab.us() - self.raw_us()
        self.context.life = lab.life
        signals: list[Signal] = []
        while self.inbox and len(signals) < MAX_ROUND:
            signals.append(self.inbox.popleft())
        assert self.answers is not None
        assert self.histories is not None
        asked = self.histories.take(self.answers.take(signals))
        self.histories.say()
        passed = self.gate.admit(asked)
        self._count(passed)
        self._listen(passed)
        if self.vitals is not None:
            passed = self.vitals.take_questions(passed)
        done = self.coordinator.step(passed)
        if self.vitals is not None:
            self.vitals.report(passed, len(self.inbox), done)
        self._look_at_turns(self.coordinator)
        lab = self.coordinator.lab_time
        if self._life != lab.life:
            self._life = lab.life
            self.context.see(LifeBegan(self.context.now, lab.life, lab.us()))
        waits = [self.coordinator.wait(), self.gate.wait()]
        waits += [self.vitals.wait()] if self.vitals is not None else []
        return min((wait for wait in waits if wait is not None), default=None)

    def prune(self, most: int) -> None:
        """Drop the texts and files of so many that have ended, as after years."""
        if self.alive and self.store is not None and not self.disk_full:
            with contextlib.suppress(StoreError):
                dropped = Pruning(self.store.database).prune(None, most)
                self.context.note(self.name, "drops the texts of", dropped)

    def see_life(self) -> None:
        """How long this life could work."""
        if self.served and self._connected_at is not None:
            now = self.context.now
            last = now - self._connected_at
            self.context.see(Served(self._life_began, now, self._connected + last, last))

    def release(self) -> None:
        self.see_life()
        if self.port is not None:
            self.port.end()
        if self.histories is not None:
            self.histories.close()
        if self.store is not None:
            self.store.close()
        self.store = self.coordinator = self.port = self.histories = self.vitals = None

    # -- the loop's publisher -----------------------------------------------------------------

    @property
    def connection(self) -> int:
        return self.port.connection if self.port else 0

    @property
    def backlog(self) -> int:
        return self.port.backlog if self.port else 0

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        self.point("before a publish")
        assert self.port is not None
        user, kind = self.topics.split(topic)
        if kind is TopicKind.STATUS and retain:
            self.said_last[user] = payload
        if kind in (TopicKind.STATUS, TopicKind.RESULT) and payload:  # an empty one clears
            self._said(user, kind, loads(payload.decode()), retain)
        else:
            self.context.note(self.name, f"publishes {topic}", payload)
        sent = self.port.publish(topic, payload, qos=qos, retain=retain, correlation=correlation)
        self.point("after a publish")
        return sent

    def write(self) -> None:
        """What is published is on its way at once."""

    def acknowledge(self, delivery: Delivery) -> None:
        self.point("before an acknowledgement")
        assert self.port is not None
        self._acknowledges(delivery)
        self.port.acknowledge(delivery)
        self.point("after an acknowledgement")

    def _said(self, user: str, kind: TopicKind, fields: dict[str, Any], kept: bool) -> None:
        context = self.context
        if user.startswith(SIGN):
            context.see(SaidOfBatch(context.now, user.removeprefix(SIGN), fields, kept))
            context.note(self.name, f"says {kind} of {user}", fields)
            return
        context.see(Said(context.now, user, str(kind), fields, kept))
        context.note(self.name, f"says {kind} of {user}", fields)
        if kind is not TopicKind.STATUS:
            return
        self._unsettled -= {(user, id, journal) for id, journal in fields["settled"]}
        order = (fields["epoch"], fields["seq"])
        assert self.store is not None
        if order > self.store.committed.get(user, (order[0], 0)):
            context.violate("saved", user, fields["id"], f"{order} was said before it was stored")

    def decides(self, record: Record) -> None:
        """Nothing that names no new epoch, while the broker keeps a newer status than ours."""
        user = record.user
        kept = self.context.broker.retained.get(self.topics.of(user, TopicKind.STATUS))
        known = self.store.committed.get(user, (0, 0)) if self.store else (0, 0)
        if kept is None or record.epoch != known[0] or not self.context.habits.remembers:
            return
        fields = loads(kept.payload.decode())
        if (fields["epoch"], fields["seq"]) > known:
            text = f"decided at {known}, while the broker keeps {fields['epoch'], fields['seq']}"
            self.context.violate("epoch", user, record.id, text)

    def turns_away(self, user: str, topic: str, refusal: Refused) -> None:
        """A result may be, of a command that is not known: of a known one it is always stored."""
        _, kind = self.topics.split(topic)
        if (kind, refusal.code) != (TopicKind.RESPONSE, Code.NOT_ALLOWED) or refusal.id is None:
            return
        assert self.store is not None
        command = self.store.command(user, refusal.id)
        if (
            command is not None
            and not command.journals_answered
            and command.journal == refusal.journal
        ):
            text = f"the result of {refusal.journal} was turned away"
            self.context.violate("kept", user, refusal.id, text)
        self.context.see(TurnedAway(self.context.now, user, refusal.id))
        self._unsettled.add((user, refusal.id, str(refusal.journal)))

    def leaves_out(self, user: str, command: Command) -> None:
        """Nobody, when others begin, whose device holds the grant and was heard to be there."""
        beat, report = self._last_beats.get(user), command.report
        others = report is not None and "when the others were" in report.reason
        if beat is None or not others or Verb.CANCEL in command.accepted:
            return
        if beat["online"] and (beat["journal"], beat["boot"]) == (command.journal, command.boot):
            self.context.violate("start", user, command.id, "left out; it was ready, and there")

    def given_up(self, user: str, command: Command) -> None:
        """Nobody is given up whose result waits at the broker since before the connection."""
        line = self.port.line if self.port else None
        if line is None or line.session is None or line.opened_at is None:
            return
        if self.cable.trouble_at >= line.opened_at or self.cable.latency > 0.2:
            return
        for packet in line.session.waiting:
            user_of, kind = self.topics.split(packet.topic)
            if (user_of, kind) == (user, TopicKind.RESPONSE) and packet.at < line.opened_at:
                said = loads(packet.payload.decode())
                if (said.get("id"), said.get("journal")) == (command.id, command.journal):
                    self.context.violate("settle", user, command.id, "lost; its result waited")

    def _acknowledges(self, delivery: Delivery) -> None:
        """What names no id is acknowledged only when it is stored: nobody repeats it."""
        user, kind = self.topics.split(delivery.topic)
        if (
            kind not in (TopicKind.REQUEST, TopicKind.RESPONSE, TopicKind.ANALYSIS)
            or not delivery.payload
        ):
            return
        # While the broker is not trusted to take everything, a status waits for its turn.
        at_once = self.coordinator is None or self.coordinator.publishing.outbox.wait() is None
        for of, id, journal in self._unsettled if kind is TopicKind.RESPONSE and at_once else ():
            if of == user and f'"{id}"'.encode() in delivery.payload:
                text = f"the result of {journal} was refused, and no status settles it"
                self.context.violate("kept", user, id, text)
        key = (delivery.topic, delivery.payload)
        if named_id(message_of(delivery), self.topics) is None and key not in self.handled:
            self.context.violate(
                "acknowledged", user, "", f"{kind} {delivery.payload[:60]!r} was not stored"
            )
