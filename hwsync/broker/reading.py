"""How the embedded broker reads: each packet whole and by itself, or the connection ends.

The law: nothing is read beyond a packet's own length, nothing of it is left over, and whoever sends
what is no MQTT 3.1.1 is sent away (its section 4.8), and so is whoever is silent for longer than
its keepalive.

Why: amqtt reads on past the end of a packet, passes over what it cannot read and takes the middle
of it for the next one, believes a topic that is no UTF-8 to be another text, and waits for ever for
what a length has promised.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from amqtt.adapters import ReaderAdapter  # type: ignore[import-untyped]
from amqtt.codecs_amqtt import read_or_raise  # type: ignore[import-untyped]
from amqtt.errors import NoDataError  # type: ignore[import-untyped]
from amqtt.mqtt.packet import MQTTFixedHeader  # type: ignore[import-untyped]

log = logging.getLogger("hwsync.broker")

FRAME: Final = 65_536  # bytes of a packet, or a websocket's message, beyond the payload
FIRST_PACKET: Final = (
    100_000  # bytes of a CONNECT: ids and passwords are short, a will may be 64 KiB
)
LENGTH_BYTES: Final = 4  # of a packet's length, at most (section 2.2.3)
LEVELS: Final = 200  # slashes of a topic or a filter, as in mosquitto: each costs time
VERSION: Final = 4  # of the protocol, in a CONNECT: 3.1.1
BRIDGE: Final = 0x80  # the bit of a version by which mosquitto's bridges say what they are
NAMES: Final = (b"\0\4MQTT", b"\0\6MQIsdp")  # of the protocol; the second is MQTT 3.1's
UNSUPPORTED: Final = b"\x20\x02\x00\x01"  # a CONNACK (MQTT 3.1.1, section 3.1.2.2)
UNSUPPORTED_5: Final = b"\x20\x03\x00\x84\x00"  # the same for MQTT 5: reason 132, no properties

CONNECT: Final = 1
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
UNSUBSCRIBE: Final = 10
PINGREQ: Final = 12
DISCONNECT: Final = 14

Packet = tuple[int, int, bytes]  # type, flags, all that follows the length

_ACKNOWLEDGEMENTS: Final = (PUBACK, PUBREC, PUBREL, PUBCOMP)
_EMPTY: Final = (PINGREQ, DISCONNECT)
_FLAGS: Final = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}  # all others have none

# The flags of a CONNECT.
_RESERVED: Final = 0x01
_WILL: Final = 0x04
_WILL_QOS: Final = 0x18
_WILL_RETAIN: Final = 0x20
_PASSWORD: Final = 0x40
_NAME: Final = 0x80


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


@dataclass(frozen=True, slots=True)
class Publish:
    """A message as it came; ``mid`` 0: at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    mid: int = 0


def check_connect(packet: Packet) -> None:
    """Raises ``Malformed`` where a CONNECT of version 3.1.1 is not exactly one (section 3.1)."""
    body = packet[2]
    flags, place = body[7], 10
    will_qos = (flags & _WILL_QOS) >> 3
    if flags & _RESERVED or will_qos == 3:
        raise Malformed(f"a CONNECT with the flags {flags:#x}")
    if not flags & _WILL and flags & (_WILL_QOS | _WILL_RETAIN):
        raise Malformed("the flags of a will, and no will")
    if flags & _PASSWORD and not flags & _NAME:
        raise Malformed("a password without a name")
    _, place = _text(body, place)
    if flags & _WILL:
        topic, place = _text(body, place)
        check_topic(topic)
        place = _skipped(body, place)
    if flags & _NAME:
        _, place = _text(body, place)
    if flags & _PASSWORD:
        place = _skipped(body, place)
    if place != len(body):
        raise Malformed("a CONNECT with more than it says")


def check_kind(packet: Packet) -> None:
    """Raises ``Malformed`` where a client that is connected sends no such packet."""
    kind, flags, body = packet
    if kind != PUBLISH and flags != _FLAGS.get(kind, 0):
        raise Malformed(f"the flags {flags} of a packet of type {kind}")
    if kind in _ACKNOWLEDGEMENTS:
        sound = len(body) == 2 and any(body)
    elif kind in _EMPTY:
        sound = not body
    else:
        sound = kind in (PUBLISH, SUBSCRIBE, UNSUBSCRIBE)
    if not sound:
        raise Malformed(f"a packet of type {kind} with {len(body)} bytes")


def publish_of(packet: Packet) -> Publish:
    """What a PUBLISH says (MQTT 3.1.1, section 3.3). Raises ``Malformed``: the connection ends."""
    _, flags, body = packet
    qos = flags >> 1 & 3
    topic, place = _text(body, 0)
    check_topic(topic)
    if qos == 3 or (flags & 8 and not qos):
        raise Malformed(f"a PUBLISH with the flags {flags:#x}")
    mid = 0
    if qos:
        mid = int.from_bytes(body[place : place + 2], "big")
        place += 2
        if not mid or place > len(body):
            raise Malformed("no packet identifier")
    return Publish(topic, body[place:], qos, bool(flags & 1), mid)


def filters_of(packet: Packet) -> list[tuple[str, int]]:
    """(filter, QoS) of a SUBSCRIBE or, with 0, of an UNSUBSCRIBE. Raises ``Malformed``."""
    kind, _, body = packet
    found, place = [], 2
    if len(body) < 5 or not any(body[:2]):
        raise Malformed("no filter, or no packet identifier")
    while place < len(body):
        wanted, place = _text(body, place)
        check_filter(wanted)
        qos = 0
        if kind == SUBSCRIBE:
            if not b"\0" <= body[place : place + 1] <= b"\2":
                raise Malformed("no QoS, or one above 2")
            qos = body[place]
            place += 1
        found.append((wanted, qos))
    return found


def check_topic(topic: str) -> None:
    """Raises ``Malformed`` where nobody can publish on it (section 4.7)."""
    if not topic or set(topic) & {"+", "#"} or topic.count("/") > LEVELS:
        raise Malformed(f"the topic {topic[:80]!r}")


def check_filter(wanted: str) -> None:
    """Raises ``Malformed`` where nobody can subscribe to it (section 4.7)."""
    levels = wanted.split("/")
    wild = any(set(level) & {"+", "#"} and len(level) > 1 for level in levels)
    if not wanted or wanted.count("/") > LEVELS or wild or "#" in levels[:-1]:
        raise Malformed(f"the filter {wanted[:80]!r}")


def _text(body: bytes, place: int) -> tuple[str, int]:
    """(a text of MQTT, where it ends); one that mosquitto takes too (section 1.5.3)."""
    end = _skipped(body, place)
    try:
        text = body[place + 2 : end].decode()
    except UnicodeDecodeError:
        raise Malformed("a text that is not UTF-8") from None
    if not text.isprintable() and any(map(_is_control, text)):
        raise Malformed("a text with a control character")
    return text, end


def _skipped(body: bytes, place: int) -> int:
    """Where a field with its length ends."""
    end = place + 2 + int.from_bytes(body[place : place + 2], "big")
    if end > len(body) or place + 2 > len(body):
        raise Malformed("a field that is cut")
    return end


def _is_control(character: str) -> bool:
    """Or none at all: U+FFFE, U+FFFF and their like."""
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
