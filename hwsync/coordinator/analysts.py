"""Who analyses: what analysts offer now, as they have said it; kept in memory alone.

The law: it needs no disk, and moves no record: ``protocol.offers`` says what follows. What cannot
be heard is counted and said in the log, and nothing is answered: nobody waits for an answer there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hwsync.coordinator.schedule import Clock
from hwsync.protocol import offers
from hwsync.protocol.errors import Refused
from hwsync.protocol.limits import OFFLINE_AFTER_S
from hwsync.protocol.offers import Offers
from hwsync.protocol.record import Record
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.analyst import read_offer
from hwsync.transport import Connected, Delivery, Disconnected, Signal, Subscribed

log = logging.getLogger("hwsync.coordinator")

HEAR_S: Final = 10.0  # after a connect, in which the broker says what it keeps
SAY_S: Final = 60.0  # between two lines of the log about what is not heard
MOST_NAMES: Final = 100  # that the health says to be waited for


@dataclass(frozen=True, slots=True)
class AnalystFigures:
    """For the health: ``unoffered``: how many boards wait for what nobody offers, by analyser."""

    online: int = 0
    refused: int = 0
    unoffered: Mapping[str, int] = field(default_factory=dict)


NO_ANALYSTS: Final = AnalystFigures()


class Analysts:
    """``note`` is told of each signal; then ``offered`` is what somebody offers."""

    def __init__(self, topics: Topics, clock: Clock) -> None:
        self._topics, self._clock = topics, clock
        self.offers: Offers = {}
        self.offered: frozenset[str] = frozenset()
        self.refused = 0
        self._unheard: set[str] = set()  # of the connection before, not yet heard on this one
        self._forget_at: float | None = None  # monotonic
        self._gone_at: dict[str, float] = {}  # of those who repeat: where nothing is heard
        self._hears = False
        self._say_at = clock.monotonic()

    def note(self, signal: Signal) -> bool:
        """Take note of it; whether it was an analyst's word, which is nobody else's."""
        if isinstance(signal, Connected):
            self._unheard, self._forget_at = set(self.offers), None
        elif isinstance(signal, Disconnected):
            self._hears = False
        elif isinstance(signal, Subscribed):
            self._hears, now = True, self._clock.monotonic()
            self._forget_at = now + HEAR_S if self._unheard else None
            self._gone_at = dict.fromkeys(self._gone_at, now + OFFLINE_AFTER_S)
        elif isinstance(signal, Delivery):
            _, kind = self._topics.split(signal.topic)
            if kind is TopicKind.ANALYSTS:
                self._hear(signal)
                return True
        return False

    def look(self) -> tuple[str, ...]:
        """Forget who is not there any more: the broker has said all that it keeps.

        Who was silent for too long is returned: what the broker keeps of it is not true.
        """
        now = self._clock.monotonic()
        silent = tuple(name for name, at in self._gone_at.items() if self._hears and now >= at)
        for name in silent:
            log.warning("the analyst %s was silent for %g s", name, OFFLINE_AFTER_S)
        gone = set(silent)
        if self._forget_at is not None and now >= self._forget_at:
            gone |= self._unheard
            self._forget_at = None
            self._unheard.clear()
        if gone:
            self._take({name: one for name, one in self.offers.items() if name not in gone})
        return silent

    def wait(self) -> float | None:
        """Seconds until ``look`` has something to do."""
        moments = [] if self._forget_at is None else [self._forget_at]
        moments += self._gone_at.values() if self._hears else ()
        return max(min(moments) - self._clock.monotonic(), 0.0) if moments else None

    def figures(self, records: Iterable[Record]) -> AnalystFigures:
        """What the health says; ``records``: all."""
        waiting = Counter(
            one.current.analyser
            for one in records
            if one.unoffered_ticks is not None and one.current is not None
        )
        most = dict(waiting.most_common(MOST_NAMES))
        return AnalystFigures(len(self.offers), self.refused, most)

    def _hear(self, delivery: Delivery) -> None:
        analyst = self._topics.analyst_of(delivery.topic) or ""
        self._unheard.discard(analyst)
        try:
            offer = read_offer(delivery.payload)
            self._take(offers.heard(self.offers, analyst, offer))
            self._gone_at.pop(analyst, None)
            if offer.online and offer.repeats:
                self._gone_at[analyst] = self._clock.monotonic() + OFFLINE_AFTER_S
        except Refused as refusal:
            self.refused += 1
            self._take({name: one for name, one in self.offers.items() if name != analyst})
            if self._clock.monotonic() >= self._say_at:
                self._say_at = self._clock.monotonic() + SAY_S
                log.warning("an analyst is not heard: %s (%s)", refusal.message, refusal.hint)

    def _take(self, found: Offers) -> None:
        for name in found.keys() - self.offers.keys():
            log.info("the analyst %s is online", name)
        for name in self.offers.keys() - found.keys():
            log.info("the analyst %s is gone", name)
        self.offers, self.offered = found, offers.names_of(found)
        self._gone_at = {name: at for name, at in self._gone_at.items() if name in found}
