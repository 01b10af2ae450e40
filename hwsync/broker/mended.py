"""amqtt's broker with a dozen of its faults mended (docs/decisions.md, 45).

The law: only what loses a message or a connection, or lets one in that must not come, is mended;
each method here says what amqtt does otherwise. It reaches into amqtt's inside, which setup.cfg
therefore holds to one release.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from amqtt.adapters import (  # type: ignore[import-untyped]
    BufferReader,
    ReaderAdapter,
    WebSocketsWriter,
    WriterAdapter,
)
from amqtt.broker import Broker  # type: ignore[import-untyped]
from amqtt.contexts import ListenerType  # type: ignore[import-untyped]
from amqtt.errors import MQTTError, NoDataError  # type: ignore[import-untyped]
from amqtt.mqtt.protocol.broker_handler import (  # type: ignore[import-untyped]
    BrokerProtocolHandler,
)

from hwsync.broker.arrivals import CONNECT_S, Arrival, Arrivals, Counted
from hwsync.broker.conversation import Conversation
from hwsync.broker.door import ENTRY, Door, at_the_door, owner_of
from hwsync.broker.exchange import Exchange
from hwsync.broker.reading import (
    VERSION,
    Malformed,
    check_connect,
    read_connect,
    refused_version,
    version_of,
    whole,
)
from hwsync.broker.web import WebConnection, WebStream, listen

log = logging.getLogger("hwsync.broker")

CLOSE_S: Final = 5.0  # for a client to take what it is still sent, before its connection is cut
REFUSED: Final = b"\x20\x02\x00\x05"  # a CONNACK
TAKEOVER_S: Final = 5.0  # for a connection to end whose client came again; takes milliseconds
AWAY: Final = 1_000  # clients that are away and have a session
SERVICES: Final = ("hwsync-coordinator", "hwsync-device-")  # their client ids begin so
WILL: Final = ("will_flag", "will_topic", "will_message", "will_qos", "will_retain")

_entrance: ContextVar[Entrance] = ContextVar("entrance")  # each connection is a task of its own
_arrival: ContextVar[Arrival] = ContextVar("arrival")


@dataclass(slots=True)
class Live:
    """One connection of a client, until everything of it has ended."""

    handler: Any
    session: Any = None
    work: asyncio.Task[Any] | None = None
    ending: bool = False  # its client came again, perhaps before it was served
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def end(self) -> None:
        """In order, with its will; where it hangs, without."""
        self.ending = True
        await self.handler.handle_connection_closed()
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), TAKEOVER_S)
                return
            if self.work is not None:
                self.work.cancel()
        log.warning("a connection of a client that came again does not end")


@dataclass(frozen=True, slots=True)
class Entrance:
    """One listener: its TLS, and who comes in there."""

    context: ssl.SSLContext | None
    door: Door


class StreamConnection(Counted, asyncio.StreamReaderProtocol):
    """One over TCP, as ``asyncio.start_server`` makes it."""

    def __init__(
        self,
        arrivals: Arrivals,
        context: ssl.SSLContext | None,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ) -> None:
        super().__init__(asyncio.StreamReader(), serve)
        self.count(arrivals, context)


class MendedBroker(Broker):  # type: ignore[misc]
    """``limit``: bytes of one message; 0: none. ``entrances``: by the listener's name."""

    def __init__(
        self, config: dict[str, Any], limit: int, entrances: Mapping[str, Entrance]
    ) -> None:
        super().__init__(config)
        self._entrances = entrances
        self._limit = limit
        self._arrivals = Arrivals()
        self._exchange = Exchange(self._subscriptions, self._retained_messages, self._arrivals.note)
        self._live: dict[str, Live] = {}  # by client id
        self._leaving: set[asyncio.Future[None]] = set()  # a task that nobody holds may vanish

    async def _create_server_instance(
        self, listener_name: str, listener_type: Any, address: str | None, port: int, _: Any
    ) -> Any:
        """amqtt lets clients without a certificate in where one is required.

        And it waits a minute for a client's part of TLS.
        """
        entrance = self._entrances[listener_name]
        if listener_type is ListenerType.WS:
            serve = partial(self.ws_connected, listener_name=listener_name)
            return await listen(
                lambda: entrance.door.listener, entrance.context, self._arrivals, self._limit, serve
            )
        return await asyncio.get_running_loop().create_server(
            lambda: StreamConnection(
                self._arrivals,
                entrance.context,
                partial(self.stream_connected, listener_name=listener_name),
            ),
            address,
            port,
            reuse_address=True,
        )

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """See ``arrivals``."""
        connection = writer.transport.get_protocol()
        assert isinstance(connection, StreamConnection)
        _arrival.set(connection.arrival)
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            connection.arrival.over()

    async def ws_connected(self, websocket: WebConnection, listener_name: str) -> None:
        """See ``WebStream``."""
        _arrival.set(websocket.arrival)
        writer = WebSocketsWriter(websocket)
        await self._client_connected(listener_name, WebStream(websocket), writer)

    async def _handle_client_session(
        self, reader: Any, writer: Any, client_session: Any, handler: Any, server: Any, name: str
    ) -> None:
        """amqtt lets the connection live on whose client came again, and its end makes it deaf.

        As MQTT says, the older connection ends first, with its will. Of several that come at once
        each ends the one before: amqtt mixes them up, and waits for ever for a part that was ended
        before it began. A clean session ends with its connection: amqtt keeps it.
        """
        client_id = client_session.client_id
        mine = Live(handler, client_session)
        serve = super()._handle_client_session
        before, self._live[client_id] = self._live.get(client_id), mine
        try:
            if before is not None:
                await before.end()
            if mine.ending:
                return  # it came again once more meanwhile
            mine.work = asyncio.ensure_future(
                serve(reader, writer, client_session, handler, server, name)
            )
            await asyncio.wait([mine.work])
            if not mine.work.cancelled() and (failed := mine.work.exception()) is not None:
                log.debug("amqtt failed on %s: %r", client_id, failed)
            await self._left(client_id, client_session)
        finally:
            if mine.work is not None:
                mine.work.cancel()
            mine.ended.set()
            if self._live.get(client_id) is mine:
                del self._live[client_id]

    async def _left(self, client_id: str, session: Any) -> None:
        """Of a connection that has ended nothing is left but a session that was to be kept."""
        if session.transitions.is_connected():
            session.transitions.disconnect()
        if session.clean_session and self._sessions.get(client_id, (None,))[0] is session:
            await self._delete_session(client_id)
        if session.clean_session:
            session.clear_queues()
        away = {
            name: one
            for name, (one, _) in self._sessions.items()
            if not one.transitions.is_connected()
        }
        if len(away) > AWAY:
            gone = self._to_forget(away)
            log.warning("more than %d clients are away: %s is forgotten", AWAY, gone)
            await self._delete_session(gone)

    def _to_forget(self, away: Mapping[str, Any]) -> str:
        """Of the owner who has most of them the longest absent one; an account's own id last.

        Those without an account are one owner: of theirs hwsync's own ids go last.
        """
        owners = {name: owner_of(one) for name, one in away.items()}
        counts = Counter(owners.values())
        order = sorted(
            away,
            key=lambda name: (
                -counts[owners[name]],
                not owners[name] and name.startswith(SERVICES),
                away[name].last_disconnect_time or 0,
            ),
        )
        return next((name for name in order if not self._is_reserved(name)), order[0])

    async def _authenticate(self, session: Any, _: Any) -> bool:
        """It was decided at the door."""
        return session.attributes.get(ENTRY) is not None

    @property
    def entrances(self) -> list[Entrance]:
        """In the order of the configuration."""
        return list(self._entrances.values())

    def send_away(self) -> None:
        """End the connections of those who would not come in any more."""
        for client_id, live in list(self._live.items()):
            entry = live.session.attributes.get(ENTRY)
            if entry is not None and not entry.door.still_admits(entry):
                log.info("%s may come in no more: its connection ends", client_id)
                self._leaving.add(task := asyncio.ensure_future(live.end()))
                task.add_done_callback(self._leaving.discard)

    def _owner(self, client_id: str) -> str | None:
        """The account that a client id belongs to; empty: to somebody without one."""
        if self._is_reserved(client_id):
            return client_id
        if client_id not in self._sessions:
            return None
        return owner_of(self._sessions[client_id][0])

    def _is_reserved(self, client_id: str) -> bool:
        return any(entrance.door.reserves(client_id) for entrance in self.entrances)

    async def _client_connected(
        self, listener_name: str, reader: ReaderAdapter, writer: WriterAdapter
    ) -> None:
        """amqtt keeps the socket of whoever it refuses for ever."""
        _entrance.set(self._entrances[listener_name])
        try:
            await super()._client_connected(listener_name, reader, writer)
        except Exception as error:
            log.debug("amqtt failed on a connection: %r", error)
        finally:
            await _closed(writer)

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, *address: Any
    ) -> Any:
        """amqtt waits for a CONNECT, or for the rest of one, for ever; see ``reading``.

        And it changes, or drops, the session of that name before it looks at the login; and goes on
        with one that is to end with its connection, for a client that comes to stay.
        """
        peer = writer.get_peer_info()
        try:
            async with asyncio.timeout(CONNECT_S):
                connect = await read_connect(reader)
        except (TimeoutError, Malformed) as error:
            why = str(error) or f"no CONNECT within {CONNECT_S:g} s"
            self._arrivals.note("before a login", peer, why)
            raise MQTTError(why) from None
        if connect is None:
            raise NoDataError("it left without a CONNECT")
        if (version := version_of(connect)) != VERSION:
            writer.write(refused_version(version))
            await writer.drain()
            raise MQTTError(f"it speaks version {version} of the protocol")
        check_connect(connect)
        _, asked = await BrokerProtocolHandler.init_from_connect(
            BufferReader(whole(connect)), writer, self.plugins_manager
        )
        # amqtt ends, or changes, the session of whoever's client id is named, before any login.
        door, tls = _entrance.get().door, writer.get_ssl_info()
        packet, entry = await at_the_door(whole(connect), door, tls, self._owner)
        if entry is None:
            writer.write(REFUSED)
            await writer.drain()
            raise MQTTError("its login is refused")
        _arrival.get().over()
        before = self._sessions.get(door.client_id(asked.client_id, entry), (None,))[0]
        if before is not None and before.clean_session:
            # Not ``_delete_session``: what it has sent so far is still to be passed on.
            del self._sessions[before.client_id]
            await self._del_all_subscriptions(before)
        handler, session = await super()._initialize_client_session(
            BufferReader(packet), writer, *address
        )
        session.attributes[ENTRY] = entry
        flow = self._exchange.flow(session)
        handler.will = {name: getattr(asked, name) for name in WILL}
        handler.conversation = Conversation(
            self._exchange, handler, flow, reader, self._limit, peer
        )
        handler._reader_loop, handler._retry_deliveries = handler.conversation.run, _nothing
        return handler, session

    async def _broadcast_message(
        self, session: Any, topic: str | None, data: Any, force_qos: int | None = None
    ) -> None:
        """For amqtt: a will."""
        if topic is not None:
            self._exchange.pass_on(topic, bytes(data or b""), force_qos or 0)

    async def retain_message(
        self, source: Any, topic_name: str | None, data: Any, qos: int | None = None
    ) -> None:
        """Likewise."""
        if topic_name is not None:
            self._exchange.retain(topic_name, bytes(data or b""), qos or 0)

    async def _publish_retained_messages_for_subscription(self, *_: object) -> None:
        """amqtt does so whenever a client comes back, and for the subscriptions of others too."""

    async def _handle_disconnect(self, client_session: Any, handler: Any, waiter: Any) -> None:
        """amqtt sends the will of the newer connection, and lets it pass where none may write."""
        if handler.will is not None:
            for name, value in handler.will.items():
                setattr(client_session, name, value)
        if client_session.will_flag and not self._exchange.may_write(
            client_session, client_session.will_topic
        ):
            log.info("the will of %s is dropped: it may not write there", client_session.client_id)
            client_session.will_flag = False
        await super()._handle_disconnect(client_session, handler, waiter)

    async def _client_message_loop(self, client_session: Any, handler: Any) -> None:
        """amqtt never ends a client, nor sends its will, that left at once after its CONNECT."""
        live = self._live.get(client_session.client_id)
        over = live is None or live.handler is not handler or live.ending
        if over or handler._reader_stopped.is_set():
            # It ended before amqtt had made what it waits for, and would wait for that for ever.
            await handler.handle_connection_closed()
        try:
            await handler.wait_disconnect()
            end = handler.conversation.farewell
            await self._handle_disconnect(client_session, handler, _ready(end))
        except asyncio.CancelledError:
            log.debug("the broker ends while %s is connected", client_session.client_id)


async def _nothing() -> None:
    """In the place of amqtt's repetitions: see ``Flow``."""


async def _closed(writer: WriterAdapter) -> None:
    """Close a connection; at once, where its client does not take what is still to be sent."""
    try:
        await asyncio.wait_for(writer.close(), CLOSE_S)
    except Exception as error:
        log.debug("a connection was not closed in order: %r", error)
    stream = getattr(writer, "_writer", None) or getattr(writer, "_protocol", None)
    transport = getattr(stream, "transport", None)
    if transport is not None and not transport.is_closing():
        transport.abort()


def _ready(value: object) -> asyncio.Future[Any]:
    """A future that has this result: what amqtt's handlers take."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future
