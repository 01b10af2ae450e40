"""What a device publishes: of its commands, and of the board itself.

The law: a result goes to the topic of the user whose command it was, once the broker lets this
board be heard under that name (``former``), and in no more bytes than the broker takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from hwsync import __version__
from hwsync.device.environment import Environment
from hwsync.device.former import Former
from hwsync.device.instants import LabClock
from hwsync.device.journal import JournalEntry
from hwsync.device.no_journal import AnyJournal
from hwsync.protocol import limits
from hwsync.protocol.device.values import State
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.heartbeat import FILES, START, encode_heartbeat
from hwsync.protocol.wire.response import encode_collected, encode_response
from hwsync.transport.outbox import FLOOR, Capacity, Message, Outbox, below

log = logging.getLogger("hwsync.device")

TWICE: Final = 2  # results of one size that came to nothing, until a smaller one is tried


@dataclass(slots=True)
class Attempts:
    """What became of one result on this connection."""

    sent: int = 0
    size: int = 0  # bytes of the last one
    fruitless: int = 0  # answered by the coordinator, and not settled
    limit: int | None = None  # bytes that it may have now
    asked: bool = False  # the coordinator was asked what became of the last one


class Shrinking:
    """How small a result is made that the broker takes and nobody gets, by the command's id.

    The whole result goes first on every connection, and twice more; smaller ones follow only while
    the coordinator answers other messages that were sent behind it. So nothing is lost where the
    coordinator is merely away: what comes first counts. Why: mosquitto's ``message_size_limit``
    acknowledges what is too large under MQTT 3.1.1, and drops it.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, Attempts] = {}

    def begin(self) -> None:
        """A new connection: the whole of each result goes first again."""
        self._attempts.clear()

    def limit(self, id: str, most: int) -> int:
        """Bytes that its result may have now, where the broker takes ``most``."""
        attempts = self._attempts.get(id)
        return most if attempts is None or attempts.limit is None else min(most, attempts.limit)

    def sent(self, id: str, size: int) -> bool:
        """A result of so many bytes is under way; whether to ask now what became of it."""
        attempts = self._attempts.setdefault(id, Attempts())
        attempts.sent += 1
        attempts.size = size
        attempts.asked = attempts.sent >= TWICE and size > FLOOR
        return attempts.asked

    def answered(self) -> bool:
        """A status came, after those that are settled were taken out (``forget``).

        Whether a smaller one is to be tried.
        """
        smaller = False
        for attempts in self._attempts.values():
            if attempts.asked:
                attempts.asked = False
                attempts.fruitless += 1
                if attempts.fruitless >= TWICE:
                    attempts.limit = below(attempts.size)
                    smaller = True
        return smaller

    def forget(self, id: str) -> None:
        """Its result has arrived."""
        self._attempts.pop(id, None)


class CommandPublisher:
    """Of one journal; ``former`` knows under which names something may be published."""

    def __init__(
        self,
        topics: Topics,
        journal: AnyJournal,
        link: Environment,
        former: Former,
        max_message: int,
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
        self._link.publish(self._topics.of(user, TopicKind.COLLECTED), payload)

    def result(self, entry: JournalEntry) -> None:
        """Publish the result of a command, where it has one that may be published now."""
        report, user = entry.report, entry.envelope.user
        if report is None or not self._former.may_publish(user):
            return
        name, boot = self._journal.name, self._journal.boot

        def make(limit: int) -> bytes:
            return encode_response(
                entry.id, name, boot, report, self.shrinking.limit(entry.id, limit)
            )

        topic = self._topics.of(user, TopicKind.RESPONSE)
        sent = self.outbox.send(Message(topic, make, f"{topic} {entry.id}"))
        if sent and self.shrinking.sent(entry.id, sent):
            self.collected(user, entry.id)  # a copy, which the coordinator answers

    def results(self, entries: Iterable[JournalEntry]) -> bool:
        """Publish those of these results that may be published now; False: there is none."""
        published = [entry for entry in entries if self._former.may_publish(entry.envelope.user)]
        for entry in published:
            self.result(entry)
        return bool(published)


class Heartbeat:
    """What the board ``user`` says of itself, retained, at each change and every ``HEARTBEAT_S``.

    ``unsettled``: the results that are not known to have arrived.
    """

    def __init__(
        self,
        user: str,
        topics: Topics,
        journal: AnyJournal,
        environment: Environment,
        former: Former,
        unsettled: Callable[[], list[JournalEntry]],
        clock: LabClock,
    ) -> None:
        self._topic = topics.of(user, TopicKind.HEARTBEAT)
        self._journal = journal
        self._environment = environment
        self._former = former
        self._unsettled = unsettled
        self._clock = clock
        self._told_clock = False  # whether the last one said what is known of lab time
        self._refusing = self._refusal()  # as the last one said
        self.at = environment.monotonic()  # seconds, of that clock

    def publish(self, state: State, *, online: bool = True) -> None:
        """Publish it, retained; the next one is due ``HEARTBEAT_S`` later."""
        clock = self._clock.presence()
        payload = encode_heartbeat(
            online=online,
            journal=self._journal.name,
            boot=self._journal.boot,
            seen=max(state.newest, self._journal.newest),
            version=__version__,
            busy=state.id or None,
            running=state.id if state.runs else None,
            **self._environment.presence(),
            refusing=self._refusal() or None,
            **self._of_former(),
            can=[START] if self._refusal() else [START, FILES],
            clock=clock,
            time=self._environment.wall(),
        )
        self._refusing = self._refusal()
        self._told_clock = clock is not None
        self._environment.publish(self._topic, payload, retain=True)
        self.at = self._environment.monotonic() + limits.HEARTBEAT_S

    def tick(self, state: State, now: float) -> None:
        """Publish it where it is due, or where it says something else of what is refused.

        And once the time is known: nobody waits for half a minute to see that.
        """
        refusal = self._refusal()
        if self._refusing and not refusal:
            log.info("programs can be run again")
        knows = bool(self._clock.life) and not self._told_clock and not self._clock.in_burst
        if self.at <= now or self._refusing != refusal or knows:
            self.publish(state)

    def _refusal(self) -> str:
        return self._journal.refusal or self._environment.refusal()

    def _of_former(self) -> dict[str, Any]:
        """What waits under earlier names; looked for only where there are some."""
        waiting = self._former.waiting(self._unsettled()) if self._former.names else {}
        return {"former": dict(waiting)} if waiting else {}
