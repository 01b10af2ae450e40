"""Malformed MQTT for a broker: packets of every type, spoilt; bytes before and after a CONNECT.

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
        if dice.random() < 0.01:
            return self._mute()
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
        end = dice.choice((End.HALF, End.HALF, End.LEAVE, End.RESET, End.STAY))
        return Attack(websocket, connected, tuple(pieces), end)

    def _mute(self) -> Attack:
        """The beginning of a CONNECT, or nothing, and then it waits."""
        websocket = self._dice.random() < 0.3
        data = connect("mute")[: int(self._dice.random() * 10)]
        if websocket:
            return Attack(True, False, (HANDSHAKE,), End.STAY, True)
        return Attack(False, False, (data,), End.STAY, True)

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
        return dice.choice(
            (b"fuzz/\xff\xfe", b"fuzz/\0", b"", b"#", b"fuzz/+/x", b"$SYS/x", b"/",
             b"fuzz" * 10_000, b"fuzz/#/x", b"\xed\xa0\x80", b"fuzz/" + b"/" * 500)
        )  # fmt: skip

    def _valid(self) -> bytes:
        """Some packet of some type, right in itself."""
        dice = self._dice
        mid = dice.choice((0, 1, 2, 65_535))
        choice = int(dice.random() * 12)
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
    mask = dice.randbytes(4)
    hidden = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
    return bytes([first]) + length + mask + hidden
