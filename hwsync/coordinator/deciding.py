"""One round of messages, decided: what will be saved, and what is done once it is.

The law: nothing here is saved, published or acknowledged; one that is thrown away has changed
nothing. What follows from a message is decided in ``protocol.core``: here it is looked up, counted
and put together. One message that makes hwsync fail is recorded as refused, and the others are
decided.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hwsync.coordinator.boards import Boards
from hwsync.protocol import core, limits, reply_topics
from hwsync.protocol.batch import Batch
from hwsync.protocol.core import Handled, Memory
from hwsync.protocol.draft import Draft
from hwsync.protocol.effects import (
    AnswerBatch,
    BatchDecision,
    Decision,
    Effect,
    PublishError,
    PublishResult,
    PublishStatus,
    RepeatError,
    ReplyError,
    changed_by,
    with_files,
)
from hwsync.protocol.epochs import following
from hwsync.protocol.errors import Code, DatabaseError, Refused, StoreError
from hwsync.protocol.events import (
    CancelAsked,
    Event,
    HeartbeatReceived,
    Ignored,
    Message,
    Queried,
    Requested,
    ResetAsked,
    Returned,
    StatusReceived,
)
from hwsync.protocol.groups import ALL, SIGN
from hwsync.protocol.record import Command, Moment, Record, State, replace
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import Topics
from hwsync.protocol.wire.error import encode_error
from hwsync.protocol.wire.messages import read
from hwsync.store.api import Changes, Commands, RefusedRow

log = logging.getLogger("hwsync.coordinator")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a round starts from: everything that is saved (``core.Known``), and the rules.

    ``packets``: what each packet identifier carried last. ``nonce``: made anew for each message
    without an id, which gives its command one. ``batches``: by key, those that are open, or their
    group's newest, the oldest first; ``newest``: the key of each group's newest. ``boards``: who
    was heard.
    """

    records: Mapping[str, Record]
    packets: Mapping[int, Handled]
    commands: Commands
    rules: Rules
    topics: Topics
    nonce: Callable[[], str]
    boards: Boards
    batches: Mapping[str, Batch]
    newest_keys: Mapping[str, str]
    epoch: int = 0
    presence: Callable[[str], HeartbeatReceived | None] = lambda user: None
    may_have_files: Callable[[str], bool] = lambda user: True  # whether none were sent just now

    def record(self, user: str) -> Record | None:
        """The user's record, None where nobody has used that name."""
        return self.records.get(user)

    def command(self, user: str, id: str) -> Command | None:
        """The command with that id of that user. Raises ``StoreError``."""
        return self.commands.command(user, id)

    def count(self) -> int:
        """How many users have a record."""
        return len(self.records)

    def device(self, user: str) -> HeartbeatReceived | None:
        """What was heard last of the user's device in this life; None: nothing was."""
        return self.presence(user)

    def batch(self, key: str) -> Batch | None:
        """The batch with that key. Raises ``StoreError``."""
        return self.batches.get(key) or self.commands.batch(key, self.records)

    def newest(self, group: str) -> Batch | None:
        """The batch that was asked of a group last. Raises ``StoreError``."""
        key = self.newest_keys.get(group)
        return None if key is None else self.batch(key)

    def open_batches(self) -> Iterable[Batch]:
        """Those that have not ended, the oldest first."""
        return (one for one in self.batches.values() if one.ended is None)


@dataclass(slots=True)
class RoundDecision:
    """One round while it is decided; then ``changes`` is saved, and ``effects`` are performed.

    ``begin_session`` and the statuses and heartbeats come first, then ``begin_epoch``, and only
    then other messages: nothing is to be decided on a database that is too old. ``effects``: by
    user, in the order of the decisions; ``counts``: for the health.
    """

    baseline: Baseline
    moment: Moment
    changes: Changes = field(default_factory=Changes)
    effects: list[tuple[str, Effect]] = field(default_factory=list)
    heartbeats: list[tuple[str, HeartbeatReceived]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    started: set[str] = field(default_factory=set)  # users for whom an instant was fixed
    gave_files: set[str] = field(default_factory=set)  # users of whom files were asked for
    files_bytes: int = 0  # of the files that the round's answers have
    newer: int | None = None  # the highest epoch of which more was said than the database knows
    beyond: dict[str, tuple[int, int]] = field(default_factory=dict)  # by user: not believed
    draft: Draft = field(init=False)
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        # The round saves what these two have changed.
        saved = self.changes
        self.draft = Draft(
            *(self.baseline, saved.records, saved.commands),
            *(saved.batches, saved.new_batches, saved.turned_away),
        )
        self.memory = Memory(self.baseline.packets, self.changes.packets)

    def begin_session(self) -> None:
        """The broker has a new session: its packet identifiers say nothing about the last one's."""
        self.changes.forget_packets = self.memory.new_session = True

    def decide_message(self, message: Message) -> None:
        """Decide what a message means. Raises ``StoreError`` where the database cannot be read."""
        user, _ = self.baseline.topics.split(message.topic)
        try:
            event = read(message, self.baseline.topics)
        except Refused as refusal:
            if not self._answer_again(user, message, refusal.id):
                self._refuse_unreadable(user, refusal, message)
            return
        except Exception:
            self._refuse_failing(user, message)
            return
        if isinstance(event, Ignored | HeartbeatReceived | StatusReceived):
            self.counts["ignored"] += isinstance(event, Ignored)
            if isinstance(event, HeartbeatReceived):
                self.heartbeats.append((user, event))
                self.draft.hear(user, event)
                self._compare(user, event.seen, of_device=True)
            if isinstance(event, StatusReceived):
                self._compare(user, event.order, of_device=False)
            self.memory.note(message, None, named=True)
        elif not self._answer_again(user, message, event.id):
            self._decide(user, event, message)

    def try_to_decide(self, message: Message) -> bool:
        """The same for a query; False where the database cannot be read."""
        try:
            self.decide_message(message)
        except StoreError:
            return False
        return True

    def _compare(self, user: str, order: tuple[int, int] | None, *, of_device: bool) -> None:
        """Note the epoch that a status or heartbeat reports, where it is newer than the record's.

        Then an older database was put back. ``order``: (epoch, seq).
        """
        sighting = core.compare(user, order, self.draft, of_device=of_device)
        self.effects += ((user, effect) for effect in sighting.effects)
        if sighting.forged is not None:
            self.counts["ignored"] += 1
            self.beyond[user] = sighting.forged
        if sighting.newer is not None:
            self.newer = max(self.newer or 0, sighting.newer)

    def begin_epoch(self) -> None:
        """A new epoch, where the database was found to be old.

        What is decided from here on is of that epoch, and what was open is lost.
        """
        if self.newer is None:
            return
        epoch = following(max(self.newer, self.baseline.epoch), self.moment.wall)
        self.changes.epoch = (epoch, self.moment.wall)
        rules = replace(self.baseline.rules, restored_at=self.moment.ticks)
        self.draft.base = self.baseline = replace(self.baseline, epoch=epoch, rules=rules)
        self.enter_epoch(epoch, sorted(self.baseline.records.keys() | self.changes.records.keys()))

    def enter_epoch(self, epoch: int, users: Iterable[str]) -> None:
        """These records come into an epoch: what was open is lost, and never sent again."""
        for decision in core.restore(users, epoch, self.moment, self.draft, self.baseline.rules):
            self._add(decision, None)
            if not isinstance(decision, BatchDecision) and decision.command is None:
                self._count(decision)  # a record's own, not one of its queue

    def replies_arrived(self, user: str, id: str) -> None:
        """The replies of a command have arrived: they are owed no more."""
        command = self.draft.command(user, id)
        if command is not None and command.replies:
            command = replace(command, replies=())
            self.changes.commands[user, id] = command
            record = self.draft.record_of(user)
            if record.id == id:
                self.changes.records[user] = replace(record, current=command)

    def batch_replies_arrived(self, key: str) -> None:
        """The replies of a batch that has ended have arrived: they are owed no more."""
        batch = self.draft.batch(key)
        if batch is not None and batch.ended is not None and batch.replies:
            self.changes.batches[key] = replace(batch, replies=())

    def take_turns(self) -> None:
        """Whoever could have begun in a life before this one."""
        self._add_all(core.take_turns(self.draft, self.moment, self.baseline.rules))

    def begin_together(self, keys: Iterable[str]) -> None:
        """Fix the instant of batches whose members are ready, or are waited for no longer."""
        begun = core.begin_together(keys, self.moment, self.draft, self.baseline.rules)
        self.started |= begun.users
        self._add_all(begun.decisions)

    def in_order(self) -> list[tuple[str, Effect]]:
        """The effects; first, of those that begin together, what they wait for: their statuses."""

        if not self.started:
            return self.effects

        def is_urgent(one: tuple[str, Effect]) -> bool:
            return one[0] in self.started and isinstance(one[1], PublishStatus)

        return sorted(self.effects, key=lambda one: not is_urgent(one))

    def end_by_deadline(self, user: str) -> None:
        """Decide what follows from the passing of a deadline."""
        self._add_all(core.expire(user, self.moment, self.draft, self.baseline.rules))

    def analyse_outcome(self, user: str, id: str) -> None:
        """Analyse the outcome of the record's own command, unless somebody did."""
        self._add_all(core.analyse(user, id, self.moment, self.draft, self.baseline.rules))

    def _add_all(self, decisions: Iterable[Decision | BatchDecision]) -> None:
        """What no message brought."""
        for decision in decisions:
            self._add(decision, None)
            self._count(decision)

    def _decide(self, user: str, event: Event, message: Message) -> None:
        moment = replace(self.moment, nonce="" if event.id else self.baseline.nonce())
        if isinstance(event, Queried) and event.files:
            if user in self.gave_files or not self.baseline.may_have_files(user):
                self._refuse(user, too_often(user, event.id), message)
                return
            if self.files_bytes >= limits.FILES_ROUND:
                self._refuse(user, too_many(event.id), message)
                return
            self.gave_files.add(user)
        try:
            if user.startswith(SIGN):
                decisions = self._decide_group(user.removeprefix(SIGN), event, moment)
            else:
                decisions = core.decide(user, event, moment, self.draft, self.baseline.rules)
        except DatabaseError:
            raise
        except Exception:
            self._refuse_failing(user, message)
            return
        error: bytes | None = None
        self._keep_contents(event, decisions)
        self._count_files(decisions)
        for decision in decisions:
            turn = not isinstance(decision, BatchDecision) and decision.turn
            error = self._add(decision, None if turn else message, user) or error
            self._count(decision)
        self.memory.note(message, error, named=event.id is not None)

    def _keep_contents(self, event: Event, decisions: Iterable[Decision | BatchDecision]) -> None:
        """The files that a message brought, as far as a command has them from now on."""
        left = dict(event.contents) if isinstance(event, Requested | Returned) else {}
        for decision in decisions:
            if not left:
                return
            for command in changed_by(decision):
                if command.pruned:
                    continue  # its bytes went with the years, and do not come back
                returned = command.report.files if command.report else ()
                for file in (*command.request.files, *returned):
                    if file.sha256 in left:
                        self.changes.contents[file.sha256] = left.pop(file.sha256)

    def _count_files(self, decisions: Iterable[Decision | BatchDecision]) -> None:
        """What the answers hold in memory until the broker has them."""
        for decision in decisions:
            for effect in decision.effects:
                if isinstance(effect, PublishResult) and effect.command.report is not None:
                    files = effect.command.report.files
                    self.files_bytes += sum(one.size for one in files if one.path in effect.files)

    def _decide_group(
        self, group: str, event: Event, moment: Moment
    ) -> list[Decision | BatchDecision]:
        """Who the members are at this moment, and what follows for all of them."""
        assert isinstance(event, Requested | CancelAsked | ResetAsked | Queried)
        known, rules, boards = self.draft, self.baseline.rules, self.baseline.boards
        members = self._members(group, event)
        if members is None:
            refusal = Refused(
                Code.NOT_ALLOWED,
                f"there is no group {SIGN}{group}",
                "the coordinator's file of groups (--groups) says which there are",
                id=event.id,
            )
            return [BatchDecision(None, (PublishError(refusal, State.REST),), refusal)]
        return core.decide_group(group, event, members, boards.is_offline, moment, known, rules)

    def _members(self, group: str, event: Event) -> tuple[str, ...] | None:
        """The boards of a group at this moment; None: there is no such group.

        A batch keeps those that it has, so that one can be stopped whose group was changed since.
        """
        records = {**self.baseline.records, **self.changes.records}
        boards = self.baseline.boards
        if group == ALL and isinstance(event, Requested):
            return tuple(sorted(boards.lately()))
        if group == ALL:
            busy = (one for one in records.values() if one.state or one.queue or one.batched)
            return tuple(one.user for one in busy)
        open = [one for one in self.draft.open_batches() if one.group == group]
        now = self.baseline.rules.groups.members(group, records.keys() | boards.known())
        if isinstance(event, Requested):
            return now
        if now is None and self.draft.newest(group) is None:
            return None
        return tuple(
            dict.fromkeys(user for some in (now or (), *(o.members for o in open)) for user in some)
        )

    def _count(self, decision: Decision | BatchDecision) -> None:
        if isinstance(decision, BatchDecision):
            self.counts["answered"] += decision.refused is None and AnswerBatch in map(
                type, decision.effects
            )
        elif decision.refused is None:
            kind = "accepted" if decision.entry else "answered"
            self.counts["late" if decision.entry and decision.entry.late else kind] += 1

    def _refuse_unreadable(self, user: str, refusal: Refused, message: Message) -> None:
        _, kind = self.baseline.topics.split(message.topic)
        rules = self.baseline.rules
        decision = core.unreadable(user, kind, refusal, self.moment, self.draft, rules)
        error = self._add(decision, message)
        self.memory.note(message, error, named=refusal.id is not None)

    def _refuse_failing(self, user: str, message: Message) -> None:
        log.exception("hwsync failed on a message on %s", message.topic, extra={"user": user})
        refusal = Refused(
            Code.BAD_PAYLOAD,
            "hwsync failed on this message; this is a bug of hwsync and stands in its log",
            "please report it with the payload",
        )
        self._refuse(user, refusal, message)

    def _refuse(self, user: str, refusal: Refused, message: Message) -> None:
        record = self.draft.record_of(user)
        decision = Decision(record, effects=(PublishError(refusal, record.state),), refused=refusal)
        error = self._add(decision, message)
        self.memory.note(message, error, named=refusal.id is not None)

    def _add(
        self, decision: Decision | BatchDecision, message: Message | None, group: str = ""
    ) -> bytes | None:
        """Put one decision into the round; the error that is published, where there is one.

        ``message``: whose it is; None: nobody's, it follows from what is known. ``group``: with its
        sign, whose message it was.
        """
        self.draft.take(decision)
        record = Record(group) if isinstance(decision, BatchDecision) else decision.record
        if not isinstance(decision, BatchDecision):
            if decision.entry is not None:
                entry = with_files(decision.entry, changed_by(decision))
                self.changes.log.append((record, entry, message))
            if decision.withdrawn is not None:
                self.changes.regrades.pop((record.user, decision.withdrawn), None)
                self.changes.withdrawn.add((record.user, decision.withdrawn))
            if decision.regrade is not None:
                id, regrade = decision.regrade
                self.changes.regrades.setdefault((record.user, id), []).append(regrade)
            self.counts["unlogged"] += decision.unlogged
        error: bytes | None = None
        for effect in decision.effects:
            if isinstance(effect, PublishError) and message is not None:
                effect = replace(effect, topic=message.topic[: limits.KEPT_TOPIC])
                error = encode_error(effect)
                self._reply(record.user, message, error)
            self.effects.append((record.user, effect))
        if decision.refused is not None and message is not None:
            self._log_refusal(record, decision.refused, message)
        return error

    def _reply(self, user: str, message: Message, error: bytes) -> None:
        """An error goes to the response topic of a request, too."""
        _, kind = self.baseline.topics.split(message.topic)
        reply = reply_topics.of_refused(message.reply, kind, self.baseline.topics.root)
        if reply is not None:
            self.effects.append((user, ReplyError(reply, error)))

    def _log_refusal(self, record: Record, refusal: Refused, message: Message) -> None:
        user = record.user if limits.is_user(record.user) else ""
        self.changes.refused.append(
            RefusedRow(
                user,
                user if self.draft.record(user) is not None else "",
                self.moment.wall,
                refusal,
                message,
                record.state if user else None,
            )
        )
        self.counts[f"refused_{refusal.code}"] += 1

    def _answer_again(self, user: str, message: Message, id: str | None) -> bool:
        """Whether the broker sent a handled message without an id again; it is answered again."""
        handled = self.memory.find(message, id)
        if handled is None:
            return False
        self.counts["duplicates"] += 1
        if handled.error is not None:
            self.effects.append((user, RepeatError(handled.error)))
            self._reply(user, message, handled.error)
        if limits.is_user(user):
            self.effects.append((user, PublishStatus(self.draft.record_of(user))))
        elif (newest := self.draft.newest(user.removeprefix(SIGN))) is not None:
            self.effects.append((user, AnswerBatch(newest.key)))
        return True


def too_often(user: str, id: str | None) -> Refused:
    """The refusal of a query for files where another was answered just now."""
    return Refused(
        Code.NOT_ALLOWED,
        f"files of {user} were asked for less than {limits.FILES_S:g} s ago",
        f"ask again in {limits.FILES_S:g} s; one query may name several files",
        id=id,
    )


def too_many(id: str | None) -> Refused:
    """The refusal of a query for files where so much is answered already at the same time."""
    return Refused(
        Code.NOT_ALLOWED,
        "files of many boards were asked for at the same time",
        f"ask again in {limits.FILES_S:g} s, a few boards at a time",
        id=id,
    )


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the loop that was saved and told: for who says how it went."""

    decided: RoundDecision
    messages: int
    commit_s: float | None  # seconds that its transaction took; None: there was nothing to save
