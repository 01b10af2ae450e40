"""What is known before an event, and what the decisions so far have made of it.

The law: nothing here decides, and nothing is saved: a draft that is thrown away has changed
nothing. Of a batch it counts how far the members are, by their commands alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from hwsync.protocol import batch as batches
from hwsync.protocol.batch import Batch
from hwsync.protocol.effects import BatchDecision, Decision
from hwsync.protocol.errors import Code
from hwsync.protocol.events import HeartbeatReceived
from hwsync.protocol.presence import is_outdated_will
from hwsync.protocol.record import Command, Record, State


class Known(Protocol):
    """What is known before an event: looked up here, and never changed.

    A lookup may raise what its source raises; it passes through every function of ``core``.
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

    def batch(self, key: str) -> Batch | None:
        """The batch with that key, None where there is none."""

    def newest(self, group: str) -> Batch | None:
        """The batch that was asked of a group last, open or not; None: there was none."""

    def open_batches(self) -> Iterable[Batch]:
        """Those that have not ended, the oldest first."""


@dataclass(slots=True)
class Draft:
    """What is known, as the decisions so far leave it: ``Known`` once more, and nothing is saved.

    ``base``: what is saved; its lookups may raise, as ``Known`` says. ``records``, ``commands`` (by
    user and id), ``batches`` (by key), ``new_batches`` and ``turned_away`` (by key and member: who
    refused) have what was changed, and only that: saved together they are ``base`` after all
    ``decisions``. To throw a draft away undoes it. ``touched``: batches of which it is to be looked
    whose turn it is, or whether they have ended.
    """

    base: Known
    records: dict[str, Record] = field(default_factory=dict)
    commands: dict[tuple[str, str], Command] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    new_batches: dict[str, Batch] = field(default_factory=dict)
    turned_away: dict[tuple[str, str], Code] = field(default_factory=dict)
    decisions: list[Decision | BatchDecision] = field(default_factory=list)
    heard: dict[str, HeartbeatReceived] = field(default_factory=dict)  # since what is saved
    touched: dict[str, None] = field(default_factory=dict)
    _new: int = 0  # users that had no record
    _found: dict[tuple[str, str], Command | None] = field(default_factory=dict)  # of the base

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
        if (changed := self.commands.get((user, id))) is not None:
            return changed
        if (user, id) not in self._found:
            self._found[user, id] = self.base.command(user, id)
        return self._found[user, id]

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

    def batch(self, key: str) -> Batch | None:
        """The batch with that key, None where there is none."""
        return self.batches.get(key) or self.base.batch(key)

    def newest(self, group: str) -> Batch | None:
        """The batch that was asked of a group last, open or not; None: there was none."""
        new = [one.key for one in self.new_batches.values() if one.group == group]
        if new:
            return self.batches[new[-1]]
        before = self.base.newest(group)
        return before and self.batch(before.key)

    def open_batches(self) -> Iterable[Batch]:
        """Those that have not ended, the oldest first."""
        keys = dict.fromkeys([*(one.key for one in self.base.open_batches()), *self.batches])
        found = (self.batch(key) for key in keys)
        return [one for one in found if one is not None and one.ended is None]

    def record_of(self, user: str) -> Record:
        """The user's record; one at rest, which nobody has changed yet, for a new name."""
        return self.record(user) or Record(user, epoch=self.epoch)

    def take(self, decision: Decision | BatchDecision) -> None:
        """The decision counts: what follows is decided on what it leaves."""
        self.decisions.append(decision)
        if isinstance(decision, BatchDecision):
            self._take_batch(decision)
            return
        record, other = decision.record, decision.command
        changed = decision.entry is not None or decision.unlogged
        if changed or other is not None:
            self._count_members(decision, changed)
        if changed and record.current is not None:
            self.commands[record.user, record.id] = record.current
        if other is not None:
            self.commands[record.user, other.id] = other
        if changed or other is not None:
            self._new += self.record(record.user) is None
            self.records[record.user] = record

    def _take_batch(self, decision: BatchDecision) -> None:
        batch = decision.batch
        if batch is None:
            return
        before = self.batch(batch.key)
        if before is None:
            self.new_batches[batch.key] = batch
        known = before.refused if before else batches.NOBODY
        if batch.refused is not known:
            for user, code in batch.refused.items():
                if known.get(user) is not code:
                    self.turned_away[batch.key, user] = code
        self.batches[batch.key] = batch

    def _count_members(self, decision: Decision, changed: bool) -> None:
        """What a decision means to the batches of the commands that it changes."""
        after, user = decision.record, decision.record.user
        before = self.record_of(user)
        own = after.current if changed else None
        for command in (own, decision.command):
            if command is None or not command.batch:
                continue
            known = self._known(user, command)
            shown = (before.state_of(command.id), after.state_of(command.id))
            if shown[0] is shown[1] and _says_the_same(known, command):
                continue
            batch = self.batch(command.batch)
            if batch is None:
                continue  # its row was lost
            was = None if known is None else batches.stage_of(known, before)
            moved = batches.moved(batch, user, was, batches.stage_of(command, after))
            self.batches[batch.key] = moved
            self.touched[batch.key] = None
        if after.state is State.REST and after.batched:
            self.touched |= dict.fromkeys(key for _, key in after.batched)

    def _known(self, user: str, command: Command) -> Command | None:
        """A batch's command as it was; nobody need look for one of a batch that is new here."""
        if command.batch in self.new_batches and (user, command.id) not in self.commands:
            return None
        return self.command(user, command.id)


def _says_the_same(before: Command | None, after: Command) -> bool:
    """Whether nothing changed that is told of its batch: of an ended command, its report alone."""
    if before is None or before == after:
        return before is not None
    return before.report is not None and before.report == after.report
