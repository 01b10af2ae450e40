"""Takes from the broker what somebody had it keep where nothing is to be kept.

The law: on what people and boards send to the coordinator, only heartbeats are retained. Whatever
else is, is handled or refused like any other message (docs/protocol.md, section 3), and kept no
longer. Over MQTT 3.1.1 nothing is cleared: there the empty message that clears is told like any
other, and could reset or cancel.

Why: it would come again at every connect, and fill the broker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from hwsync.coordinator.publishing import Publisher
from hwsync.coordinator.schedule import Clock
from hwsync.protocol.topics import INBOUND, TopicKind, Topics
from hwsync.transport import Connected, Delivery, Signal

log = logging.getLogger("hwsync.coordinator")

CLEARED: Final = frozenset(INBOUND) - {TopicKind.STATUS, TopicKind.HEARTBEAT}
SAY_S: Final = 60.0  # between two lines of the log
VERSION: Final = 5  # of MQTT: it says of each message whether it is kept


class Clearing:
    """``clear`` is told of each round's signals, once they were handled."""

    def __init__(self, network: Publisher, topics: Topics, clock: Clock) -> None:
        self._network, self._topics, self._clock = network, topics, clock
        self._knows = False  # whether this connection says what is kept
        self._cleared = 0
        self._say_at = clock.monotonic()

    def clear(self, signals: Iterable[Signal]) -> None:
        """Clear what these show to be kept."""
        topic = ""
        for signal in signals:
            if isinstance(signal, Connected):
                self._knows = signal.protocol == VERSION
            elif isinstance(signal, Delivery) and self._is_too_much(signal):
                topic = signal.topic
                self._cleared += self._network.publish(topic, b"", retain=True)
        if topic and self._cleared and self._clock.monotonic() >= self._say_at:
            log.warning("the broker keeps no longer %d retained messages to the coordinator; the "
                        "last was on %s", self._cleared, topic)  # fmt: skip
            self._cleared, self._say_at = 0, self._clock.monotonic() + SAY_S

    def _is_too_much(self, delivery: Delivery) -> bool:
        if not (self._knows and delivery.retain and delivery.payload):
            return False
        _, kind = self._topics.split(delivery.topic)
        return kind in CLEARED
