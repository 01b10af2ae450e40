"""Listeners for websockets: what they read, and which web pages may speak there.

The law: a program has no ``Origin`` and is welcome. A browser names the page that opens the
websocket: only one of this very address comes in, or one that ``websockets_origin`` names; anybody
could otherwise publish with the browser of somebody who can reach the broker. A page of a name that
its owner may point at us (DNS rebinding) is of no address of ours.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import websockets
from amqtt.adapters import WebSocketsReader  # type: ignore[import-untyped]
from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from hwsync.broker.arrivals import CONNECT_S, WEB_BYTES, Arrivals, Counted
from hwsync.broker.conf import Listener
from hwsync.broker.reading import FRAME

FAREWELL_S: Final = 1.0  # for a websocket's client to take leave; many only close the connection
PORTS: Final = {"http": 80, "https": 443}
FORBIDDEN: Final = 403


class WebStream(WebSocketsReader):  # type: ignore[misc]
    """What comes over a websocket; nothing more after its end, also of a packet that was cut.

    amqtt fills up a packet that was cut with the last frame, again and again: for ever, with the
    whole broker, where that was empty.
    """

    _stream: io.BytesIO

    async def _feed_buffer(self, n: int = 1) -> None:
        buffer = bytearray(self._stream.read())
        try:
            while len(buffer) < n:
                buffer += await self._protocol.recv(decode=False)
        except websockets.ConnectionClosed:
            buffer.clear()
        self._stream = io.BytesIO(buffer)


class WebConnection(Counted, ServerConnection):
    """One that may send only so much before it has logged in, be it HTTP, frames or fragments."""

    shutdown_s = FAREWELL_S

    def __init__(
        self, *args: Any, arrivals: Arrivals, context: ssl.SSLContext | None, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.count(arrivals, context)
        self._heard = 0

    def data_received(self, data: bytes) -> None:
        if self.arrival.waits:
            self._heard += len(data)
            if self._heard > WEB_BYTES:
                self.arrival.refuse(f"more than {WEB_BYTES} bytes")
                return
        super().data_received(data)


async def listen(
    listener: Callable[[], Listener], context: ssl.SSLContext | None, arrivals: Arrivals,
    limit: int, serve: Callable[[Any], Awaitable[None]],
) -> Server:  # fmt: skip
    """A server at ``listener()``, which says anew at each connection which pages may come.

    websockets ends a connection at a message of 1 MiB, whatever is configured, and waits ten
    seconds for a client's farewell, in which the whole broker does not end.
    """

    def admit(connection: ServerConnection, request: Request) -> Response | None:
        page = foreign(request.headers, listener().origins)
        if page is None:
            return None
        cure = f"websockets_origin {page} below the listener lets it in"
        arrivals.note("a web page", connection.remote_address, f"{page!r}; {cure}")
        return connection.respond(FORBIDDEN, f"Pages of {page} may not speak here; {cure}.\n")

    return await websockets.serve(
        serve,
        listener().address,
        listener().port,
        process_request=admit,
        create_connection=partial(WebConnection, arrivals=arrivals, context=context),  # type: ignore[arg-type]
        subprotocols=[websockets.Subprotocol("mqtt")],
        compression=None,  # 300 KB of memory for each connection, and small messages do not shrink
        max_size=limit + FRAME if limit else None,
        open_timeout=CONNECT_S,
        close_timeout=FAREWELL_S,
    )


def foreign(headers: Headers, listed: Collection[str]) -> str | None:
    """The page that opens this websocket, where it may not; None: it may."""
    origins, hosts = headers.get_all("Origin"), headers.get_all("Host")
    if not origins:
        return None
    if len(origins) == 1 and (origins[0] in listed or _own(origins[0], hosts)):
        return None
    return ", ".join(origins)[:200]


def _own(origin: str, hosts: list[str]) -> bool:
    """Whether the page comes from the address that was asked, and that one is ours for sure."""
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{hosts[0]}" if len(hosts) == 1 else "")
        usual = PORTS.get(page.scheme)
        same = (page.hostname, page.port or usual) == (asked.hostname, asked.port or usual)
    except ValueError:
        return False
    return bool(usual and same and page.hostname) and _is_near(page.hostname or "")


def _is_near(host: str) -> bool:
    """No name of the internet's, which its owner may have point at this machine."""
    near = "." not in host or host.endswith((".local", ".localhost"))
    if near or host == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
