"""At its start the coordinator first hears what the broker has kept, and then decides anything.

The law: the first connection of a life handles nothing but kept statuses until they are all there.
A broker sends a session's waiting messages before it sends what is retained, so that a request
would else be decided, and perhaps said not to have run, on a database that is older than what was
published (docs/protocol.md, section 2, "Epochs"). The end is a message of our own that comes back:
whoever sent it has sent everything before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from hwsync.coordinator.loop import Clock, Publisher
from hwsync.protocol.topics import ITSELF, Kind, Topics
from hwsync.transport import Connected, Delivery, Signal, Subscribed

HEARD_S: Final = 10.0  # after a broker that does not send it back it goes on all the same


class Hearing:
    """``take`` stands between the inbox and the loop. ``mark`` is a text that nobody else sends."""

    def __init__(self, publisher: Publisher, topics: Topics, clock: Clock, mark: str) -> None:
        self._publisher, self._topics, self._clock = publisher, topics, clock
        self._mark = mark.encode()
        self._held: list[Delivery] = []
        self._limit: float | None = None  # monotonic, seconds
        self._over = False

    def take(self, signals: Iterable[Signal]) -> list[Signal]:
        """What is to be handled now, in order."""
        passed: list[Signal] = []
        for signal in signals:
            if self._over:
                passed.append(signal)
            elif isinstance(signal, Delivery):
                self._heard(signal, passed)
            else:
                passed.append(signal)
                self._note(signal)
        if self._limit is not None and self._clock.monotonic() >= self._limit:
            self._end(passed)
        return passed

    def wait(self) -> float | None:
        """Seconds until ``take`` has something to do by itself."""
        if self._limit is None:
            return None
        return max(self._limit - self._clock.monotonic(), 0.0)

    def _heard(self, delivery: Delivery, passed: list[Signal]) -> None:
        user, kind = self._topics.split(delivery.topic)
        if (user, kind, delivery.payload) == (ITSELF, Kind.QUERY, self._mark):
            self._end(passed)
        elif kind is Kind.STATUS:
            passed.append(delivery)
        else:
            self._held.append(delivery)

    def _note(self, signal: Signal) -> None:
        if isinstance(signal, Connected):
            # What was held comes again; but where the session is gone, only we have it.
            kept = [] if signal.session_present else self._held
            self._held = [replace(delivery, mid=0) for delivery in kept]
            self._limit = None
        elif isinstance(signal, Subscribed):
            topic = self._topics.of(ITSELF, Kind.QUERY)
            # QoS 0, as the statuses: it waits for no window of messages that are held here.
            self._publisher.publish(topic, self._mark, qos=0)
            self._limit = self._clock.monotonic() + HEARD_S

    def _end(self, passed: list[Signal]) -> None:
        self._over = True
        self._limit = None
        passed += self._held
        self._held = []
