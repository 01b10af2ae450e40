"""A board that has another name than before: under which name the results in its journal are told.

The law: a result is told under the name that its command was sent to, or not at all. Under another
one it would belong to no command. It is told once a status of that name was heard on this
connection: the broker lets us see it then, and the coordinator will say what is settled. Until
then it stays in the journal, the heartbeat counts it, and the log says so once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, Protocol

from hwsync.device.journal import JournalEntry
from hwsync.protocol import limits
from hwsync.protocol.wire.status import StatusHead

log = logging.getLogger("hwsync.device")

NAMES: Final = 16  # names whose statuses are listened to: a board that has had more is no board


class Clock(Protocol):
    """The board's clock that never jumps."""

    def monotonic(self) -> float:
        """Seconds."""


class Former:
    """The names that the board ``user`` had before, the latest first."""

    def __init__(self, user: str, names: Iterable[str], clock: Clock) -> None:
        others = dict.fromkeys(name for name in names if name != user)
        self.names = tuple(islice(others, NAMES))
        self._user = user
        self._clock = clock
        self._received_from: set[str] = set()  # on this connection
        self._logged: set[str] = set()
        self._report_at: float | None = None

    def begin(self) -> None:
        """A new connection: no status of a former name was heard on it yet."""
        self._received_from.clear()
        if self.names:
            self._report_at = self._clock.monotonic() + limits.UNKNOWN_S

    def may_publish(self, user: str) -> bool:
        """Whether a result may be published under that name now."""
        return user == self._user or user in self._received_from

    def note(self, user: str, status: StatusHead, epoch: int) -> bool:
        """A status of a former name; False: it says nothing. ``epoch``: the journal's.

        What is settled stays so within an epoch, whatever the order in which statuses come.
        """
        if user not in self.names or status.epoch < epoch:
            return False
        self._received_from.add(user)
        return True

    def waiting(self, entries: Iterable[JournalEntry]) -> Mapping[str, int]:
        """How many of these results wait, by the former name that they belong to."""
        return Counter(user for entry in entries if (user := entry.envelope.user) != self._user)

    @property
    def report_at(self) -> float | None:
        """When ``report`` is to be called, in seconds of the clock."""
        return self._report_at

    def report(self, waiting: Mapping[str, int]) -> None:
        """Say what waits under names of which nothing is heard."""
        if self._report_at is None or self._clock.monotonic() < self._report_at:
            return
        self._report_at = None
        for name, count in waiting.items():
            if name not in self._received_from and name not in self._logged:
                self._logged.add(name)
                log.error(
                    "%d results of %s, as this board was called before, wait in its journal: "
                    "nothing is heard of %s. Let this account read its status and write its "
                    "response, or start this board once more as %s",
                    *(count, name, name, name),
                )
