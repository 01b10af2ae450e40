"""What one coordinator allows of new requests: how many a minute, how large, how many waiting.

The law: it may be less than the protocol allows and never more, and it is asked of new commands
only: a repeat is no second request. What was accepted lately is an argument, and what follows from
it is returned; nothing here has a clock (docs/protocol.md, section 4, "Limits").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.jsons import size
from hwsync.protocol.record import Moment, Record, Request


@dataclass(frozen=True, slots=True)
class Allowance:
    """For each user by itself."""

    requests_per_minute: int = 0  # 0: no limit
    max_program: int = limits.MAX_PROGRAM  # bytes of UTF-8
    max_queue: int = limits.MAX_QUEUE
    max_idle: int = limits.MAX_IDLE  # bytes

    def fits(self, request: Request) -> None:
        """Raises ``Refused`` for a program that is too large."""
        length = size(request.program)
        if length > self.max_program:
            raise Refused(
                Code.TOO_LARGE,
                f"the program has {length} bytes",
                f"this coordinator takes at most {self.max_program} bytes of UTF-8",
            )

    def has_room(self, record: Record, bytes: int) -> None:
        """Raises ``Refused`` where no further request, or none of so many bytes, may wait."""
        waiting = f"{len(record.queue)} requests wait for {record.user} already"
        full = record.queue_bytes + bytes > limits.MAX_QUEUE_BYTES
        if full:
            waiting += f", with {record.queue_bytes} bytes, and this one has {bytes}"
        if full or len(record.queue) >= min(self.max_queue, limits.MAX_QUEUE):
            raise Refused(
                Code.QUEUE_FULL,
                waiting,
                "wait until some have ended, cancel some, or reset the queue",
            )

    def counted(self, record: Record, moment: Moment) -> tuple[float, ...]:
        """When the last minute's commands were accepted, one more now; raises ``Refused``.

        Only what was accepted counts, so whoever waits as long as the hint says is accepted.
        """
        if not self.requests_per_minute:
            return ()
        now = moment.ticks
        recent = tuple(at for at in record.recent if now - at < limits.RATE_S)
        if len(recent) >= self.requests_per_minute:
            wait = math.ceil(recent[-self.requests_per_minute] + limits.RATE_S - now)
            raise Refused(
                Code.NOT_ALLOWED,
                f"more than {self.requests_per_minute} requests a minute for {record.user}",
                f"try again in {wait} s",
            )
        return (*recent, now)


FULL: Final = Allowance()  # as much as the protocol allows
