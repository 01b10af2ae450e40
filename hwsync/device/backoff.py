"""When a device says something again: at once, then with growing pauses and jitter."""

from __future__ import annotations

from typing import Protocol

from hwsync.protocol.repeat import pause


class Dice(Protocol):
    """The clock and the dice, from outside."""

    def monotonic(self) -> float:
        """Seconds."""

    def random(self) -> float:
        """From 0 to 1."""


class Backoff:
    """When something is said again."""

    def __init__(self, outside: Dice) -> None:
        self._outside = outside
        self.at: float | None = None
        self.began = 0.0
        self._attempt = 0

    def begin(self) -> None:
        self._attempt = 0
        self.began = self._outside.monotonic()
        self.again()

    def again(self) -> None:
        self.at = self._outside.monotonic() + pause(self._attempt, self._outside.random())
        self._attempt += 1

    def end(self) -> None:
        self.at = None

    def is_due(self) -> bool:
        return self.at is not None and self.at <= self._outside.monotonic()
