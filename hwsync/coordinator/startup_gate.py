"""At its start the coordinator first receives what the broker has kept, and then does anything.

The law: after a start every message but statuses is held until all retained statuses have arrived
and are saved; only then the connection counts as made (``Subscribed``). The end is a message of our
own that comes back: whoever sends it has sent everything before it.

Why: a broker sends a session's waiting messages before it sends what is retained, so that a request
would else be decided, and perhaps said not to have run, on a database that is older than what was
published; and the newer status would be overwritten (docs/protocol.md, section 2, "Epochs").
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from hwsync.coordinator.deliveries import still_ours
from hwsync.coordinator.publishing import Publisher
from hwsync.coordinator.schedule import Clock
from hwsync.protocol.topics import ITSELF, TopicKind, Topics
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed

log = logging.getLogger("hwsync.coordinator")

SILENCE_S: Final = 10.0  # of a broker that does not send it back; then it goes on all the same


class StartupGate:
    """``admit`` stands between intake and loop. ``mark`` is a text that nobody else sends."""

    def __init__(self, publisher: Publisher, topics: Topics, clock: Clock, mark: str) -> None:
        self._publisher, self._topics, self._clock = publisher, topics, clock
        self._mark = mark
        self._marks = 0  # each connection has its own: an earlier one may have been queued
        self._held: list[Delivery] = []
        self._subscribed: Subscribed | None = None
        self._left: list[Signal] = []  # for the next turn
        self._limit: float | None = None  # monotonic, seconds
        self._is_open = False

    def admit(self, signals: Iterable[Signal]) -> list[Signal]:
        """What is to be handled now, in order."""
        passed, self._left = self._left, []
        for signal in signals:
            if self._is_open:
                (self._left or passed).append(signal)
            elif isinstance(signal, Delivery):
                self._receive(signal, passed)
            else:
                self._note(signal, passed)
        if self._limit is not None and self._clock.monotonic() >= self._limit:
            log.warning(
                "the broker does not send back what we publish on %s: going on without having "
                "heard all that it has kept",
                self._topics.of(ITSELF, TopicKind.QUERY),
            )
            self._open()
        return passed

    def wait(self) -> float | None:
        """Seconds until ``admit`` has something to do by itself."""
        if self._left:
            return 0.0
        if self._limit is None:
            return None
        return max(self._limit - self._clock.monotonic(), 0.0)

    def _receive(self, delivery: Delivery, passed: list[Signal]) -> None:
        user, kind = self._topics.split(delivery.topic)
        if (user, kind, delivery.payload) == (ITSELF, TopicKind.QUERY, self._text):
            self._publisher.acknowledge(delivery)  # some brokers raise its QoS to the filter's
            self._open()
        elif kind is TopicKind.STATUS:
            passed.append(delivery)
            if self._limit is not None:
                self._limit = self._clock.monotonic() + SILENCE_S
        elif user == ITSELF:
            passed.append(delivery)  # a question for the health moves no record
        else:
            self._held.append(delivery)

    def _note(self, signal: Signal, passed: list[Signal]) -> None:
        if isinstance(signal, Subscribed):
            self._subscribed = signal
            self._marks += 1
            # QoS 0, as the statuses: it waits for no window of messages that are held here.
            topic = self._topics.of(ITSELF, TopicKind.QUERY)
            self._publisher.publish(topic, self._text, qos=0)
            self._limit = self._clock.monotonic() + SILENCE_S
            return
        passed.append(signal)
        if isinstance(signal, Connected):
            self._held = still_ours(self._held, signal.session_present)
        elif isinstance(signal, Disconnected):
            self._subscribed, self._limit = None, None

    @property
    def _text(self) -> bytes:
        return f"{self._mark}-{self._marks}".encode()

    def _open(self) -> None:
        """In the next turn: what was received until now is saved first."""
        self._is_open = True
        self._limit = None
        self._left = [*([self._subscribed] if self._subscribed else []), *self._held]
        self._held = []
