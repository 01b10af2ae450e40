"""An attempt that led to no connection: why, and what to do."""

from __future__ import annotations

from typing import Final

REFUSED: Final = "refused the connection"  # what is said of a login that was not taken


class Failed(Exception):
    """``reason`` and ``cure`` are for people; the cure may be empty."""

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.reason}; {self.cure}" if self.cure else self.reason


class WrongVersion(Failed):
    """The broker does not speak this version of MQTT."""


class Taken(Failed):
    """The broker keeps a session under our name, so it takes us for somebody else."""
