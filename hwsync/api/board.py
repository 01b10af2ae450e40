"""A board as a lab's list has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsync.operator.boards import Kept
from hwsync.operator.client import Client
from hwsync.protocol.presence import is_online
from hwsync.protocol.record import State


@dataclass(frozen=True, slots=True)
class Board:
    """One board, at the moment at which the list was asked for."""

    name: str
    online: bool | None  # None: nobody can say
    state: str  # rest, requested, collected or returned
    queued: int  # requests that wait behind the present command
    record: Mapping[str, Any] = field(repr=False)  # its status; empty before the first command
    heartbeat: Mapping[str, Any] = field(repr=False)  # what its device says of itself

    @property
    def busy(self) -> bool:
        """Whether a program waits or runs there."""
        return self.state != "rest"


def boards_of(client: Client) -> list[Board]:
    """All that are known, in the order of their names; ``client`` hears everybody, and ``boards``.

    Takes a moment: until the broker has said what it keeps.
    """
    client.ask_coordinator()
    seen = Kept()
    seen.hear(client, until_boards=True)
    found = []
    for name in sorted(seen.users):
        record, beat = seen.records.get(name), seen.beats.get(name)
        state = State(record["state"] if record else 0).name.lower()
        queued = record["queued"] if record else 0
        online = is_online(name, beat, seen.boards)
        found.append(Board(name, online, state, queued, dict(record or {}), dict(beat or {})))
    return found
