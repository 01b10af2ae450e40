"""A connected socket as paho is given it: read in large pieces, written a whole round at once.

The law: nothing here blocks, and no error is raised before everything that came was read: a broker
that says why it ends the connection is heard, even where it takes nothing any more.

paho reads a packet in three pieces and writes each packet by itself, with a system call for each of
them. Here those are a slice and an append (docs/decisions.md, 158).
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

from hwsync.raw_clock import raw_us

PIECE: Final = 65_536  # bytes read at once: some hundred messages, and more than the kernel has
FULL: Final = 1_048_576  # bytes that wait to be written; paho keeps what is beyond
LENGTH_BYTES: Final = 4  # of a packet's length, at most

_LATER: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Channel:
    """Stands where paho has its socket. ``fill`` reads, ``flush`` writes; paho does neither."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # paho never does
        self._came, self._taken = b"", 0  # what was read, and how much of it paho has
        self.read_us = 0  # when that was, in microseconds of the raw clock
        self.is_over = False  # no more will come; what has come may still be read
        self._error: OSError | None = None  # why, unless it is in order
        self._to_write = bytearray()
        self._broken = False  # nothing can be written any more
        self._held_up = False  # TLS has to read before it can write

    @property
    def has_come(self) -> int:
        """Bytes that paho can read now."""
        return len(self._came) - self._taken

    @property
    def wants_write(self) -> bool:
        """Whether ``flush`` has something to do as soon as the socket can be written."""
        return bool(self._to_write) and not self._held_up

    @property
    def is_flushed(self) -> bool:
        """Whether everything was handed to the kernel."""
        return not self._to_write

    def fill(self) -> None:
        """Read what is there, about ``PIECE`` bytes of it; the socket is readable, or may be."""
        self._held_up = False
        pieces = [self._came[self._taken :]]
        size = 0
        try:
            while size < PIECE:
                piece = self.sock.recv(PIECE)
                if not piece:
                    self.is_over = True
                    break
                pieces.append(piece)
                size += len(piece)
                if not self._has_more:
                    break
        except _LATER:
            pass
        except OSError as error:
            self.is_over, self._error = True, error
        self.read_us = raw_us()
        self._came, self._taken = b"".join(pieces), 0

    @property
    def _has_more(self) -> bool:
        """Whether TLS has decrypted more than was read: the socket would not say so."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def flush(self) -> None:
        """Write as much as the kernel takes. An error shows when everything that came was read."""
        try:
            while self._to_write:
                with memoryview(self._to_write) as view:
                    sent = self.sock.send(view)
                del self._to_write[:sent]
        except ssl.SSLWantReadError:
            self._held_up = True
        except _LATER:
            pass
        except OSError:
            self._broken = True
            self._to_write.clear()

    def packet(self) -> tuple[int, bytes, int] | None:
        """The next packet: its first byte, all behind its length, and its size in bytes.

        None: it is not whole, or paho says what is wrong with it. It stays until ``skip``.
        Source: MQTT 3.1.1 and 5, section 2.1.4 (remaining length).
        """
        came, start = self._came, self._taken
        length = 0
        for number, byte in enumerate(came[start + 1 : start + 1 + LENGTH_BYTES]):
            length |= (byte & 0x7F) << 7 * number
            if not byte & 0x80:
                begin = start + 2 + number
                end = begin + length
                return (came[start], came[begin:end], end - start) if end <= len(came) else None
        return None

    def skip(self, size: int) -> None:
        """Pass over so many bytes of what has come: paho need not see them."""
        self._taken += size

    # What paho calls.

    def recv(self, size: int) -> bytes:
        """Of what has come. Raises ``BlockingIOError`` where nothing has, ``OSError`` at an end."""
        piece = self._came[self._taken : self._taken + size]
        if piece:
            self._taken += len(piece)
            return piece
        if not self.is_over:
            raise BlockingIOError
        if self._error is not None:
            raise self._error
        return b""

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Note it for ``flush``. Raises ``BlockingIOError`` where too much waits already."""
        if len(self._to_write) >= FULL:
            raise BlockingIOError
        if not self._broken:
            self._to_write += data
        return len(data)

    def pending(self) -> int:
        """Bytes that have come and were not read, as an ``SSLSocket`` says it."""
        return self.has_come

    def setblocking(self, _: bool) -> None:
        """Nothing: it never blocks, whatever paho wants."""

    def fileno(self) -> int:
        """The socket's."""
        return self.sock.fileno()

    def close(self) -> None:
        """Write what can be written at once (paho closes right after its DISCONNECT); the end."""
        if self.sock.fileno() >= 0:
            self.flush()
            self.sock.close()
