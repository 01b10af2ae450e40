"""What a device publishes of its commands: ``collected``, and results until they are settled.

The law: a result goes to the topic of the user whose command it was, once the broker lets this
board be heard under that name (``former``), and in no more bytes than the broker takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hwsync.device.former import Former
from hwsync.device.journal import Entry
from hwsync.device.no_journal import AnyJournal
from hwsync.device.shrinking import Shrinking
from hwsync.protocol.topics import Kind, Topics
from hwsync.protocol.wire import encode_collected, encode_result
from hwsync.transport.capacity import Capacity
from hwsync.transport.outbox import Message, Outbox, Publisher


class Link(Publisher, Protocol):
    """From outside."""

    def monotonic(self) -> float:
        """Seconds."""


class Telling:
    """Of one journal; ``former`` knows under which names something may be told."""

    def __init__(
        self, topics: Topics, journal: AnyJournal, link: Link, former: Former, max_message: int
    ) -> None:
        self._topics = topics
        self._journal = journal
        self._link = link
        self._former = former
        self.outbox = Outbox(link, Capacity(max_message), link.monotonic)
        self.shrinking = Shrinking()

    def collected(self, user: str, id: str) -> None:
        """Publish "I have it, it has not started"."""
        payload = encode_collected(id, self._journal.name, self._journal.boot)
        self._link.publish(self._topics.of(user, Kind.COLLECTED), payload)

    def result(self, entry: Entry) -> None:
        """Publish the result of a command, where it has one that may be told now."""
        account, user = entry.account, entry.envelope.user
        if account is None or not self._former.may_tell(user):
            return
        name, boot = self._journal.name, self._journal.boot

        def make(limit: int) -> bytes:
            return encode_result(
                entry.id, name, boot, account, self.shrinking.limit(entry.id, limit)
            )

        topic = self._topics.of(user, Kind.RESPONSE)
        sent = self.outbox.send(Message(topic, make, f"{topic} {entry.id}"))
        if sent and self.shrinking.sent(entry.id, sent):
            self.collected(user, entry.id)  # a copy, which the coordinator answers

    def results(self, entries: Iterable[Entry]) -> bool:
        """Publish those of these results that may be told now; False: there is none."""
        told = [entry for entry in entries if self._former.may_tell(entry.envelope.user)]
        for entry in told:
            self.result(entry)
        return bool(told)
