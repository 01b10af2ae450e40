"""What systemd is told: READY, STATUS, WATCHDOG, STOPPING, over the socket that it names.

The law: without ``NOTIFY_SOCKET`` nothing happens, and a systemd that does not listen harms nobody.
Who calls ``beat`` says by it that its loop has completed a step just now; a loop that is stuck says
nothing, and systemd starts it anew. The variables are taken out of the environment: what a program
of a lab says is not ours.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from hwsync.logs import escape

log = logging.getLogger("hwsync.notify")

BEATS: Final = 4  # in one WATCHDOG_USEC: a step that comes late by half of it is no end
SEND_S: Final = 1.0  # for systemd to take a message; its queue may be full for a moment
STATUS_S: Final = 10.0  # between two looks whether STATUS has changed


class Notifier:
    """One service's line to systemd (sd_notify(3)). Used by one thread; raises nothing.

    ``environment``: of which NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are taken out. A loop
    calls ``status`` and ``beat`` after each step, and waits no longer than ``wait`` says.
    """

    def __init__(
        self,
        environment: MutableMapping[str, str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        variables = os.environ if environment is None else environment
        address = variables.pop("NOTIFY_SOCKET", "")
        microseconds = variables.pop("WATCHDOG_USEC", "")
        meant = variables.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._monotonic = monotonic
        self._ready = False
        self._status = ""
        self._failed = False
        self._microseconds = int(microseconds) if meant and microseconds.isdecimal() else 0
        if not address:
            self._microseconds = 0
        self._beat_at = monotonic()
        self._look_at = monotonic()

    @property
    def watched(self) -> bool:
        """Whether systemd waits for WATCHDOG=1."""
        return self._microseconds > 0

    def wait(self) -> float | None:
        """Seconds until ``beat`` or ``status`` is to be called again; None: nobody listens."""
        if not self._address:
            return None
        at = min(self._look_at, self._beat_at) if self.watched else self._look_at
        return max(at - self._monotonic(), 0.0)

    def ready(self) -> None:
        """READY=1, the first time: the service does its work from now on."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")

    def status(self, text: Callable[[], str], *, now: bool = False) -> None:
        """STATUS=, where it has changed; looked at every ``STATUS_S`` seconds, or ``now``."""
        if self._address and (now or self._monotonic() >= self._look_at):
            self._look_at = self._monotonic() + STATUS_S
            line = escape(text())
            if line != self._status:
                self._status = line
                self._send(f"STATUS={line}")

    def beat(self) -> None:
        """The loop has completed a step: WATCHDOG=1, where due.

        Before READY it also asks for more time to start: a broker that is away is waited for.
        """
        if not self.watched or self._monotonic() < self._beat_at:
            return
        self._beat_at = self._monotonic() + self._microseconds / 1e6 / BEATS
        if self._ready:
            self._send("WATCHDOG=1")
        else:
            self._send(f"WATCHDOG=1\nEXTEND_TIMEOUT_USEC={self._microseconds}")

    def stopping(self, within: float = 0.0) -> None:
        """STOPPING=1, and the seconds that it may take, where the unit's own may be too few."""
        more = f"\nEXTEND_TIMEOUT_USEC={int(within * 1e6)}" if within else ""
        self._send(f"STOPPING=1{more}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.settimeout(SEND_S)
                line.sendto(text.encode(errors="replace"), self._address)
        except (OSError, ValueError) as error:
            if not self._failed:
                log.warning("systemd cannot be told %s: %s", text.partition("\n")[0], error)
            self._failed = True
