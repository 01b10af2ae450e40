"""Lab time: the coordinator's wall clock at the beginning of a *life*, and raw time since.

The law: it never jumps within a life, whatever is done to the wall clock. A restart on the same
boot of the machine goes on with the life that is stored; another boot, a suspend of the machine,
or a wall clock that is more than ``APART_US`` away begin a new one. The last does not while a start
is pending: who waits for an instant of this life is not to lose it for a clock that was set
(docs/protocol.md, section 6).

Raw time is counted in whole microseconds: a float of Unix seconds has no more than a quarter of one
left, and a small board compares digits.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Final, Protocol

from hwsync.coordinator.schedule import Clock
from hwsync.protocol.errors import StoreError
from hwsync.store.api import LabLife

log = logging.getLogger("hwsync.coordinator")

APART_US: Final = 500_000  # between lab time and wall clock, then a new life begins
SUSPENDED_US: Final = 5_000  # more than two clocks can differ that are read one after the other


class LabClock(Clock, Protocol):
    """The clocks that lab time is made of (``hwsync.raw_clock``)."""

    def raw_us(self) -> int:
        """Microseconds since some moment of this boot, which nobody sets or slews."""

    def asleep_us(self) -> int:
        """Microseconds that this boot was suspended, as near as two clocks can be compared."""

    def boot(self) -> str:
        """This boot of the machine; empty: it cannot be told from another one."""


class Lives(Protocol):
    """Where the newest life is kept; both raise ``StoreError``."""

    def life(self) -> LabLife | None:
        """The newest that was saved."""

    def save_life(self, life: LabLife) -> None:
        """Saved, and flushed to the disk."""


class LabTime:
    """One coordinator's lab time. ``look`` is called once a round; ``us`` at any time.

    ``pending``: whether a start waits for its instant; whoever decides starts sets it. ``name``
    makes the name of a life. The construction reads the database, and raises ``StoreError``.
    """

    def __init__(
        self,
        lives: Lives,
        clock: LabClock,
        name: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.pending: Callable[[], bool] = lambda: False
        self._lives, self._clock, self._name = lives, clock, name
        boot = clock.boot()
        stored = lives.life()
        goes_on = (
            stored is not None
            and stored.boot == boot != ""
            and stored.raw_us <= clock.raw_us()
            and not self._was_suspended(stored)
        )
        self._is_stored = goes_on
        self._life = stored if stored is not None and goes_on else self._new(boot)

    @property
    def life(self) -> str:
        """The name of the present life."""
        return self._life.name

    def us(self) -> int:
        """Microseconds of lab time now."""
        return self.at(self._clock.raw_us())

    def at(self, raw_us: int) -> int:
        """Microseconds of lab time at a reading of the raw clock, in the present life."""
        return self._life.wall_us + raw_us - self._life.raw_us

    @property
    def ahead_us(self) -> int:
        """By how many microseconds lab time is ahead of the wall clock now."""
        return self.us() - round(self._clock.wall() * 1_000_000)

    def look(self) -> None:
        """Begin a new life where one is due, and save what is not yet. Raises nothing.

        A life that cannot be saved counts all the same, and is tried again at the next look: where
        the process ends before, the next one begins another life, and nobody takes the two for one.
        """
        if self._was_suspended(self._life):
            self._begin("this machine was suspended")
        elif abs(self.ahead_us) > APART_US and not self.pending():
            self._begin(f"it was {self.ahead_us / 1e6:+.3f} s ahead of the wall clock")
        if not self._is_stored:
            try:
                self._lives.save_life(self._life)
                self._is_stored = True
            except StoreError as error:
                log.debug("cannot save the life of lab time: %s", error)

    def _was_suspended(self, life: LabLife) -> bool:
        return abs(self._clock.asleep_us() - life.asleep_us) > SUSPENDED_US

    def _begin(self, why: str) -> None:
        before = self._life.name
        self._life, self._is_stored = self._new(self._clock.boot()), False
        log.info("lab time begins a new life, %s after %s: %s", self._life.name, before, why)

    def _new(self, boot: str) -> LabLife:
        clock = self._clock
        wall_us, raw_us = round(clock.wall() * 1_000_000), clock.raw_us()
        return LabLife(self._name(), boot, wall_us, raw_us, clock.asleep_us())
