"""How small a result is made that the broker takes and nobody gets.

The law: the whole result goes first on every connection, and twice more; smaller ones follow only
while the coordinator answers other messages that were sent behind it. So nothing is lost where the
coordinator is merely away: what comes first counts.

Why: mosquitto's ``message_size_limit`` acknowledges what is too large under MQTT 3.1.1, and drops
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hwsync.transport.outbox import FLOOR, below

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
    """The results that are repeated, by the command's id."""

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
