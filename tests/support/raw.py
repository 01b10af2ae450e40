"""A connection to a broker that sends whatever bytes it likes, over TCP or a websocket."""

from __future__ import annotations

import socket

from tests.support.fuzz_packets import HANDSHAKE
from tests.support.ports import LOOPBACK
from tests.support.waiting import PATIENCE


class Raw(socket.socket):
    """Over TCP, to a port of this machine."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.settimeout(PATIENCE)
        self.connect((LOOPBACK, port))

    def exactly(self, size: int) -> bytes:
        """So many bytes, or those up to the end."""
        heard = b""
        while len(heard) < size and (data := self.recv(size - len(heard))):
            heard += data
        return heard

    def until_closed(self) -> bytes:
        """All that still comes; fails the test where the broker does not close."""
        heard = b""
        try:
            while data := self.recv(4_096):
                heard += data
        except ConnectionResetError:
            pass
        return heard

    @property
    def ended(self) -> bool:
        """Whether the other side has hung up; false where something is still to be read."""
        self.setblocking(False)
        try:
            return not self.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        finally:
            self.settimeout(PATIENCE)

    def push(self, data: bytes) -> bool:
        """Send; False: the other side has hung up meanwhile."""
        try:
            self.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True


def ask_web(raw: Raw, *headers: str) -> str:
    """Ask for a websocket, with these headers more; returns the first line of the answer."""
    more = "".join(f"{header}\r\n" for header in headers).encode()
    usual = HANDSHAKE.replace(b"Host: x\r\n", b"") if b"Host:" in more else HANDSHAKE
    raw.sendall(usual.removesuffix(b"\r\n") + more + b"\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer and (data := raw.recv(1)):
        answer += data
    return answer.partition(b"\r\n")[0].decode()
