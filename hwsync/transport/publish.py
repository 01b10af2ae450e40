"""A PUBLISH, read in linear time, and of MQTT 5's properties only what counts here.

paho unpacks properties in quadratic time: 300,000 empty user properties, which any account may
send, kept it busy for minutes. Here what does not count is stepped over by its type's length.

Source: MQTT 5, sections 1.5.5, 2.2.2 and 3.3. No sockets, and no paho.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from hwsync.protocol.limits import MAX_PROPERTIES

RESPONSE_TOPIC: Final = 8
CORRELATION_DATA: Final = 9
LENGTH_BYTES: Final = 4  # of a variable byte integer, at most


class _Form(Enum):
    """How a property's value is laid out, where that is no fixed number of bytes."""

    VARIABLE = "variable byte integer"
    TEXT = "text, or binary data"
    PAIR = "two texts"


_FORMS: Final[dict[int, int | _Form]] = {
    1: 1,  # payload format indicator
    2: 4,  # message expiry interval
    3: _Form.TEXT,  # content type
    RESPONSE_TOPIC: _Form.TEXT,
    CORRELATION_DATA: _Form.TEXT,
    11: _Form.VARIABLE,  # subscription identifier
    35: 2,  # topic alias
    38: _Form.PAIR,  # user property
}


class Malformed(ValueError):
    """What came cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Publish:
    """One message. ``trouble``: why it is passed over, for people; empty: it is whole."""

    topic: bytes
    mid: int  # 0: QoS 0
    payload: bytes = b""
    reply_topic: str = ""
    correlation: bytes = b""
    trouble: str = ""


def read_publish(qos: int, packet: bytes, *, has_properties: bool = True) -> Publish:
    """``packet``: all behind the fixed header. ``has_properties``: MQTT 5.

    Raises ``Malformed`` where not even the packet identifier can be read, so that it could not be
    acknowledged. Whatever else is wrong is its ``trouble``: the broker would bring it again at each
    connect, for ever.
    """
    topic, place = _text(packet, 0, len(packet))
    mid = 0
    if qos:
        if qos > 1:
            raise Malformed(f"QoS {qos}, which nobody has subscribed to")
        mid, place = int.from_bytes(packet[place : place + 2], "big"), place + 2
        if not mid or place > len(packet):
            raise Malformed("a message without its packet identifier")
    if not has_properties:
        return Publish(topic, mid, packet[place:], trouble="" if topic else "no topic")
    try:
        length, place = _variable(packet, place, len(packet))
        end = place + length
        if end > len(packet):
            raise Malformed("its properties are longer than itself")
        if length > MAX_PROPERTIES:
            raise Malformed(f"{length} bytes of properties, at most {MAX_PROPERTIES} are read")
        if not topic:
            raise Malformed("no topic")
        found = _properties(packet, place, end)
        reply_topic = found.get(RESPONSE_TOPIC, b"").decode()
    except UnicodeDecodeError:
        return Publish(topic, mid, trouble="its response topic is not UTF-8")
    except Malformed as error:
        return Publish(topic, mid, trouble=str(error))
    return Publish(topic, mid, packet[end:], reply_topic, found.get(CORRELATION_DATA, b""))


def _properties(packet: bytes, place: int, end: int) -> dict[int, bytes]:
    """Those that count, by identifier. Raises ``Malformed``."""
    found: dict[int, bytes] = {}
    while place < end:
        name, place = packet[place], place + 1
        form = _FORMS.get(name)
        match form:
            case None:
                raise Malformed(f"a property {name}, which no message has")
            case _Form.VARIABLE:
                _, place = _variable(packet, place, end)
            case _Form.TEXT:
                value, place = _text(packet, place, end)
                if name in (RESPONSE_TOPIC, CORRELATION_DATA):
                    if name in found:
                        raise Malformed(f"the property {name} twice")
                    found[name] = value
            case _Form.PAIR:
                place = _after_text(packet, _after_text(packet, place, end), end)
            case int():
                place += form
        if place > end:
            raise Malformed("a property that is cut")
    return found


def _text(packet: bytes, place: int, end: int) -> tuple[bytes, int]:
    """(bytes behind a length of two bytes, where they end). Raises ``Malformed``."""
    after = _after_text(packet, place, end)
    return packet[place + 2 : after], after


def _after_text(packet: bytes, place: int, end: int) -> int:
    after = place + 2 + int.from_bytes(packet[place : place + 2], "big")
    if place + 2 > end or after > end:
        raise Malformed("a text that is cut")
    return after


def _variable(packet: bytes, place: int, end: int) -> tuple[int, int]:
    """(a variable byte integer, where it ends). Raises ``Malformed``."""
    value = 0
    for number, byte in enumerate(packet[place : min(place + LENGTH_BYTES, end)]):
        value |= (byte & 0x7F) << 7 * number
        if not byte & 0x80:
            return value, place + number + 1
    raise Malformed("a length without an end")
