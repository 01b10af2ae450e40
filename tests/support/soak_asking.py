"""Who asks in a soak with ids: a thread with a connection of its own, until all is answered.

The law: whatever names an id is repeated until it is answered, and nothing else is believed.
Everything sent and heard is recorded as the checker wants it, on the machine's monotonic clock,
which the programs read too.
"""

from __future__ import annotations

import os
import queue
import random
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwsync.address import BrokerUrl
from hwsync.protocol.topics import DEFAULT_ROOT, TopicKind, Topics
from hwsync.protocol.wire.asking import encode_id, encode_reset
from hwsync.protocol.wire.schema import read_object
from hwsync.testing.history import Json, Seen
from hwsync.transport import Delivery, Signal, Subscription
from tests.support.soak_programs import Programs
from tests.support.threaded import Transport

REPEAT_S: Final = 0.5  # the first pause of a repetition, then doubling
REPEAT_MAX_S: Final = 2.0
LISTEN_S: Final = 0.1
DEAF_S: Final = 1.0  # without a connection: a fresh one begins without the old one's backoff


@dataclass(slots=True)
class Ask:
    """A request under way; times are monotonic seconds."""

    program: str
    payload: bytes
    due: float = 0.0
    pause: float = REPEAT_S
    change_at: float | None = None  # a cancel, which is repeated, or one reset; None: none is due
    change: TopicKind = TopicKind.CANCEL
    acknowledged: bool = False


class Asking(threading.Thread, ABC):
    """An operator; ``finish`` lets it ask nothing new. ``user``: a board, or a group with its @."""

    most = 1  # something new is asked while less than so many are open
    at_once = 20  # questions under way when everything is asked for once more

    def __init__(self, user: str, url: str, programs: Programs, seed: int) -> None:
        super().__init__(name=f"operator of {user}", daemon=True)
        self.user = user
        self.history: list[Seen] = []
        self.error = ""
        self.asked = 0
        self.acknowledged: set[str] = set()
        self.ended: dict[str, str] = {}  # outcome by id, as told last
        self.heard_at: list[
            float
        ] = []  # when the coordinator said something, which no broker had kept
        self.programs, self._url = programs, BrokerUrl.parse(url)
        self.dice = random.Random(f"{user} of {seed}")
        self.topics = Topics(DEFAULT_ROOT)
        self.open: dict[str, Ask] = {}
        self._again: list[str] = []
        self.next = 0.0  # when it may ask for something new
        self.finishing, self._leaving = threading.Event(), threading.Event()
        self._connect()

    # -- what each kind does ------------------------------------------------------------------

    @abstractmethod
    def ask(self, now: float) -> None:
        """Begin something new, if it is time to."""

    @abstractmethod
    def hear(self, at: float, user: str, kind: TopicKind, fields: dict[str, Any]) -> None:
        """A message has come."""

    @abstractmethod
    def note(self, at: float, kind: TopicKind, id: str, program: str) -> None:
        """That was sent; ``program``: of a request."""

    @abstractmethod
    def recorded(self, id: str, commands: Mapping[tuple[str, str], Json]) -> str:
        """What the database says of it."""

    def subscriptions(self) -> Sequence[str]:
        """The topics that it hears."""
        kinds = (TopicKind.STATUS, TopicKind.ERROR)
        return [*(self.topics.of(self.user, kind) for kind in kinds),
                self.topics.result(self.user, "+")]  # fmt: skip

    # -- what it is told ----------------------------------------------------------------------

    @property
    def unanswered(self) -> list[str]:
        """The ids whose end is not known yet."""
        return [*self.open, *self._again]

    def waits(self, commands: Mapping[tuple[str, str], Json]) -> list[str]:
        """Whose end it waits for, beside what is recorded of it, one a line."""
        return [
            f"{self.name} waits for the end of {id}, which is {self.recorded(id, commands)}"
            for id in self.unanswered
        ]

    def finish(self) -> None:
        """Ask nothing new; what is open is asked for until it ends."""
        self.finishing.set()

    def leave(self) -> None:
        """End the thread and its connection."""
        self._leaving.set()
        if self.ident is not None:
            self.join()
        self._transport.stop(0.0)

    def ask_again(self) -> None:
        """How every acknowledged request has ended, which is to be answered for ever."""
        self._again = sorted(self.acknowledged)

    # -- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        try:
            while not self._leaving.is_set():
                self._listen()
                self._mend()
                now = time.monotonic()
                if len(self.open) < self.most and now >= self.next and not self.finishing.is_set():
                    self.ask(now)
                while self._again and len(self.open) < self.at_once:
                    self.open[self._again.pop()] = Ask("", b"", acknowledged=True)
                self.repeat(now)
        except Exception:
            self.error = traceback.format_exc()

    def _connect(self) -> None:
        self._inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self._deaf_since: float | None = None
        self._transport = Transport(
            self._url,
            f"soak-{self.user.strip('@')}-{os.getpid()}",
            on_signal=self._inbox.put,
            subscriptions=[Subscription(topic) for topic in self.subscriptions()],
        )
        self._transport.start()

    def _mend(self) -> None:
        now = time.monotonic()
        if self._transport.connected:
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = now
        elif now - self._deaf_since > DEAF_S:
            self._transport.stop(0.0)
            self._connect()

    def repeat(self, now: float) -> None:
        """Say what is due of all that is open."""
        for id, ask in list(self.open.items()):
            self._repeat(id, ask, now)

    def _repeat(self, id: str, ask: Ask, now: float) -> None:
        if ask.change_at is not None and now >= ask.change_at:
            # A cancel is safe to repeat, and may be lost.
            ask.change_at = now + REPEAT_MAX_S if ask.change is TopicKind.CANCEL else None
            self.say(ask.change, self.change_text(ask.change, id), id)
        if now < ask.due:
            return
        if ask.acknowledged:
            self.say(TopicKind.QUERY, encode_id(id), id)
        else:
            self.say(TopicKind.REQUEST, ask.payload, id, ask.program)
        ask.due = now + ask.pause
        ask.pause = min(2 * ask.pause, REPEAT_MAX_S)

    def change_text(self, kind: TopicKind, id: str) -> bytes:
        """The payload of a cancel, or of a reset that now and then empties the queue."""
        empties = kind is TopicKind.RESET and self.dice.random() < 0.3
        return encode_reset(id, queue=empties)

    def say(self, kind: TopicKind, payload: bytes, id: str, program: str = "") -> None:
        """Publish it once; it is noted where that is on its way."""
        at = time.monotonic()
        if self.publish(self.topics.of(self.user, kind), payload):
            self.note(at, kind, id, program)

    def publish(self, topic: str, payload: bytes) -> bool:
        """Whether there is a connection that takes it."""
        return self._transport.publish(topic, payload)

    def acknowledge(self, id: str, at: float) -> Ask | None:
        """It was answered; None: nobody waits for it."""
        self.acknowledged.add(id)
        ask = self.open.get(id)
        if ask is not None and not ask.acknowledged:
            ask.acknowledged, ask.pause = True, REPEAT_S
            ask.due = at + ask.pause
        return ask

    def _listen(self) -> None:
        limit = time.monotonic() + LISTEN_S
        while (left := limit - time.monotonic()) > 0:
            try:
                came = self._inbox.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(came, Delivery):
                self._transport.acknowledge(came)
                user, kind = self.topics.split(came.topic)
                at = time.monotonic()
                if user == self.user and not came.retain:
                    self.heard_at.append(at)
                if kind is not None:
                    self.hear(at, user, kind, read_object(came.payload) or {})
