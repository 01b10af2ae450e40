"""What is said of groups: what became of their batches, and who their boards are; and when.

The law: a status of a batch is made when it is sent, of what is stored then, so that what was not
said needs no memory: the last word is always said. It goes out so often, and so many bytes of it,
that a batch of many boards drowns nobody (docs/protocol.md, "Groups and batches"). All of it, and
the lists of boards, is said again at each connect.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from hwsync.coordinator.boards import Boards
from hwsync.coordinator.publishing import Publishing
from hwsync.coordinator.schedule import Clock
from hwsync.protocol import limits
from hwsync.protocol.batch import Batch
from hwsync.protocol.effects import AnswerBatch, PublishBatch, ReplyBatch
from hwsync.protocol.errors import StoreError
from hwsync.protocol.groups import ALL, SIGN, is_pattern
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Record, Reply
from hwsync.protocol.rules import Rules
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.group import batch_json, encode_batch, encode_members
from hwsync.store.api import Storage
from hwsync.transport.outbox import Message

AGAIN_S: Final = 1.0  # after the database could not be read
SHARE: Final = 20  # of the time at most for looking who is in which group

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
        self._due: dict[str, dict[str, None]] = {}  # by group: keys of batches
        self._next_at: dict[str, float] = {}  # by group, the earliest next status
        self._replies: list[tuple[str, Reply]] = []
        self._lists: dict[str, bytes] = {}  # by group, as the broker keeps it
        self._lists_at: float | None = None  # when it is looked next who is where; None: away
        self._looked_at: object = None  # what was known then
        self._has_patterns = False
        self._again_at = 0.0

    def tell(self, effect: PublishBatch | AnswerBatch | ReplyBatch) -> None:
        """Say it when there is time for it."""
        if isinstance(effect, ReplyBatch):
            self._replies += ((effect.key, reply) for reply in effect.replies)
            return
        group, newest = _group(effect.key), self._lab.newest_keys
        if group and (isinstance(effect, AnswerBatch) or newest.get(group) == effect.key):
            self._due.setdefault(group, {})[effect.key] = None

    def connected(self) -> None:
        """What the broker is to keep is said again: it may have forgotten it."""
        self._lists.clear()
        self._lists_at = self._clock.monotonic()
        for group, key in self._lab.newest_keys.items():
            self._due.setdefault(group, {})[key] = None
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
        waits = [self._next_at.get(group, now) for group in self._due]
        waits += [now] if self._replies else []
        waits += [self._lists_at] if self._look() != self._looked_at else []
        return max(min(waits) - now, self._again_at - now, 0.0) if waits else None

    def flush(self) -> list[str]:
        """Say what is due; the keys of batches whose replies were said."""
        now = self._clock.monotonic()
        if self._lists_at is None or now < self._again_at:
            return []
        try:
            for group in [one for one in self._due if self._next_at.get(one, now) <= now]:
                self._say(group, now)
            said = self._reply()
        except StoreError as error:
            log.error("cannot read the database: %s; what is said of groups waits", error)
            self._again_at = now + AGAIN_S
            return []
        if now >= self._lists_at:
            self._say_lists()
            took = self._clock.monotonic() - now
            self._lists_at = now + max(limits.GROUP_MEMBERS_S, SHARE * took)
        return said

    def _say(self, group: str, now: float) -> None:
        """One status of the group's; the others wait for their turn."""
        keys = self._due[group]
        key = next(iter(keys))
        fields = self._fields(key)
        del keys[key]
        if not keys:
            del self._due[group]
        if fields is None:
            return
        user, newest = f"{SIGN}{group}", self._lab.newest_keys.get(group) == key
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
        pause = max(limits.BATCH_STATUS_S, len(payload) / limits.BATCH_STATUS_RATE)
        self._next_at[group] = now + pause

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
        """Each group's boards, where they or who is online have changed."""
        entries = self._lab.rules.groups.entries.values()
        self._has_patterns = any(is_pattern(one) for some in entries for one in some)
        self._looked_at = self._look()
        for group, members in self._groups():
            online = {user: self._lab.boards.online(user) for user in members}
            known = dumps(online).encode()
            if self._lists.get(group) == known or not (online or group in self._lists):
                continue
            self._lists[group] = known
            self._say_list(group, online)

    def _say_list(self, group: str, online: Mapping[str, bool | None]) -> None:
        topic = self._lab.topics.of(f"{SIGN}{group}", TopicKind.MEMBERS)
        self._publishing.outbox.send(
            Message(
                *(topic, lambda limit: encode_members(group, online, limit), topic),
                retain=True,
            )
        )

    def _look(self) -> object:
        """What says who is in which group; whoever falls silent is found without."""
        records = len(self._lab.records) if self._has_patterns else 0
        return self._lab.boards.changes, records, id(self._lab.rules.groups)

    def _groups(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        groups, boards = self._lab.rules.groups, self._lab.boards
        known = self._lab.records.keys() | boards.known()
        for name in groups.entries:
            yield name, groups.members(name, known) or ()
        yield ALL, tuple(sorted(boards.lately()))


def _group(key: str) -> str:
    """The group of a batch, of its key; empty: it has none."""
    return key.removeprefix(SIGN).partition(" ")[0] if key.startswith(SIGN) else ""
