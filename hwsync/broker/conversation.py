"""One connection of a client that has come in: its packets one after the other, and the answers.

The law: a packet is done with before the next one is read, so that who subscribes and publishes
hears himself; nothing waits for what a client takes but its own connection; whoever sends what is
no MQTT 3.1.1 is sent away (section 4.8), and so is whoever is silent for longer than its keepalive.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Final

from amqtt.adapters import ReaderAdapter, WriterAdapter  # type: ignore[import-untyped]
from amqtt.mqtt.disconnect import DisconnectPacket  # type: ignore[import-untyped]

from hwsync.broker import reading
from hwsync.broker.exchange import Exchange
from hwsync.broker.flow import Flow, acknowledgement, subscribed
from hwsync.broker.reading import Malformed, Packet, Publish, check_kind, check_size, read_packet

log = logging.getLogger("hwsync.broker")

PATIENCE: Final = 1.5  # times the keepalive (section 3.1.2.10)
BACKLOG: Final = 32 * 2**20  # bytes that a client has not taken; its messages at QoS 0 are dropped
UNTAKEN: Final = 2 * BACKLOG  # likewise; its connection ends
TOGETHER: Final = 16_384  # bytes of small packets that go out as one
LAST_S: Final = 1.0  # for a client that leaves to take its answers
QOS: Final = 0x06  # in the first byte of a PUBLISH
PINGRESP: Final = b"\xd0\0"


class Sending:
    """What goes out on one connection, in order, without keeping anybody waiting."""

    def __init__(self, writer: WriterAdapter) -> None:
        self._writer = writer
        self._parts: deque[bytes] = deque()
        self._size = 0  # bytes that are not yet taken
        self._more = asyncio.Event()
        self._ends = False
        self.too_much = asyncio.Event()

    def put(self, data: bytes) -> None:
        """Later, behind what was put before."""
        first = data[0]
        if self._size > BACKLOG and first >> 4 == reading.PUBLISH and not first & QOS:
            return
        self._parts.append(data)
        self._size += len(data)
        self._more.set()
        if self._size > UNTAKEN:
            self.too_much.set()

    def end(self) -> None:
        """Nothing more will be put: ``run`` returns when all is taken."""
        self._ends = True
        self._more.set()

    async def run(self) -> None:
        """Until ``end``, or the connection has ended."""
        while self._parts or not self._ends:
            await self._more.wait()
            self._more.clear()
            while self._parts:
                data = self._parts.popleft()
                while self._parts and len(data) < TOGETHER:
                    data += self._parts.popleft()
                self._writer.write(data)
                await self._writer.drain()
                self._size -= len(data)


class Conversation:
    """In the place of amqtt's loops; ``handler`` is amqtt's for the connection."""

    def __init__(
        self, exchange: Exchange, handler: Any, flow: Flow, reader: ReaderAdapter, limit: int,
        peer: object,
    ) -> None:  # fmt: skip
        self._exchange, self._handler, self._flow = exchange, handler, flow
        self._reader, self._limit, self._peer = reader, limit, peer
        self.farewell: DisconnectPacket | None = None  # the client's own end: no will is sent

    async def run(self) -> None:
        """Until the client leaves, is silent for too long, or sends what is no MQTT."""
        handler = self._handler
        session, self._sending = handler.session, Sending(handler.writer)
        handler._reader_ready.set()
        put = self._sending.put
        self._flow.attach(put, lambda topic: self._exchange.may_read(session, topic))
        sending, listening, too_much = jobs = [
            asyncio.ensure_future(job)
            for job in (self._sending.run(), self._listen(session), self._sending.too_much.wait())
        ]
        for job in jobs:
            job.add_done_callback(self._ended)
        try:
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            self._flow.detach(put)
            listening.cancel()
            if too_much.done():
                log.warning("%s does not take what it is sent: its connection ends", self._peer)
            else:
                self._sending.end()
                await asyncio.wait([sending], timeout=LAST_S)
        except asyncio.CancelledError:
            log.debug("%s is no longer read", self._peer)
        self._flow.detach(put)
        for job in jobs:
            job.cancel()
        # No waiting before this: amqtt may end it meanwhile, and waits for the sign.
        await handler.handle_connection_closed()
        handler._reader_stopped.set()
        await handler.stop()

    def _ended(self, job: asyncio.Future[Any]) -> None:
        error = None if job.cancelled() else job.exception()
        if isinstance(error, TimeoutError):
            log.debug("%s was silent for longer than its keepalive", self._peer)
        elif error is not None:
            log.debug("%s: %r", self._peer, error)

    async def _listen(self, session: Any) -> None:
        keepalive = session.keep_alive
        while True:
            async with asyncio.timeout(PATIENCE * keepalive if keepalive else None):
                packet = await read_packet(self._reader, self._limit, self._peer)
            if packet is None:
                return
            if packet[0] == reading.DISCONNECT:
                check_kind(packet)
                self.farewell = DisconnectPacket()
                return
            self.take(session, packet)
            await asyncio.sleep(0)  # whoever sends much does not keep the others waiting

    def take(self, session: Any, packet: Packet) -> None:
        """One packet of a client that is connected. Raises ``Malformed``."""
        check_kind(packet)
        kind, _, body = packet
        put, flow, mid = self._sending.put, self._flow, int.from_bytes(body[:2], "big")
        if kind == reading.PUBLISH:
            self._publish(session, reading.publish_of(packet))
        elif kind == reading.PUBACK:
            flow.acknowledged(mid)
        elif kind == reading.PUBREC:
            flow.released(mid)
        elif kind == reading.PUBCOMP:
            flow.completed(mid)
        elif kind == reading.PUBREL:
            if (message := flow.release(mid)) is not None:
                self._exchange.accept(session, message)
            flow.close(mid)
        elif kind == reading.SUBSCRIBE:
            filters = reading.filters_of(packet)
            put(subscribed(mid, self._exchange.subscribe(session, filters)))
            self._exchange.send_retained(session, filters)
        elif kind == reading.UNSUBSCRIBE:
            self._exchange.unsubscribe(
                session, [wanted for wanted, _ in reading.filters_of(packet)]
            )
            put(acknowledgement(0xB0, mid))
        elif kind == reading.PINGREQ:
            put(PINGRESP)
        else:
            raise Malformed(f"a packet of type {kind}")

    def _publish(self, session: Any, message: Publish) -> None:
        check_size(len(message.payload), self._limit, self._peer)
        if message.qos == 2:
            self._flow.hold(message)
            return
        self._exchange.accept(session, message)
        if message.qos:
            self._sending.put(acknowledgement(0x40, message.mid))
