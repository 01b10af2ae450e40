"""Our own statuses, where the broker sends them back: MQTT 3.1.1 has no ``no_local``.

The law: only what is byte for byte what we have just published there is passed over, once for each
time; a status of anybody else is heard as ever.

Why: to read, compare and count our own again took 66 us of the 700 that the loop has for a cycle
(16.5 us for each of four, and 2.3 now).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from hwsync.coordinator.publishing import Publisher
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.transport import Connected, Delivery, Disconnected, Signal

MOST: Final = 10_000  # statuses that have not come back; a broker may drop them (QoS 0)
HAS_NO_LOCAL: Final = 5  # the version of MQTT


class Echoes:
    """A ``Publisher`` in front of another one; ``without_ours`` gets each round's signals first.

    What it says of the connection is the other one's word.
    """

    def __init__(self, publisher: Publisher, topics: Topics) -> None:
        self._publisher, self._topics = publisher, topics
        self._come_back = False
        self._published: Counter[tuple[str, int]] = Counter()  # by topic and hash, in their order

    @property
    def connection(self) -> int:
        return self._publisher.connection

    @property
    def backlog(self) -> int:
        return self._publisher.backlog

    @property
    def all_acknowledged(self) -> bool:
        return self._publisher.all_acknowledged

    def under_way(self, topic: str) -> bool:
        return self._publisher.under_way(topic)

    def acknowledge(self, delivery: Delivery) -> None:
        self._publisher.acknowledge(delivery)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        """As the publisher's; a status is remembered until it comes back."""
        sent = self._publisher.publish(
            topic, payload, qos=qos, retain=retain, correlation=correlation
        )
        if sent and self._come_back and self._topics.split(topic)[1] is TopicKind.STATUS:
            self._published[topic, hash(payload)] += 1
            while len(self._published) > MOST:
                del self._published[next(iter(self._published))]
        return sent

    def without_ours(self, signals: Iterable[Signal]) -> list[Signal]:
        """What is not our own, in order."""
        passed: list[Signal] = []
        for signal in signals:
            if isinstance(signal, Connected):
                self._come_back = signal.protocol < HAS_NO_LOCAL
                self._published.clear()
            elif isinstance(signal, Disconnected):
                self._published.clear()
            if isinstance(signal, Delivery) and self._published and self._is_ours(signal):
                self._publisher.acknowledge(signal)  # some brokers raise its QoS to the filter's
            else:
                passed.append(signal)
        return passed

    def _is_ours(self, delivery: Delivery) -> bool:
        key = (delivery.topic, hash(delivery.payload))
        if key not in self._published:
            return False
        self._published[key] -= 1
        if not self._published[key]:
            del self._published[key]
        return True
