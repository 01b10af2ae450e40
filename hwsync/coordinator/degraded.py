"""Who is told that a message cannot be stored now: each user, at most once a minute.

The law: nothing is refused. The message is not acknowledged, stays at the broker, and is tried
again; a save that fails once and works a second later is not worth a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hwsync.coordinator.deliveries import message_of
from hwsync.protocol import limits
from hwsync.protocol.effects import PublishError
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.groups import SIGN
from hwsync.protocol.record import Record, State
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.error import encode_error
from hwsync.protocol.wire.messages import named_id
from hwsync.transport import Delivery

log = logging.getLogger("hwsync.coordinator")

UNSAVED: Final = 4096 * limits.KIB  # bytes that wait here of QoS 0, which no broker keeps for us
UNSAVED_EACH: Final = limits.KIB  # what a message takes besides its payload and its topic


@dataclass(slots=True)
class Degraded:
    """One coordinator's trouble with its disk. Moments are seconds on the monotonic clock."""

    topics: Topics
    publish: Callable[[str, bytes], None]  # an error to a user's topic
    _failures: int = 0  # in a row
    _told_at: dict[str, float] = field(default_factory=dict)  # by user
    _dropped: bool = False  # whether that was said

    def room(self, waiting: Sequence[Delivery]) -> list[Delivery]:
        """Of those that wait what is kept: of QoS 0 no more than ``UNSAVED``, the oldest.

        Statuses and heartbeats always: of each topic only the newest waits.
        """
        left, kept = UNSAVED, list[Delivery]()
        for one in waiting:
            _, kind = self.topics.split(one.topic)
            free = bool(one.qos) or kind in (TopicKind.STATUS, TopicKind.HEARTBEAT)
            left -= 0 if free else len(one.payload) + len(one.topic) + UNSAVED_EACH
            if free or left >= 0:
                kept.append(one)
        if len(kept) < len(waiting) and not self._dropped:
            self._dropped = True
            log.error(
                "more than %d KiB of messages of QoS 0 wait for the database: what comes beyond is "
                "dropped; make room on the disk, and send with QoS 1",
                UNSAVED // limits.KIB,
            )
        return kept

    def report(
        self,
        waiting: Sequence[Delivery],
        records: Mapping[str, Record],
        error: Exception,
        now: float,
    ) -> None:
        """A save has failed with ``error``: from the second time on, tell those that wait.

        ``records``: by user, for the state that the error says; ``now``: monotonic seconds.
        """
        self._failures += 1
        if self._failures == 1:
            return
        for one in waiting:
            user, _ = self.topics.split(one.topic)
            last = self._told_at.get(user)
            name = user.removeprefix(SIGN)
            if not limits.is_user(name) or (last is not None and now - last < limits.DEGRADED_S):
                continue
            self._told_at[user] = now
            message = message_of(one)
            refusal = Refused(
                Code.DEGRADED,
                f"it cannot be stored now: {error}",
                "the broker keeps it and it is tried again; see df -h on the coordinator's machine",
                id=named_id(message, self.topics),
            )
            state = records[user].state if user in records else State.REST
            topic = message.topic[: limits.KEPT_TOPIC]
            self.publish(user, encode_error(PublishError(refusal, state, topic)))

    def healed(self) -> None:
        """A save has worked: the next failure is a first one again."""
        self._failures = 0
        self._told_at.clear()
        self._dropped = False
