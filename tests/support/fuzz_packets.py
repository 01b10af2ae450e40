"""Malformed MQTT for a broker: packets of every type, spoilt; bytes before and after a CONNECT.

Also first packets of every type and size, topics of many levels, heaps of MQTT 5's properties,
messages around the limit of a size, and sound conversations that are cut anywhere.

The law: (seed, number) decides what one connection sends, and how it ends.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tests.support.fuzz_payloads import HOSTILE

CONNACK_OK: Final = b"\x20\x02\x00\x00"
KEY: Final = base64.b64encode(b"sixteen bytes...").decode()
HANDSHAKE: Final = (
    f"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
).encode()
RUNS: Final = 6  # packets in one connection, at most
LARGEST: Final = 1_000_000  # bytes of a payload: the message_size_limit of the broker that is meant
FIRST: Final = (0, 5, 99_999, 100_000, 100_001, 200_001, 4_200_000, 268_435_455)  # bytes
LEVELS: Final = (31, 32, 33, 199, 200, 201, 202, 5_000, 32_000)  # of a topic
PROPERTIES: Final = (1, 100, 13_000, 19_990, 30_000)  # of five bytes each
PLAIN: Final = 4_096  # bytes of a frame above which its mask is zeros, since masking takes time


class End(Enum):
    """What the client does when it has sent everything."""

    HALF = "half"  # sends no more, and reads until the broker has closed
    LEAVE = "leave"  # closes
    RESET = "reset"  # closes with a reset
    STAY = "stay"  # waits for the broker to do something


@dataclass(frozen=True, slots=True)
class Attack:
    """One connection: what is sent first, the pieces after it, and how it ends."""

    websocket: bool
    connected: bool  # the first thing is a good CONNECT
    pieces: tuple[bytes, ...]
    end: End
    mute: bool = False  # it never says who it is
    kind: str = "spoilt"


# Packets


def text(value: str | bytes) -> bytes:
    """A text as MQTT has it: two bytes of length before it."""
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return min(len(data), 65_535).to_bytes(2, "big") + data[:65_535]


def remaining(length: int) -> bytes:
    """The variable number of a fixed header."""
    found = bytearray()
    while True:
        length, low = divmod(length, 128)
        found.append(low | (128 if length else 0))
        if not length:
            return bytes(found)


def packet(first: int, body: bytes) -> bytes:
    """A packet with its right length."""
    return bytes([first]) + remaining(len(body)) + body


def connect(client: str, *, level: int = 4, flags: int = 2, keepalive: int = 60,
            more: bytes = b"", properties: bytes = b"") -> bytes:  # fmt: skip
    """A CONNECT; ``flags`` 2: a clean session."""
    head = text("MQTT") + bytes([level, flags]) + keepalive.to_bytes(2, "big") + properties
    return packet(0x10, head + text(client) + more)


def publish(
    topic: str | bytes, payload: bytes, qos: int = 0, mid: int = 1, flags: int = 0
) -> bytes:
    """A PUBLISH."""
    head = text(topic) + (mid.to_bytes(2, "big") if qos else b"")
    return packet(0x30 | qos << 1 | flags, head + payload)


def subscribe(filter: str | bytes, qos: int = 1, mid: int = 2) -> bytes:
    """A SUBSCRIBE."""
    return packet(0x82, mid.to_bytes(2, "big") + text(filter) + bytes([qos]))


PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
_LENGTHS: Final = (
    b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x80\x01", b"\x80\x00", b"\x00",
    b"\xff\x7f", b"\x01", b"\x7f", b"\xff\xff\x7f",
)  # fmt: skip
_V5: Final = (b"\x05\x11\x00\x00\x00\x3c", b"\x00", b"\x03\x21\x00\x14", b"\x26\x00\x01a\x00\x01b")


class Attacker:
    """Attacks of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._dice = random.Random()

    def at(self, number: int) -> Attack:
        """The same for the same number."""
        self._dice.seed((self._seed << 40) + number)
        dice = self._dice
        roll = dice.random()
        if roll < 0.01:
            return self._mute()
        if roll < 0.3:
            return self._cut(number)
        if roll < 0.4:
            return self._first()
        websocket = dice.random() < 0.2
        connected = dice.random() < 0.6
        pieces = [self._spoilt() for _ in range(1 + int(dice.random() * RUNS))]
        if connected:
            pieces.insert(0, self._good_connect(number))
        if websocket:
            pieces = [frame(piece, dice) for piece in pieces]
            if dice.random() < 0.1:
                pieces[-1] = self._bytes(pieces[-1])
            first = HANDSHAKE if dice.random() < 0.9 else self._bytes(HANDSHAKE)
            pieces.insert(0, first)
            connected &= first == HANDSHAKE
        return Attack(websocket, connected, tuple(pieces), self._end())

    def _cut(self, number: int) -> Attack:
        """A conversation as it should be, of which only a part arrives."""
        dice, websocket = self._dice, self._dice.random() < 0.5
        topic = f"cut/{number % 7}"
        packets = [
            self._good_connect(number), subscribe(topic, dice.choice((0, 1, 2))),
            publish(topic, b"x" * dice.choice((1, 1_000, 100_000)), 0, 0, dice.choice((0, 1))),
            publish(topic, b"x", 1, 3), publish(topic, b"x", 2, 4), packet(0x62, b"\0\4"), PINGREQ,
            packet(0xA2, b"\0\5" + text(topic)), packet(0x40, b"\0\1"), packet(0x50, b"\0\2"),
            packet(0x70, b"\0\2"), DISCONNECT,
        ]  # fmt: skip
        packets = packets[: 1 + int(dice.random() * len(packets))]
        sent = b"".join(sound_frame(one) if websocket else one for one in packets)
        pieces: tuple[bytes, ...] = (sent[: int(dice.random() * (len(sent) + 1))],)
        if websocket:
            pieces = (HANDSHAKE, *pieces)
            if dice.random() < 0.1:
                pieces = (HANDSHAKE[: int(dice.random() * len(HANDSHAKE))],)
        return Attack(websocket, False, pieces, self._end(), kind="cut")

    def _first(self) -> Attack:
        """A first packet of any type that says a size, and sends so much, or a part of it."""
        dice, websocket = self._dice, self._dice.random() < 0.5
        size = dice.choice(FIRST)
        kind = 0x10 if dice.random() < 0.6 else dice.choice((0x30, 0x82, 0xC0, 0x20, 0xF0, 0x00))
        body = text("MQTT") + bytes([dice.choice((3, 4, 4, 5)), 2, 0, 60])
        if dice.random() < 0.3:
            count = dice.choice(PROPERTIES)
            body = text("MQTT") + b"\5\2\0\x3c" + remaining(5 * count) + b"\x26\0\0\0\0" * count
        sent = body + b"x" * (min(size, 250_000) - len(body))
        if dice.random() < 0.3:
            sent = sent[: int(dice.random() * len(sent))]
        data = bytes([kind]) + remaining(size) + sent
        pieces = (HANDSHAKE, sound_frame(data)) if websocket else (data,)
        return Attack(websocket, False, pieces, self._end(), kind="first")

    def _end(self) -> End:
        return self._dice.choice((End.HALF, End.HALF, End.LEAVE, End.RESET, End.STAY))

    def _mute(self) -> Attack:
        """The beginning of a CONNECT, or nothing, and then it waits."""
        websocket = self._dice.random() < 0.3
        data = connect("mute")[: int(self._dice.random() * 10)]
        if websocket:
            return Attack(True, False, (HANDSHAKE,), End.STAY, True, "mute")
        return Attack(False, False, (data,), End.STAY, True, "mute")

    def _good_connect(self, number: int) -> bytes:
        dice = self._dice
        flags, more = 2, b""
        client = f"fuzz-{number}"
        if dice.random() < 0.05:  # one that others have too, with a session
            client, flags = f"fuzz-kept-{number % 3}", 0
        if dice.random() < 0.2:  # a will
            flags |= 0x04 | dice.choice((0, 0x20, 0x08))
            more = text(self._topic()) + text(b"gone")
        return connect(client, flags=flags, more=more)

    def _topic(self) -> str | bytes:
        dice = self._dice
        if dice.random() < 0.4:
            return f"fuzz/{dice.choice(HOSTILE)}"
        if dice.random() < 0.2:
            return dice.choice(("a/", "/", "+/")) * dice.choice(LEVELS)
        return dice.choice(
            (b"fuzz/\xff\xfe", b"fuzz/\0", b"", b"#", b"fuzz/+/x", b"$SYS/x", b"/",
             b"fuzz" * 10_000, b"fuzz/#/x", b"\xed\xa0\x80", b"fuzz/" + b"/" * 500)
        )  # fmt: skip

    def _valid(self) -> bytes:
        """Some packet of some type, right in itself."""
        dice = self._dice
        mid = dice.choice((0, 1, 2, 65_535))
        choice = int(dice.random() * 12.3)
        if choice == 0:
            return connect("fuzz-again", flags=dice.choice((2, 0, 0xC2, 0x82, 0x42, 3, 0xFF)))
        if choice == 1:
            properties = dice.choice(_V5)
            return connect("fuzz-5", level=5, properties=properties)
        if choice < 5:
            payload = dice.choice((b"", b"x", b"\0" * 5_000, b"{}"))
            qos = dice.choice((0, 1, 1, 2, 3))
            return publish(self._topic(), payload, qos, mid, dice.choice((0, 1, 8, 9)) * (qos < 3))
        if choice == 5:
            return subscribe(self._topic(), dice.choice((0, 1, 2, 3, 128)), mid)
        if choice == 6:
            return packet(0xA2, mid.to_bytes(2, "big") + text(self._topic()))
        if choice == 7:  # acknowledgements of nothing
            first = dice.choice((0x40, 0x50, 0x62, 0x70, 0xB0, 0x90, 0x20))
            return packet(first, mid.to_bytes(2, "big") + b"\x01" * (first in (0x90, 0x20)))
        if choice == 8:
            return PINGREQ
        if choice == 9:
            return DISCONNECT
        if choice == 12:
            size = LARGEST + dice.choice((-1, 0, 1, 70_000))
            return publish("fuzz/large", b"x" * size, dice.choice((0, 1, 2)), mid)
        if choice == 10:
            return packet(dice.choice((0x00, 0xF0, 0xD0, 0x84, 0x81, 0xC5)), dice.randbytes(4))
        return packet(0x82, mid.to_bytes(2, "big") + text("fuzz/x") * int(dice.random() * 4))

    def _spoilt(self) -> bytes:
        dice = self._dice
        data = self._valid()
        choice = dice.random()
        if choice < 0.2:
            return data
        if choice < 0.3:
            return dice.randbytes(1 + int(dice.random() * 60))
        if choice < 0.45:  # another length than it has
            return data[:1] + dice.choice(_LENGTHS) + data[2:]
        if choice < 0.5:
            return data[:1] + remaining(max(0, len(data) + dice.randrange(-9, 9))) + data[2:]
        if choice < 0.55:
            return data + self._valid()
        return self._bytes(data)

    def _bytes(self, data: bytes) -> bytes:
        dice = self._dice
        if dice.random() < 0.4:
            return data[: int(dice.random() * len(data))]
        spoilt = bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 6))):
            spoilt[int(dice.random() * len(spoilt))] ^= 1 << int(dice.random() * 8)
        return bytes(spoilt)


def frame(data: bytes, dice: random.Random) -> bytes:
    """One websocket frame of a client, mostly as it should be."""
    first = (
        0x82 if dice.random() < 0.85 else dice.choice((0x02, 0x80, 0x81, 0x88, 0x89, 0x8A, 0xF2))
    )
    masked = dice.random() < 0.95
    size = len(data)
    if dice.random() < 0.03:
        size = dice.choice((size + 1, 2**31, 2**63 - 1))
    if size < 126:
        length = bytes([size | (0x80 if masked else 0)])
    elif size < 65_536:
        length = bytes([126 | (0x80 if masked else 0)]) + size.to_bytes(2, "big")
    else:
        length = bytes([127 | (0x80 if masked else 0)]) + size.to_bytes(8, "big")
    if not masked:
        return bytes([first]) + length + data
    if len(data) > PLAIN:
        return bytes([first]) + length + b"\0\0\0\0" + data
    mask = dice.randbytes(4)
    hidden = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
    return bytes([first]) + length + mask + hidden


def sound_frame(data: bytes) -> bytes:
    """One frame of a client, as it should be, masked with zeros."""
    return b"\x82\xff" + len(data).to_bytes(8, "big") + b"\0\0\0\0" + data
