"""Who is told that a message cannot be stored now: each user, at most once a minute.

The law: it is no refusal. The message is not acknowledged, stays at the broker, and is tried again;
a save that fails once and works a second later is not worth a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hwsync.coordinator.plan import error_json, message_of
from hwsync.protocol import limits
from hwsync.protocol.effects import PublishError
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.messages import named
from hwsync.protocol.record import Record, State
from hwsync.protocol.topics import Topics
from hwsync.transport import Delivery


@dataclass(slots=True)
class Degraded:
    """One coordinator's trouble with its disk. Moments are seconds on the monotonic clock."""

    topics: Topics
    publish: Callable[[str, bytes], None]  # an error to a user's topic
    _failures: int = 0  # in a row
    _told_at: dict[str, float] = field(default_factory=dict)  # by user

    def tell(
        self,
        waiting: Sequence[Delivery],
        records: Mapping[str, Record],
        error: Exception,
        now: float,
    ) -> None:
        """A save has failed: tell those whose messages wait."""
        self._failures += 1
        if self._failures == 1:
            return
        for one in waiting:
            user, _ = self.topics.split(one.topic)
            last = self._told_at.get(user)
            if not limits.is_user(user) or (last is not None and now - last < limits.DEGRADED_S):
                continue
            self._told_at[user] = now
            message = message_of(one)
            refusal = Refused(
                Code.DEGRADED,
                f"it cannot be stored now: {error}",
                "the broker keeps it and it is tried again; see df -h on the coordinator's machine",
                id=named(message, self.topics),
            )
            state = records[user].state if user in records else State.REST
            payload = error_json(PublishError(refusal, state), message)
            self.publish(user, payload)

    def healed(self) -> None:
        """A save has worked."""
        self._failures = 0
        self._told_at.clear()
