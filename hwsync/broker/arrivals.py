"""Connections that have not logged in: how many there are, for how long, and what each may cost.

The law: whoever has not said who he is costs little memory and no descriptor for long, and keeps
nobody else out: where too many wait, the one that has waited longest is sent away, since a client
that behaves says its name at once. What is refused is counted and said once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

log = logging.getLogger("hwsync.broker")

CONNECT_S: Final = 10.0  # for a client to say who it is, from its connection on; also for its TLS
WAITING: Final = 500  # connections; all boards of a school come at once after a power cut
WEB_BYTES: Final = 200_000  # before the login, over a websocket: HTTP's head, a CONNECT in frames
SAY_EVERY_S: Final = 60.0


class Arrival:
    """One connection, until its login is taken or it is gone."""

    def __init__(self, arrivals: Arrivals, transport: asyncio.BaseTransport) -> None:
        self._arrivals, self._transport = arrivals, transport

    @property
    def waits(self) -> bool:
        """Whether nobody knows yet who it is."""
        return self in self._arrivals.waiting

    def over(self) -> None:
        """It waits no more: it came in, or it is gone."""
        self._arrivals.waiting.pop(self, None)

    def refuse(self, why: str) -> None:
        """End it at once."""
        self.over()
        self._arrivals.note("before a login", self._transport.get_extra_info("peername"), why)
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()


class Arrivals:
    """All of a broker's, the longest waiting one first."""

    def __init__(self) -> None:
        self.waiting: dict[Arrival, None] = {}
        self._noted: dict[str, tuple[float, int]] = {}  # when it was last said, how many since

    def came(self, transport: asyncio.BaseTransport) -> Arrival:
        """A connection was made; call its ``over`` in the end."""
        if len(self.waiting) >= WAITING:
            next(iter(self.waiting)).refuse(
                f"{WAITING} others wait, and it said nothing for longer"
            )
        self.waiting[arrival := Arrival(self, transport)] = None
        return arrival

    @contextmanager
    def one(self, transport: asyncio.BaseTransport) -> Iterator[Arrival]:
        """The same, for as long as it is served."""
        arrival = self.came(transport)
        try:
            yield arrival
        finally:
            arrival.over()

    def note(self, kind: str, peer: object, why: object) -> None:
        """Count what was refused, and say it: at once, and then once a minute at most."""
        said, count = self._noted.get(kind, (None, 0))
        now, count = time.monotonic(), count + 1
        if said is not None and now - said < SAY_EVERY_S:
            self._noted[kind] = said, count
            return
        self._noted[kind] = now, 0
        more = f" ({count} since it was last said)" if count > 1 else ""
        log.warning("refused %s, %s: %s%s", kind, peer, why, more)
