"""How small a result is made that the broker takes and nobody gets.

The law: the whole result goes first on every connection, and once more; smaller ones follow only
while the coordinator answers other messages that were sent behind it. So nothing is lost where the
coordinator is merely away: what comes first counts. mosquitto's ``message_size_limit`` acknowledges
what is too large under MQTT 3.1.1, and drops it.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from hwsync.transport.capacity import FLOOR, SMALL

TWICE: Final = 2  # whole results that came to nothing, until a smaller one is tried


class Shrinking:
    """By the command's id."""

    def __init__(self) -> None:
        self._sent: Counter[str] = Counter()  # on this connection
        self._fruitless: Counter[str] = Counter()  # and how often the coordinator ignored it
        self._asked: set[str] = set()

    def begin(self) -> None:
        """A new connection."""
        self._sent.clear()
        self._fruitless.clear()
        self._asked.clear()

    def limit(self, id: str, most: int) -> int:
        """Bytes that its result may have now, of the most that the broker takes."""
        return max(FLOOR, most >> max(0, self._fruitless[id] - TWICE + 1))

    def sent(self, id: str, size: int) -> bool:
        """A result of so many bytes is under way; whether to ask now what became of it."""
        self._sent[id] += 1
        asks = self._sent[id] >= TWICE and size > SMALL
        if asks:
            self._asked.add(id)
        return asks

    def answered(self) -> None:
        """A status came, after those that are settled were taken out (``forget``)."""
        self._fruitless.update(self._asked)
        self._asked.clear()

    def forget(self, id: str) -> None:
        """Its result has arrived."""
        for counts in (self._sent, self._fruitless):
            counts.pop(id, None)
        self._asked.discard(id)
