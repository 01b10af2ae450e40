"""amqtt's broker with seven of its faults mended (docs/decisions.md, 45).

The law: only what loses a message or a connection, or lets one in that must not come, is mended;
each method here says what amqtt does otherwise. It reaches into amqtt's inside, which setup.cfg
therefore holds to one release.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import Awaitable, Callable, ItemsView, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import websockets
from amqtt.adapters import (  # type: ignore[import-untyped]
    ReaderAdapter,
    WebSocketsReader,
    WebSocketsWriter,
    WriterAdapter,
)
from amqtt.broker import Broker  # type: ignore[import-untyped]
from amqtt.contexts import ListenerType  # type: ignore[import-untyped]

log = logging.getLogger("hwsync.broker")

LAST_MESSAGES_S: Final = 10.0  # for what a client that leaves has sent; takes milliseconds
TAKEOVER_S: Final = 5.0  # for a connection to end whose client came again; takes milliseconds
CLOSE_S: Final = 1.0  # for a websocket's client to take leave; many only close the connection
FRAME: Final = 65_536  # bytes of a websocket's message beyond the payload: a topic, headers


class Subscriptions(dict[str, list[tuple[Any, int]]]):
    """(session, QoS) by filter; whoever goes through them meets those that were there at first.

    amqtt waits for clients in the middle of such loops, while others subscribe and leave: that
    ended the connection of whoever connected at that moment, or skipped a subscriber.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))

    def items(self) -> ItemsView[str, list[tuple[Any, int]]]:  # type: ignore[override]
        """As they are now, the lists too."""
        return {filter: list(sessions) for filter, sessions in super().items()}.items()


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


class Bounded(ReaderAdapter):  # type: ignore[misc]
    """What a client sends, up to a size: amqtt asks for a message's whole payload at once."""

    def __init__(self, reader: ReaderAdapter, limit: int, peer: object) -> None:
        self._reader, self._limit, self._peer = reader, limit, peer

    async def read(self, n: int = -1) -> bytes:
        """Raises ``ValueError`` for more than the limit; amqtt then closes the connection."""
        if n > self._limit:
            log.warning(
                "a message of %d bytes from %s is above message_size_limit %d: its connection ends",
                n, self._peer, self._limit,
            )  # fmt: skip
            raise ValueError("above message_size_limit")
        return bytes(await self._reader.read(n))

    def feed_eof(self) -> None:
        """As of the reader inside."""
        self._reader.feed_eof()


@dataclass(slots=True)
class Live:
    """One connection of a client, until everything of it has ended."""

    handler: Any
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class MendedBroker(Broker):  # type: ignore[misc]
    """``limit``: bytes of one message; 0: none."""

    def __init__(self, config: dict[str, Any], limit: int) -> None:
        super().__init__(config)
        self._subscriptions = Subscriptions()
        self._limit = limit
        self._live: dict[str, Live] = {}  # by client id

    async def _create_server_instance(
        self, listener_name: str, listener_type: Any, address: str | None, port: int, ssl: Any
    ) -> Any:
        """amqtt ends a websocket at a message of 1 MiB, whatever is configured.

        And it waits ten seconds for a client's farewell, in which the whole broker does not end.
        """
        if listener_type is not ListenerType.WS:
            return await super()._create_server_instance(
                listener_name, listener_type, address, port, ssl
            )
        return await websockets.serve(
            partial(self.ws_connected, listener_name=listener_name),
            address,
            port,
            ssl=ssl,
            subprotocols=[websockets.Subprotocol("mqtt")],
            max_size=self._limit + FRAME if self._limit else None,
            close_timeout=CLOSE_S,
        )

    async def ws_connected(self, websocket: Any, listener_name: str) -> None:
        """See ``WebStream``."""
        writer = WebSocketsWriter(websocket)
        await self._client_connected(listener_name, WebStream(websocket), writer)

    async def _handle_client_session(
        self, reader: Any, writer: Any, client_session: Any, handler: Any, server: Any, name: str
    ) -> None:
        """amqtt lets the connection live on whose client came again, and its end makes it deaf.

        As MQTT says, the older connection ends first, with its will; a login that is refused ends
        nobody.
        """
        client_id = client_session.client_id
        before = self._live.get(client_id)
        if before is not None and await self._authenticate(
            client_session, self.listeners_config[name]
        ):
            await before.handler.handle_connection_closed()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(before.ended.wait(), TAKEOVER_S)
        mine = Live(handler)
        self._live[client_id] = mine
        try:
            await super()._handle_client_session(
                reader, writer, client_session, handler, server, name
            )
        finally:
            mine.ended.set()
            if self._live.get(client_id) is mine:
                del self._live[client_id]

    async def _cleanup_session(self, client_id: str) -> None:
        """amqtt empties the queue of a client that leaves at that moment, and of its end's sign.

        ``_client_message_loop`` waits for that, and the broker's end for the loop.
        """
        session, _ = self._sessions.get(client_id, (None, None))
        await super()._cleanup_session(client_id)
        if session is not None:
            session.delivered_message_queue.put_nowait(None)

    async def _client_connected(
        self, listener_name: str, reader: ReaderAdapter, writer: WriterAdapter
    ) -> None:
        """amqtt takes a message of any size."""
        if self._limit:
            reader = Bounded(reader, self._limit, writer.get_peer_info())
        await super()._client_connected(listener_name, reader, writer)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Any
    ) -> None:
        """amqtt sends whoever connects what is retained for the subscriptions of others."""
        if any(one is session for one, _ in self._subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _client_message_loop(self, client_session: Any, handler: Any) -> None:
        """amqtt drops what it has acknowledged and not yet passed on when its sender leaves."""
        messages: asyncio.Queue[Any] = client_session.delivered_message_queue

        async def serve(wait: Callable[[], Awaitable[Any]], act: Callable[..., Any]) -> None:
            while (item := await wait()) is not None:
                if await act(client_session, handler, _ready(item)) is False:
                    return  # a topic on which nobody may publish: the connection ends

        left = asyncio.ensure_future(handler.wait_disconnect())
        delivering = asyncio.ensure_future(serve(messages.get, self._handle_message_delivery))
        jobs = [
            left,
            delivering,
            *(
                asyncio.ensure_future(serve(wait, act))
                for wait, act in (
                    (handler.get_next_pending_subscription, self._handle_subscription),
                    (handler.get_next_pending_unsubscription, self._handle_unsubscription),
                )
            ),
        ]
        try:
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            await messages.put(None)  # behind the last message: the end of delivering
            await asyncio.wait([delivering], timeout=LAST_MESSAGES_S)
            end = left.result() if left.done() and not left.cancelled() else None
            await self._handle_disconnect(client_session, handler, _ready(end))
        except asyncio.CancelledError:
            log.debug("the broker ends while %s is connected", client_session.client_id)
        finally:
            for job in jobs:
                job.cancel()
            for failed in await asyncio.gather(*jobs, return_exceptions=True):
                if isinstance(failed, Exception):
                    log.debug("amqtt failed on %s: %s", client_session.client_id, failed)
            while not messages.empty():
                messages.get_nowait()


def _ready(value: object) -> asyncio.Future[Any]:
    """A future that has this result: what amqtt's handlers take."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future
