"""How the embedded broker reads: each packet whole and by itself, or the connection ends.

The law: nothing is read beyond a packet's own length, nothing of it is left over, and whoever sends
what is no MQTT 3.1.1 is sent away (its section 4.8), and so is whoever is silent for longer than
its keepalive. amqtt reads on past the end of a packet, passes over what it cannot read and takes
the middle of it for the next one, believes a topic that is no UTF-8 to be another text, and waits
for ever for what a length has promised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from amqtt.adapters import BufferReader, ReaderAdapter  # type: ignore[import-untyped]
from amqtt.codecs_amqtt import read_or_raise  # type: ignore[import-untyped]
from amqtt.errors import NoDataError  # type: ignore[import-untyped]
from amqtt.mqtt import packet_class  # type: ignore[import-untyped]
from amqtt.mqtt.packet import MQTTFixedHeader  # type: ignore[import-untyped]

log = logging.getLogger("hwsync.broker")

FRAME: Final = 65_536  # bytes of a packet, or a websocket's message, beyond the payload
FIRST_PACKET: Final = (
    100_000  # bytes of a CONNECT: ids and passwords are short, a will may be 64 KiB
)
LENGTH_BYTES: Final = 4  # of a packet's length, at most (section 2.2.3)
UNDER_WAY: Final = 1_000  # packets of one client that wait for its answer
PATIENCE: Final = 1.5  # times the keepalive (section 3.1.2.10)
VERSION: Final = 4  # of the protocol, in a CONNECT: 3.1.1
BRIDGE: Final = 0x80  # the bit of a version by which mosquitto's bridges say what they are
NAMES: Final = (b"\0\4MQTT", b"\0\6MQIsdp")  # of the protocol; the second is MQTT 3.1's
UNSUPPORTED: Final = b"\x20\x02\x00\x01"  # a CONNACK (MQTT 3.1.1, section 3.1.2.2)
UNSUPPORTED_5: Final = b"\x20\x03\x00\x84\x00"  # the same for MQTT 5: reason 132, no properties

CONNECT: Final = 1
PUBLISH: Final = 3
SUBSCRIBE: Final = 8
UNSUBSCRIBE: Final = 10

Packet = tuple[int, int, bytes]  # type, flags, all that follows the length

_HANDLERS: Final = {
    PUBLISH: "handle_publish",
    4: "handle_puback",
    5: "handle_pubrec",
    6: "handle_pubrel",
    7: "handle_pubcomp",
    SUBSCRIBE: "handle_subscribe",
    UNSUBSCRIBE: "handle_unsubscribe",
    12: "handle_pingreq",
    14: "handle_disconnect",
}
_LENGTHS: Final = {4: 2, 5: 2, 6: 2, 7: 2, 12: 0, 14: 0}
_FLAGS: Final = {6: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}


class Malformed(ValueError):
    """What came is no packet that a client may send here."""


async def read_packet(reader: ReaderAdapter, limit: int, peer: object) -> Packet | None:
    """The next one; None: the connection has ended. ``limit``: bytes of a payload; 0: none.

    Raises ``Malformed``.
    """
    try:
        first, length = await _head(reader)
        check_size(length - FRAME, limit, peer)  # what is far above it is not even read
        body = bytes(await read_or_raise(reader, length)) if length else b""
    except NoDataError:
        return None
    return first >> 4, first & 0x0F, body


async def read_connect(reader: ReaderAdapter) -> Packet | None:
    """The first packet of a connection; None: it has ended. Raises ``Malformed``."""
    try:
        first, length = await _head(reader)
        if first >> 4 != CONNECT:
            raise Malformed("the first packet is no CONNECT")
        if length > FIRST_PACKET:
            raise Malformed(f"a CONNECT of {length} bytes: at most {FIRST_PACKET}")
        return CONNECT, first & 0x0F, bytes(await read_or_raise(reader, length))
    except NoDataError:
        return None


async def _head(reader: ReaderAdapter) -> tuple[int, int]:
    """(the first byte, how many bytes follow the length). Raises ``Malformed``, ``NoDataError``."""
    first = (await read_or_raise(reader, 1))[0]
    length = 0
    for place in range(LENGTH_BYTES):
        byte = (await read_or_raise(reader, 1))[0]
        length |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return first, length
    raise Malformed("its length has no end")


def check_size(payload: int, limit: int, peer: object) -> None:
    """Raises ``Malformed`` above the limit, and says so."""
    if limit and payload > limit:
        log.warning(
            "a message of %d bytes from %s is above message_size_limit %d: its connection ends",
            payload, peer, limit,
        )  # fmt: skip
        raise Malformed("above message_size_limit")


def whole(packet: Packet) -> bytes:
    """The packet as it was sent."""
    kind, flags, body = packet
    return bytes(MQTTFixedHeader(kind, flags, len(body)).to_bytes() + body)


def version_of(packet: Packet) -> int:
    """Of the protocol that a CONNECT names. Raises ``Malformed`` where it is none.

    MQTT 3.1 has another name for itself; a bridge of mosquitto sets the highest bit.
    """
    kind, flags, body = packet
    for name in NAMES:
        if kind == CONNECT and not flags and body.startswith(name) and len(body) >= len(name) + 4:
            return body[len(name)]
    raise Malformed("the first packet is no CONNECT")


def refused_version(version: int) -> bytes:
    """The CONNACK for a version that is not spoken, in a form that its client reads."""
    return UNSUPPORTED_5 if version & ~BRIDGE == 5 else UNSUPPORTED


class Reading:
    """What one client sends, in the place of amqtt's own loop."""

    def __init__(self, handler: Any, limit: int, peer: object) -> None:
        self._handler, self._limit, self._peer = handler, limit, peer
        self._under_way: set[asyncio.Task[None]] = set()
        self._repeat = handler._retry_deliveries

    async def repeat(self) -> None:
        """What an earlier connection left half-way; amqtt serves nothing else for ten seconds."""
        self._begin(self._repeat())

    async def run(self) -> None:
        """Until the client leaves, is silent for too long, or sends what is no MQTT."""
        handler = self._handler
        keepalive = handler.session.keep_alive
        handler._reader_ready.set()
        try:
            while True:
                async with asyncio.timeout(PATIENCE * keepalive if keepalive else None):
                    packet = await read_packet(handler.reader, self._limit, self._peer)
                if packet is None:
                    break
                self._begin(await self._understood(packet))
        except asyncio.CancelledError:
            log.debug("%s is no longer read", self._peer)
        except TimeoutError:
            log.debug("%s was silent for longer than its keepalive", self._peer)
        except Exception as error:  # amqtt has many for what it cannot read
            log.debug("%s sends no MQTT: %r", self._peer, error)
        for task in self._under_way:
            task.cancel()
        await handler.handle_connection_closed()
        handler._reader_stopped.set()
        await handler.stop()

    async def _understood(self, packet: Packet) -> Coroutine[Any, Any, None]:
        """What amqtt does about a packet of a client that is connected. Raises ``Malformed``."""
        kind, flags, body = packet
        if kind not in _HANDLERS or _LENGTHS.get(kind, len(body)) != len(body):
            raise Malformed(f"a packet of type {kind} with {len(body)} bytes")
        if kind != PUBLISH and flags != _FLAGS.get(kind, 0):
            raise Malformed(f"the flags {flags} of a packet of type {kind}")
        if kind == PUBLISH:
            check_size(_payload_of(flags, body), self._limit, self._peer)
        elif kind in (SUBSCRIBE, UNSUBSCRIBE):
            _check_filters(body, more=int(kind == SUBSCRIBE))
        reader = BufferReader(body)
        header = MQTTFixedHeader(kind, flags, len(body))
        parsed = await packet_class(header).from_stream(reader, fixed_header=header)
        if await reader.read(1):
            raise Malformed("it has more than it says")
        act: Callable[[Any], Coroutine[Any, Any, None]]
        act = getattr(self._handler, _HANDLERS[kind])
        return act(parsed)

    def _begin(self, act: Coroutine[Any, Any, None]) -> None:
        """An answer may take as long as the client likes: what it sends next is read meanwhile."""
        task = asyncio.create_task(act)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        if len(self._under_way) > UNDER_WAY:
            raise Malformed(f"it leaves {UNDER_WAY} messages without an answer")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("amqtt failed on a packet from %s: %r", self._peer, error)


def _payload_of(flags: int, body: bytes) -> int:
    """Bytes of a PUBLISH's payload."""
    qos = flags >> 1 & 3
    topic, end = _text(body, 0)
    if qos == 3 or not topic or set(topic) & {"+", "#"}:
        raise Malformed(f"QoS {qos} on {topic[:80]!r}")
    if qos and not any(body[end : end + 2]):
        raise Malformed("no packet identifier")
    return len(body) - end - (2 if qos else 0)


def _check_filters(body: bytes, more: int) -> None:
    """``more``: bytes behind each filter."""
    place = 2
    if len(body) < 5 or not any(body[:2]):
        raise Malformed("no filter, or no packet identifier")
    while place < len(body):
        _, place = _text(body, place)
        if more and not body[place : place + 1] <= b"\2":
            raise Malformed("a QoS above 2")
        place += more
    if place != len(body):
        raise Malformed("a filter that is cut")


def _text(body: bytes, place: int) -> tuple[str, int]:
    """(a text of MQTT, where it ends)."""
    end = place + 2 + int.from_bytes(body[place : place + 2], "big")
    if end > len(body) or place + 2 > len(body):
        raise Malformed("a text that is cut")
    try:
        text = body[place + 2 : end].decode()
    except UnicodeDecodeError:
        raise Malformed("a text that is not UTF-8") from None
    if "\0" in text:
        raise Malformed("a text with a NUL")
    return text, end
