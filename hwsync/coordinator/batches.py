"""What is said of groups: what became of their batches, and who their boards are; and when.

The law: a status of a batch is made when it is sent, of what is stored then, so that what was not
said needs no memory: the last word is always said. It goes out so often, and so many bytes of it,
that a batch of many boards drowns nobody (docs/protocol.md, "Groups and batches"). The newest
batch of a group waits for no answer about an older one. All of it, and the lists of boards, is said
again at each connect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

from hwsync.coordinator.boards import Boards
from hwsync.coordinator.publishing import Publishing
from hwsync.coordinator.schedule import Clock
from hwsync.protocol import limits
from hwsync.protocol.batch import Batch
from hwsync.protocol.effects import AnswerBatch, PublishBatch, ReplyBatch
from hwsync.protocol.errors import StoreError
from hwsync.protocol.groups import ALL, SIGN, Groups, is_pattern
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Record, Reply
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.group import batch_json, encode_batch, encode_members
from hwsync.store.api import Storage
from hwsync.transport.outbox import Message

AGAIN_S: Final = 1.0  # after the database could not be read
SHARE: Final = 20  # one part in so many of the time goes into what is said of a group, but
LONGEST_S: Final = (
    5.0  # between two words of it: a machine that stalled is not taken for a slow one
)

log = logging.getLogger("hwsync.coordinator")


class Lab(Protocol):
    """What is known where it is said: the coordinator."""

    store: Storage
    topics: Topics
    records: dict[str, Record]
    batches: dict[str, Batch]
    newest_keys: dict[str, str]
    rules: Rules
    epoch: int
    boards: Boards


class BatchNews:
    """One coordinator's word of its groups. Moments are seconds on the monotonic clock.

    ``tell`` is brought each effect, ``connected`` each connect; ``flush`` is called in each round,
    and at the latest after ``wait``.
    """

    def __init__(self, lab: Lab, publishing: Publishing, clock: Clock) -> None:
        self._lab, self._publishing, self._clock = lab, publishing, clock
        self._due: dict[str, dict[str, bool]] = {}  # by group: keys of batches; was it asked for?
        # By group, and whether it is its newest batch: the earliest next status.
        self._next_at: dict[tuple[str, bool], float] = {}
        self._replies: list[tuple[str, Reply]] = []
        self._lists: dict[str, bytes] = {}  # by group, as the broker keeps it; empty: unknown
        self._lists_at: float | None = None  # when it is looked next who is where; None: away
        self._looked_at: object = None  # what was known then
        self._grouped_by: Groups | None = None  # the groups then
        self._has_patterns = False
        self._again_at = 0.0

    def tell(self, effect: PublishBatch | AnswerBatch | ReplyBatch) -> None:
        """Say it when there is time for it."""
        if isinstance(effect, ReplyBatch):
            self._replies += ((effect.key, reply) for reply in effect.replies)
            return
        group = _group(effect.key)
        is_newest = self._lab.newest_keys.get(group) == effect.key
        is_asked = isinstance(effect, AnswerBatch)
        if not group or not (is_newest or is_asked):
            return
        due = self._due.get(group, {})
        if is_newest:  # what was due of the one before need not be said
            due = {key: asked for key, asked in due.items() if asked or key == effect.key}
        if is_newest or len(due) < limits.BATCH_ANSWERS:
            due[effect.key] = is_asked or due.get(effect.key, False)
            self._due[group] = due

    def connected(self) -> None:
        """What the broker is to keep is said again: it may have forgotten it."""
        self._lists = dict.fromkeys(self._lists, b"")
        self._grouped_by, self._lists_at = None, self._clock.monotonic()
        for group, key in self._lab.newest_keys.items():
            self._due.setdefault(group, {}).setdefault(key, False)
            self._lists.setdefault(group, b"")  # an earlier life may have said who is in it
        for batch in self._lab.batches.values():
            if batch.ended is not None and batch.replies:
                self.tell(ReplyBatch(batch.key, batch.replies))

    def disconnected(self) -> None:
        """Nobody hears it now."""
        self._due.clear()
        self._replies.clear()
        self._lists_at = None

    def wait(self) -> float | None:
        """Seconds until ``flush`` has something to say; None: nothing is due."""
        now = self._clock.monotonic()
        if self._lists_at is None:
            return None
        waits = [self._next_at.get(turn, now) for turn in self._turns()]
        waits += [now] if self._replies or self._is_regrouped() else []
        waits += [self._lists_at] if self._look() != self._looked_at else []
        return max(min(waits) - now, self._again_at - now, 0.0) if waits else None

    def flush(self) -> list[str]:
        """Say what is due; the keys of batches whose replies were said."""
        now = self._clock.monotonic()
        if self._lists_at is None or now < self._again_at:
            return []
        try:
            for turn, key in self._turns().items():
                if self._next_at.get(turn, now) <= now:
                    self._say(turn, key)
            said = self._reply()
        except StoreError as error:
            log.error("cannot read the database: %s; what is said of groups waits", error)
            self._again_at = now + AGAIN_S
            return []
        now = self._clock.monotonic()
        if now >= self._lists_at or self._is_regrouped():
            self._say_lists()
            took = self._clock.monotonic() - now
            self._lists_at = now + max(limits.GROUP_MEMBERS_S, min(SHARE * took, LONGEST_S))
        return said

    def _turns(self) -> dict[tuple[str, bool], str]:
        """What is said next of each group: its newest batch, and one of the older ones."""
        turns: dict[tuple[str, bool], str] = {}
        for group, keys in self._due.items():
            newest = self._lab.newest_keys.get(group)
            for key in keys:
                turns.setdefault((group, key == newest), key)
        return turns

    def _say(self, turn: tuple[str, bool], key: str) -> None:
        """The status of a batch whose turn it is."""
        (group, newest), now = turn, self._clock.monotonic()
        fields = self._fields(key)
        keys = self._due[group]
        del keys[key]
        if not keys:
            del self._due[group]
        if fields is None:
            return
        user = f"{SIGN}{group}"
        payload = encode_batch(fields, self._publishing.outbox.limit)
        if newest:
            topic = self._lab.topics.of(user, TopicKind.STATUS)
        else:
            topic = self._lab.topics.result(user, str(fields["id"]))
        self._publishing.outbox.send(
            Message(
                *(topic, lambda limit: encode_batch(fields, limit), topic),
                retain=newest, courtesy=not newest, owner=user,
            )
        )  # fmt: skip
        took = self._clock.monotonic() - now
        least = max(limits.BATCH_STATUS_S, len(payload) / limits.BATCH_STATUS_RATE)
        pause = max(least, min(SHARE * took, LONGEST_S))
        self._next_at[turn] = now + pause

    def _reply(self) -> list[str]:
        """The end of each batch whose response topics wait for it."""
        said: list[str] = []
        while self._replies:
            key, reply = self._replies[0]
            fields = self._fields(key)
            del self._replies[0]
            if fields is not None:
                self._publishing.reply_batch(key, reply, fields)
                said.append(key)
        return said

    def _fields(self, key: str) -> dict[str, object] | None:
        """A batch's status. Raises ``StoreError``."""
        lab = self._lab
        batch = lab.batches.get(key) or lab.store.batch(key, lab.records)
        if batch is None:
            return None
        states = {
            user: int(record.state)
            for user in batch.members
            if (record := lab.records.get(user)) is not None
            and record.current is not None
            and record.current.batch == key
        }
        return batch_json(batch, lab.epoch, lab.store.parts(key), states)

    def _say_lists(self) -> None:
        """Each group's boards, where they or who is online have changed; no list of one gone."""
        groups = self._lab.rules.groups
        some_entries = groups.entries.values()
        self._has_patterns = any(is_pattern(one) for some in some_entries for one in some)
        self._looked_at, self._grouped_by = self._look(), groups
        for group in [one for one in self._lists if one != ALL and one not in groups.entries]:
            del self._lists[group]
            self._say_list(group, lambda _: b"")
        for group, members in self._groups():
            online = {user: self._lab.boards.online(user) for user in members}
            known = dumps(online).encode()
            if self._lists.get(group) == known or not (online or group in self._lists):
                continue
            self._lists[group] = known
            self._say_list(group, partial(encode_members, group, online))

    def _say_list(self, group: str, make: Callable[[int], bytes]) -> None:
        topic = self._lab.topics.of(f"{SIGN}{group}", TopicKind.MEMBERS)
        self._publishing.outbox.send(Message(topic, make, topic, retain=True))

    def _is_regrouped(self) -> bool:
        """Whether there are other groups than at the last look: those are said at once."""
        return self._lab.rules.groups is not self._grouped_by

    def _look(self) -> object:
        """What says who is in which group; whoever falls silent is found without."""
        records = len(self._lab.records) if self._has_patterns else 0
        return self._lab.boards.changes, records

    def _groups(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        groups, boards = self._lab.rules.groups, self._lab.boards
        known = self._lab.records.keys() | boards.known()
        for name in groups.entries:
            yield name, groups.members(name, known) or ()
        yield ALL, tuple(sorted(boards.lately()))


def _group(key: str) -> str:
    """The group of a batch, of its key; empty: it has none."""
    return key.removeprefix(SIGN).partition(" ")[0] if key.startswith(SIGN) else ""
