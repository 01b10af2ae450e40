"""Which envelopes are sent again, and when: to a device that appears, and with growing pauses.

The law: only what is in state 1 is sent again, and not to a device that is known to be away; its
heartbeat, when it comes back, brings the envelope at once (docs/protocol.md, sections 3 and 5).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hwsync.coordinator.deadlines import Agenda
from hwsync.protocol.events import HeartbeatHeard
from hwsync.protocol.presence import is_outdated_will
from hwsync.protocol.record import Record, State
from hwsync.protocol.repeat import pause


@dataclass(slots=True)
class Resends:
    """By user. Moments are seconds on the monotonic clock."""

    dice: random.Random
    _present: dict[str, HeartbeatHeard] = field(default_factory=dict)
    _attempts: dict[str, tuple[str, int]] = field(default_factory=dict)  # id, how often so far
    _agenda: Agenda = field(default_factory=Agenda)

    def note_presence(self, user: str, heartbeat: HeartbeatHeard) -> bool:
        """Take note of a heartbeat or will; whether a device is new here, or back."""
        before = self._present.get(user)
        if is_outdated_will(before, heartbeat):
            return False
        self._present[user] = heartbeat
        if not heartbeat.online:
            return False
        known = before is not None and before.online
        return not known or (before.journal, before.boot) != (heartbeat.journal, heartbeat.boot)  # type: ignore[union-attr]

    def journal(self, user: str) -> str | None:
        """The journal of the device that was last heard of."""
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
