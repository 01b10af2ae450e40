"""What the embedded broker takes for a packet, and what ends a connection."""

from __future__ import annotations

import asyncio
import logging

import pytest
from amqtt.adapters import BufferReader

from hwsync.broker.reading import (
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Malformed,
    Packet,
    Publish,
    check_kind,
    filters_of,
    publish_of,
    read_packet,
    version_of,
    whole,
)
from tests.support.fuzz_packets import connect, packet, publish, subscribe, text


def read(data: bytes, limit: int = 0) -> Packet | None:
    return asyncio.run(read_packet(BufferReader(data), limit, "somebody"))


def understood(data: bytes) -> object:
    """What the packet says. Raises ``Malformed``."""
    found = read(data)
    assert found is not None
    assert whole(found) == data
    check_kind(found)
    if found[0] == PUBLISH:
        return publish_of(found)
    return filters_of(found) if found[0] in (SUBSCRIBE, UNSUBSCRIBE) else None


PING = b"\xc0\x00"
LONG = "/" * 201


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (publish("a/b", b"x"), Publish("a/b", b"x", 0, False)),
        (publish("\u00fc", b"", 1, 7, 9), Publish("\u00fc", b"", 1, True, 7)),
        (publish(LONG[1:], b"x" * 70_000, 2, 7), Publish(LONG[1:], b"x" * 70_000, 2, False, 7)),
        (subscribe("a/#"), [("a/#", 1)]), (subscribe("+/+", 2), [("+/+", 2)]),
        (packet(0x82, b"\0\1\0\1a\0\0\1b\2"), [("a", 0), ("b", 2)]),
        (packet(0xA2, b"\0\1\0\1a\0\1#"), [("a", 0), ("#", 0)]),
        *((packet(first, b"\0\1"), None) for first in (0x40, 0x50, 0x62, 0x70)),
        (PING, None), (b"\xe0\x00", None),
    ],
    ids=lambda value: value[:12].hex() if isinstance(value, bytes) else "",
)  # fmt: skip
def test_what_a_client_may_send_is_understood(data: bytes, said: object) -> None:
    assert understood(data) == said


@pytest.mark.parametrize(
    "data",
    [
        publish(b"\xff", b"x"), publish(b"\xed\xa0\x80", b"x"), publish("a\0", b"x"),
        publish("", b"x"), publish("a/+", b"x"), publish("#", b"x"), publish("a", b"x", 3),
        publish("a", b"x", 1, 0), b"\x30\x04\x00\x09ab", b"\x32\x03\x00\x01a",
        subscribe("a", 3), subscribe("a", mid=0), subscribe(b"\xff"), packet(0x80, b"\0\1\0\1a\0"),
        packet(0x82, b"\0\1"), packet(0x82, b"\0\1\0\1a"), packet(0x82, b"\0\1\0\1a\0\0"),
        packet(0xA2, b"\0\1"), packet(0xA0, b"\0\1\0\1a"), packet(0xA2, b"\0\1\0\5a"),
        packet(0x40, b"\0"), packet(0x40, b"\0\1\0"), packet(0x41, b"\0\1"), packet(0x60, b"\0\1"),
        packet(0xC0, b"x"), packet(0xC1, b""), packet(0xE0, b"x"), connect("again"),
        packet(0x20, b"\0\0"), packet(0x90, b"\0\1\0"), packet(0xB0, b"\0\1"), packet(0xD0, b""),
        packet(0x00, b""), packet(0xF0, b""), publish("a", b"x", 0, 0, 8), publish("a\x1f", b"x"),
        publish("\ufffe", b"x"), publish(LONG, b"x"), subscribe(LONG), subscribe(""),
        subscribe("a#"),
        subscribe("#/a"), subscribe("+a"), packet(0xA2, b"\0\1\0\0"), packet(0x40, b"\0\0"),
        b"\xc0\xff\xff\xff\xff\x01", b"\xc0\x80\x80\x80\x80\x00",
    ],
    ids=lambda data: data[:20].hex(),
)  # fmt: skip
def test_what_is_no_mqtt_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        understood(data)


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x30\x80", b"\x30\x0a\x00\x01a", b"\x30\xff\x7f"])
def test_a_packet_that_is_cut_is_the_end(data: bytes) -> None:
    assert read(data) is None


def test_what_is_far_above_the_limit_is_not_even_read(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(Malformed):
        read(b"\x30\xff\xff\xff\x7f", 100)
    assert "above message_size_limit 100" in caplog.text


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (connect("a"), 4),
        (connect("a", level=5, properties=b"\x05\x11\0\0\0\x3c"), 5),
        (connect("a", level=0x84), 0x84),
        (packet(0x10, text("MQIsdp") + b"\x03\2\0\0\0\0"), 3),
    ],
)
def test_a_connect_says_its_version(data: bytes, version: int) -> None:
    found = read(data)
    assert found is not None
    assert version_of(found) == version


@pytest.mark.parametrize(
    "data", [PING, b"\x10\x00", b"\x11" + connect("a")[1:], packet(0x10, b"x" * 20)]
)
def test_what_is_no_connect_is_none(data: bytes) -> None:
    found = read(data)
    assert found is not None
    with pytest.raises(Malformed):
        version_of(found)
