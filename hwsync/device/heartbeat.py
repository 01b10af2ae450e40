"""What a board says of itself, retained, at each change and every ``HEARTBEAT_S``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from hwsync import __version__
from hwsync.device.environment import Environment
from hwsync.device.former import Former
from hwsync.device.journal import Entry
from hwsync.device.no_journal import AnyJournal
from hwsync.protocol import limits
from hwsync.protocol.device.values import State
from hwsync.protocol.topics import Kind, Topics
from hwsync.protocol.wire import encode_heartbeat

log = logging.getLogger("hwsync.device")


class Heartbeat:
    """Of the board ``user``; ``unsettled``: the results that are not known to have arrived."""

    def __init__(
        self,
        user: str,
        topics: Topics,
        journal: AnyJournal,
        outside: Environment,
        former: Former,
        unsettled: Callable[[], list[Entry]],
    ) -> None:
        self._topic = topics.of(user, Kind.HEARTBEAT)
        self._journal = journal
        self._outside = outside
        self._former = former
        self._unsettled = unsettled
        self._refusing = self._refusal()  # as the last one said
        self.at = outside.monotonic()  # seconds, of that clock

    def say(self, state: State, *, online: bool = True) -> None:
        """Publish it."""
        payload = encode_heartbeat(
            online=online,
            journal=self._journal.name,
            boot=self._journal.boot,
            seen=max(state.newest, self._journal.newest),
            version=__version__,
            busy=state.id or None,
            running=state.id if state.runs else None,
            **self._outside.presence(),
            refusing=self._refusal() or None,
            **self._of_former(),
            time=self._outside.wall(),
        )
        self._refusing = self._refusal()
        self._outside.publish(self._topic, payload, retain=True)
        self.at = self._outside.monotonic() + limits.HEARTBEAT_S

    def tick(self, state: State, now: float) -> None:
        """Publish it where it is due, or where it says something else of what is refused."""
        refusal = self._refusal()
        if self._refusing and not refusal:
            log.info("programs can be run again")
        if self.at <= now or self._refusing != refusal:
            self.say(state)

    def _refusal(self) -> str:
        return self._journal.refusal or self._outside.refusal()

    def _of_former(self) -> dict[str, Any]:
        """What waits under earlier names; looked for only where there are some."""
        waiting = self._former.waiting(self._unsettled()) if self._former.names else {}
        return {"former": dict(waiting)} if waiting else {}
