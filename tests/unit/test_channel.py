"""The socket that paho is given: few system calls, and nothing that came is lost."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from hwsync.transport.channel import FULL, Channel
from tests.support.waiting import wait_until
from tests.support.wires import tcp_pair


class Counted:
    """A socket; how often it was read and written."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.reads = self.writes = 0
        self.is_broken = False

    def recv(self, size: int) -> bytes:
        self.reads += 1
        return self._sock.recv(size)

    def send(self, data: memoryview) -> int:
        self.writes += 1
        try:
            return self._sock.send(data)
        except ConnectionError:
            self.is_broken = True
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket, Any]]:
    """A channel, the other end, and the channel's socket with its counts."""
    one, other = tcp_pair()
    counted: Any = Counted(one)
    channel = Channel(counted)
    yield channel, other, counted
    channel.close()
    other.close()


def test_what_came_is_read_once_and_given_in_pieces(pair: Any) -> None:
    channel, other, counted = pair
    other.sendall(b"abcdef" * 100)
    wait_until(lambda: (channel.fill(), channel.has_come)[1] == 600)
    reads = counted.reads
    assert b"".join(channel.recv(1) for _ in range(6)) == b"abcdef"
    assert channel.recv(10_000) == b"abcdef" * 99
    assert counted.reads == reads
    with pytest.raises(BlockingIOError):
        channel.recv(1)


def test_a_round_is_written_at_once(pair: Any) -> None:
    channel, other, counted = pair
    for _ in range(10):
        assert channel.send(b"packet") == 6
    assert channel.wants_write
    assert not counted.writes
    channel.flush()
    assert counted.writes == 1
    assert channel.is_flushed
    assert not channel.wants_write
    assert other.recv(1_000) == b"packet" * 10


def test_what_the_kernel_does_not_take_waits_and_has_a_limit(pair: Any) -> None:
    channel, other, _ = pair
    sent = bytearray()
    piece = bytes(range(256)) * 256

    def is_full() -> bool:
        try:
            channel.send(piece)
        except BlockingIOError:
            return True
        sent.extend(piece)
        channel.flush()
        return False

    wait_until(is_full)
    assert channel.wants_write
    assert len(sent) >= FULL
    came = bytearray()

    def has_come() -> bool:
        came.extend(other.recv(1_000_000))
        channel.flush()
        return len(came) == len(sent)

    wait_until(has_come)
    assert came == sent


def test_what_was_said_before_the_end_is_read_although_nothing_can_be_written(pair: Any) -> None:
    channel, other, counted = pair
    channel.send(b"unread")
    channel.flush()
    wait_until(lambda: other.recv(6, socket.MSG_PEEK) == b"unread")
    other.sendall(b"the reason")
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()  # a reset

    def is_broken() -> bool:
        channel.send(b"x")
        channel.flush()
        return bool(counted.is_broken)

    wait_until(is_broken)
    assert channel.send(b"dropped") == 7
    assert not channel.wants_write
    channel.fill()
    assert channel.recv(100) == b"the reason"
    channel.fill()
    assert channel.is_over
    with suppress(ConnectionError):  # the kernel tells a reset once, to whoever writes or reads
        assert channel.recv(1) == b""


def test_an_end_in_order_is_an_empty_piece(pair: Any) -> None:
    channel, other, _ = pair
    other.sendall(b"last")
    other.close()
    wait_until(lambda: (channel.fill(), channel.is_over)[1])
    assert channel.recv(10) == b"last"
    assert channel.recv(10) == b""


def test_closing_writes_what_waits(pair: Any) -> None:
    channel, other, _ = pair
    channel.send(b"DISCONNECT")
    channel.close()
    channel.close()
    assert other.recv(100) == b"DISCONNECT"
    assert other.recv(100) == b""


def test_packets_go_out_at_once(pair: Any) -> None:
    channel, _, _ = pair
    assert channel.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize(
    ("data", "packet"),
    [
        (b"", None),
        (b"\x40", None),
        (b"\x40\x02\x00", None),
        (b"\x40\x02\x00\x07", (0x40, b"\x00\x07", 4)),
        (b"\x40\x02\x00\x07\x40\x02", (0x40, b"\x00\x07", 4)),
        (b"\xd0\x00", (0xD0, b"", 2)),
        (b"\x30\x80\x01" + bytes(127), None),
        (b"\x30\x80\x01" + bytes(128), (0x30, bytes(128), 131)),
        (b"\x30\x80\x80\x80\x80\x01" + bytes(200), None),
    ],
    ids=["nothing", "no length", "cut", "whole", "and more", "empty", "long, cut", "long", "wrong"],
)
def test_a_packet_is_seen_when_it_is_whole(
    pair: Any, data: bytes, packet: tuple[int, bytes, int] | None
) -> None:
    channel, other, _ = pair
    other.sendall(b"." + data)
    wait_until(lambda: (channel.fill(), channel.has_come)[1] == len(data) + 1)
    assert channel.recv(1) == b"."
    assert channel.packet() == packet
    if packet:
        channel.skip(packet[2])
        assert channel.has_come == len(data) - packet[2]
