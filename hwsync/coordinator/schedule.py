"""When what is due: deadlines on a clock that runs only while connected, and envelopes sent again.

The law: a moment stays on its agenda until what follows from it is saved and another is set. Only
what is in state 1 is sent again, with growing pauses, and not to a device that is known to be away;
its heartbeat, when it comes back, brings the envelope at once (docs/protocol.md, sections 3 and 5).
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import Final, Protocol

from hwsync.protocol.device.values import pause  # one rule of pauses, which small boards have too
from hwsync.protocol.events import HeartbeatReceived
from hwsync.protocol.presence import is_outdated_will
from hwsync.protocol.record import Record, State

SPARE: Final = 64  # entries out of date that an agenda keeps before it sorts them out
WRITE_FIRST_S: Final = 1.0  # of connection, until what is left is written down: also a short life
WRITE_MOST_S: Final = 60.0  # counts; between two times at most: so much a lost life gives at most


class Clock(Protocol):
    """Both clocks, in seconds."""

    def wall(self) -> float:
        """Unix time."""

    def monotonic(self) -> float:
        """Never jumps."""


def next_writing(ticks: float) -> float:
    """When what is left of the deadlines is written down after ``ticks``, on the same clock.

    In doubling steps, so that a life of the coordinator, however short, counts by half at least.
    """
    return ticks + min(max(ticks, WRITE_FIRST_S), WRITE_MOST_S)


@dataclass(slots=True)
class ConnectedClock:
    """Seconds of connection so far (ticks): while the broker is away no deadline comes nearer.

    After each connect the deadlines are held back for ``hold_deadlines_s``: whoever finished
    meanwhile is heard first (docs/protocol.md, section 2, "Deadlines"). ``monotonic``, here and
    below: seconds, now.
    """

    hold_deadlines_s: float
    _counted: float = 0.0
    _since: float | None = None

    def connect(self, monotonic: float) -> None:
        """The connection stands and is subscribed."""
        self.disconnect(monotonic)
        self._since = monotonic

    def disconnect(self, monotonic: float) -> None:
        """The connection is gone."""
        self._counted = self.ticks(monotonic)
        self._since = None

    def ticks(self, monotonic: float) -> float:
        """The clock's reading."""
        return self._counted + (0.0 if self._since is None else monotonic - self._since)

    @property
    def runs(self) -> bool:
        """Whether the connection stands."""
        return self._since is not None

    def until(self, monotonic: float, moment: float) -> float | None:
        """Seconds until it reads ``moment``; None while disconnected."""
        return None if self._since is None else max(moment - self.ticks(monotonic), 0.0)

    def wait(self, monotonic: float, due_at: float) -> float | None:
        """Seconds until a deadline may fire; None while disconnected."""
        if self._since is None:
            return None
        return max(
            due_at - self.ticks(monotonic), self._since + self.hold_deadlines_s - monotonic, 0.0
        )


@dataclass(slots=True)
class Agenda:
    """At most one moment for each user, in seconds of any one clock.

    A moment that has come stays, and is said again, until ``set`` says another.
    """

    _moments: dict[str, float] = field(default_factory=dict)
    _heap: list[tuple[float, str]] = field(default_factory=list)  # some out of date

    def set(self, user: str, moment: float | None) -> None:
        """Look at this user at that moment, and at no other; None: at none."""
        if moment is None:
            self._moments.pop(user, None)
        elif self._moments.get(user) != moment:
            self._moments[user] = moment
            heapq.heappush(self._heap, (moment, user))
        if len(self._heap) > 2 * len(self._moments) + SPARE:
            self._heap = [(at, name) for name, at in self._moments.items()]
            heapq.heapify(self._heap)

    def nearest(self) -> float | None:
        """The earliest moment, passed or not; None: there is none."""
        while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def passed(self, moment: float) -> list[str]:
        """The users whose moment has come, the earliest first; they stay until they are set anew.

        So what could not be saved is not forgotten.
        """
        users: dict[str, float] = {}
        while (nearest := self.nearest()) is not None and nearest <= moment:
            at, user = heapq.heappop(self._heap)
            users[user] = at
        for user, at in users.items():
            heapq.heappush(self._heap, (at, user))
        return list(users)


@dataclass(slots=True)
class Resends:
    """Which envelopes are sent again, by user. Moments are seconds on the monotonic clock.

    ``schedule`` is called for each record that was saved, ``note_presence`` for each heartbeat and
    will. In each round every user of ``overdue_users`` is given to ``plan_next``, which says
    whether to send. ``dice`` shortens the pauses by chance.
    """

    dice: random.Random
    _present: dict[str, HeartbeatReceived] = field(default_factory=dict)
    _attempts: dict[str, tuple[str, int]] = field(default_factory=dict)  # id, how often so far
    _agenda: Agenda = field(default_factory=Agenda)

    def note_presence(self, user: str, heartbeat: HeartbeatReceived) -> bool:
        """Take note of a heartbeat or will; whether a device is new here, or back."""
        before = self._present.get(user)
        if is_outdated_will(before, heartbeat):
            return False
        self._present[user] = heartbeat
        if not heartbeat.online:
            return False
        known = before is not None and before.online
        return not known or (before.journal, before.boot) != (heartbeat.journal, heartbeat.boot)  # type: ignore[union-attr]

    def heard(self, user: str) -> HeartbeatReceived | None:
        """The last heartbeat or will of that user that counts; None: none came in this life."""
        return self._present.get(user)

    def is_away(self, user: str) -> bool:
        """Whether the last word of its device was that it goes."""
        heartbeat = self._present.get(user)
        return heartbeat is not None and not heartbeat.online

    def journal(self, user: str) -> str | None:
        """The journal of the device that was last heard of, which an envelope is signed for.

        None: no heartbeat of that user came in this life.
        """
        heartbeat = self._present.get(user)
        return heartbeat.journal if heartbeat else None

    def schedule(self, record: Record, now: float) -> None:
        """After a change: the first repetition of a new envelope, or none any more."""
        if record.state is not State.REQUESTED:
            self._attempts.pop(record.user, None)
            self._agenda.set(record.user, None)
        elif self._attempts.get(record.user, ("", 0))[0] != record.id:
            self._again(record, 0, now)

    def overdue_users(self, now: float) -> list[str]:
        """The users whose envelope is to be sent again now."""
        return self._agenda.passed(now)

    def plan_next(self, record: Record, now: float) -> bool:
        """Plan the next repetition; whether the device may be there to take this one."""
        self._again(record, self._attempts[record.user][1] + 1, now)
        present = self._present.get(record.user)
        return present is None or present.online

    def nearest(self) -> float | None:
        """When ``overdue_users`` has something next."""
        return self._agenda.nearest()

    def _again(self, record: Record, attempt: int, now: float) -> None:
        self._attempts[record.user] = (record.id, attempt)
        self._agenda.set(record.user, now + pause(attempt, self.dice.random()))
