"""Connections that have not logged in: how many there are, for how long, and what each may cost.

The law: whoever has not said who he is costs little memory and no descriptor for long, and keeps
nobody else out: where too many wait, the one that has waited longest is sent away, since a client
that behaves says its name at once. What is refused is counted and said once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import Any, Final

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


class Counted(asyncio.Protocol):
    """A connection that is counted before its part of TLS: asyncio shows it only after that.

    Call ``count`` first of all. ``shutdown_s``: for a client to take leave of TLS.
    """

    arrival: Arrival
    shutdown_s: float | None = None

    def count(self, arrivals: Arrivals, context: ssl.SSLContext | None) -> None:
        """There; ``context``: None for a listener without TLS."""
        self._counting, self._tls, self._shown = arrivals, context, context is None
        self._early, self._early_end = bytearray(), False  # came with the last part of TLS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.arrival = self._counting.came(transport)
        if self._tls is None:
            super().connection_made(transport)
        elif isinstance(transport, asyncio.Transport):
            transport.pause_reading()  # all of it is TLS's
            self._handshake = asyncio.ensure_future(self._secure(transport, self._tls))

    async def _secure(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, self, context, server_side=True,
                ssl_handshake_timeout=CONNECT_S, ssl_shutdown_timeout=self.shutdown_s,
            )  # fmt: skip
        except Exception as error:
            log.debug("no TLS with a connection: %r", error)
            secured = None
        if secured is None:  # also where it was sent away meanwhile
            self.arrival.over()
            transport.abort()
            return
        self._shown = True
        super().connection_made(secured)
        if self._early:
            super().data_received(bytes(self._early))
        if self._early_end:
            super().eof_received()

    def data_received(self, data: bytes) -> None:
        if self._shown:
            super().data_received(data)
        else:
            self._early += data

    def eof_received(self) -> Any:
        if self._shown:
            return super().eof_received()
        self._early_end = True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.arrival.over()
        if self._shown:
            super().connection_lost(exc)
