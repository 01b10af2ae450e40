"""What the embedded broker takes for a packet, and what ends a connection."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from amqtt.adapters import BufferReader

from hwsync.broker.reading import Malformed, Reading, read_packet, version_of, whole
from tests.support.fuzz_packets import connect, packet, publish, subscribe, text


class Handler:
    """amqtt's, as far as it is asked."""

    def __init__(self, data: bytes, keepalive: int = 0) -> None:
        self.reader = BufferReader(data)
        self.session = type("Session", (), {"keep_alive": keepalive})
        self._reader_ready, self._reader_stopped = asyncio.Event(), asyncio.Event()
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def act(*packet: Any) -> None:
            self.done.append(name)

        return act


def read(data: bytes, limit: int = 0) -> list[str]:
    """What the handler was told, without the end of the connection."""

    async def run() -> list[str]:
        handler = Handler(data)
        await Reading(handler, limit, "somebody").run()
        assert handler.done[-2:] == ["handle_connection_closed", "stop"]
        assert handler._reader_stopped.is_set()
        return handler.done[:-2]

    return asyncio.run(run())


PING = b"\xc0\x00"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (publish("a/b", b"x"), "publish"), (publish("ü", b"", 1, 7, 8), "publish"),
        (publish("a", b"x" * 70_000, 2, 7), "publish"), (subscribe("a/#"), "subscribe"),
        (packet(0xA2, b"\0\1\0\1a\0\1b"), "unsubscribe"), (packet(0x40, b"\0\1"), "puback"),
        (packet(0x50, b"\0\1"), "pubrec"), (packet(0x62, b"\0\1"), "pubrel"),
        (packet(0x70, b"\0\1"), "pubcomp"), (PING, "pingreq"), (b"\xe0\x00", "disconnect"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_client_may_send_is_understood(data: bytes, told: str) -> None:
    async def run() -> list[str]:
        handler = Handler(data)
        reading = Reading(handler, 0, "somebody")
        found = await read_packet(handler.reader, 0, "somebody")
        assert found is not None
        assert whole(found) == data
        await (await reading._understood(found))
        return handler.done

    assert asyncio.run(run()) == [f"handle_{told}"]


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
        packet(0x00, b""), packet(0xF0, b""), b"\xc0\xff\xff\xff\xff\x01",
        b"\xc0\x80\x80\x80\x80\x00",
    ],
    ids=lambda data: data[:20].hex(),
)  # fmt: skip
def test_what_is_no_mqtt_ends_the_connection_before_anything_else(data: bytes) -> None:
    assert read(data + PING * 3) == []


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x30\x80", b"\x30\x0a\x00\x01a", b"\x30\xff\x7f"])
def test_a_packet_that_is_cut_is_the_end(data: bytes) -> None:
    assert read(data) == []


def test_the_limit_is_the_payloads(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for qos in (0, 1):
            within, above = publish("a" * 50, b"x" * 100, qos), publish("a", b"x" * 101, qos)
            assert asyncio.run(_handled(within, 100)) == "publish"
            assert read(above, 100) == []
    assert caplog.text.count("a message of 101 bytes from somebody is above") == 2
    caplog.clear()
    assert read(b"\x30\xff\xff\xff\x7f", 100) == []  # not waited for, and not kept
    assert "above message_size_limit" in caplog.text


async def _handled(data: bytes, limit: int) -> str:
    handler = Handler(data)
    found = await read_packet(handler.reader, limit, "somebody")
    assert found is not None
    await (await Reading(handler, limit, "somebody")._understood(found))
    return handler.done[0].removeprefix("handle_")


def test_who_leaves_too_much_without_an_answer_is_sent_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hwsync.broker.reading.UNDER_WAY", 3)
    with caplog.at_level(logging.DEBUG):
        assert len(read(PING * 100)) <= 4
    assert "leaves 3 messages without an answer" in caplog.text


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
    found = asyncio.run(read_packet(BufferReader(data), 0, "somebody"))
    assert found is not None
    assert version_of(found) == version


@pytest.mark.parametrize(
    "data", [PING, b"\x10\x00", b"\x11" + connect("a")[1:], packet(0x10, b"x" * 20)]
)
def test_what_is_no_connect_is_none(data: bytes) -> None:
    found = asyncio.run(read_packet(BufferReader(data), 0, "somebody"))
    assert found is not None
    with pytest.raises(Malformed):
        version_of(found)
