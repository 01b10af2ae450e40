"""What the daemon and a program's process say to each other until it begins (``release.py``).

The law: what the daemon knows stands in a file in memory, written by one thread at a time, whole; a
copy that is not of one writing is known by its sum. The process has it for reading only. Its own
words come through a socket that it closes before the program's first instruction: what it has said
can be neither taken back nor said anew by the program.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final

from hwsync.runner.job import Instant

SIZE: Final = 4096  # bytes
MARK, REFUSED, STARTED = 1, 2, 3  # the first word of what the process says; others mean nothing
LONGEST: Final = 64  # bytes that it says at once
NOT_YET, ARMED, DISARMED = 0, 1, 2

REASONS: Final = {
    1: "what the device knew of the time could not be read",
    2: "it was taken back before its instant",
    3: "its instant was past by more than `within`",
    4: "the coordinator was last heard more than 10 s before the instant",
    5: "the coordinator had said something that had not been heard by the instant",
    6: "the clock was not known within `within`",
    7: "the board was suspended after it had last asked for the time",
}
"""Why a program was not released, by the number that its process writes."""


def raw_ns() -> int:
    """The clock of instants: no wall clock, and nobody slews it."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@dataclass(frozen=True, slots=True)
class Released:
    """What the process said when it began. ``raw_ns``: 0 where it was ended in that moment."""

    raw_ns: int
    lab_us: int
    bound_us: int


class Page:
    """``processor``: seconds of processor time that the program may use; 0: no limit."""

    def __init__(self, processor: int) -> None:
        self.descriptor = os.memfd_create("hwsync-start", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, SIZE)
        os.fchmod(self.descriptor, 0o444)
        reader = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        # A socket, since nobody can open one by its path in /proc; each message is whole.
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._marks, self._their_marks = pair
        for end in pair:
            end.setblocking(False)
        self.theirs = (reader, self._their_marks.fileno())  # for the process
        self._lock = threading.Lock()
        self._processor = processor
        self._number = 0
        self._state = NOT_YET
        self._released: Released | None = None
        self._refusal = 0
        self.instant = Instant(0, 0)
        self._write()

    def aim(self, instant: Instant) -> None:
        """The instant, as it is known now."""
        with self._lock:
            self.instant = instant
            self._write()

    def arm(self) -> None:
        """From now on it may be released, unless it was disarmed."""
        self._become(ARMED)

    def disarm(self) -> None:
        """It is not to be released any more; it may have been."""
        self._become(DISARMED)

    def _become(self, state: int) -> None:
        with self._lock:
            self._state = max(self._state, state)
            self._write()

    def _write(self) -> None:
        if self.descriptor < 0:
            return
        self._number += 1
        now = self.instant
        words = [
            *(self._number, self._state, now.start_at_us, now.raw_ns, now.fresh_until_ns),
            *(int(now.heard), now.bound_us, now.within_us, now.drift_ppb, self._processor),
            *(now.known.lab_us, now.known.raw_ns, now.known.bound_us, now.known.grows_ppb),
            now.asleep_us,
            self._number,
        ]
        total = sum(number * word for number, word in enumerate(words, 1))
        data = [
            word.to_bytes(8, sys.byteorder, signed=True) for word in (*words, total % (1 << 62))
        ]
        os.pwrite(self.descriptor, b"".join(data), 0)

    @property
    def released(self) -> Released | None:
        """What the process said as the program began; None: it has not begun."""
        self._listen()
        return self._released

    @property
    def refusal(self) -> str:
        """Why the process did not release it; empty where it has not said so."""
        self._listen()
        return REASONS.get(self._refusal, "")

    def _listen(self) -> None:
        """Until there is nothing more now, or ever."""
        with self._lock, contextlib.suppress(OSError):
            while data := self._marks.recv(LONGEST):
                kind, *words = (
                    int.from_bytes(data[at : at + 8], sys.byteorder, signed=True)
                    for at in range(0, len(data), 8)
                )
                if kind == MARK:
                    self._released = Released(0, 0, 0)
                elif kind == STARTED:
                    self._released = Released(*words)
                elif kind == REFUSED:
                    (self._refusal,) = words

    def close(self) -> None:
        """What was read before stays known."""
        with self._lock:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                os.close(self.theirs[0])
                self._marks.close()
                self._their_marks.close()
                self.descriptor = -1
