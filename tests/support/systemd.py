"""The other end of sd_notify: a socket that keeps what a service says."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path
from typing import Self

from tests.support.waiting import PATIENCE, wait_until


class Listener:
    """A datagram socket at a path, or an abstract one where no folder is given."""

    def __init__(self, folder: Path | None = None) -> None:
        self.address = f"@hwsync-test-{secrets.token_hex(6)}" if folder is None else f"{folder}/s"
        self.said: list[str] = []  # lines, in order
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1) if folder is None else self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def hear(self, seconds: float = 0.0) -> list[str]:
        """The lines that have come since the last call, or come within that time."""
        before = len(self.said)
        limit = time.monotonic() + seconds
        while True:
            # A time of 0 would be "without waiting" to Python too, but raises another error.
            self._socket.settimeout(max(limit - time.monotonic(), 0.001))
            try:
                self.said += self._socket.recv(65_536).decode().split("\n")
            except TimeoutError:
                return self.said[before:]

    def wait_for(self, line: str, timeout: float = PATIENCE, count: int = 1) -> None:
        """Wait until a line that begins so was heard that often."""

        def heard() -> bool:
            self.hear()
            return sum(said.startswith(line) for said in self.said) >= count

        wait_until(heard, timeout, lambda: f"{line!r}, heard: {self.said[-20:]}")
