"""What a device must know of lab time so that it can begin a program at an instant.

The law: an instant belongs to one life of lab time, and only what was learnt in that life says when
it is; while it is waited for, it is said again at each answer and each status. Nothing is decided
here: the program's process looks at what is written for it (``runner.release``).
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from hwsync.protocol.device.asking import FRESH_US
from hwsync.protocol.device.clock import Estimate
from hwsync.protocol.wire.forms import to_micros
from hwsync.runner import Instant, Known

MICRO: Final = 1_000_000
NS: Final = 1_000  # in a microsecond


class LabClock(Protocol):
    """What is known of lab time (``lab_clock.BoardClock``)."""

    @property
    def life(self) -> str:
        """Whose time is known; empty: none is."""

    @property
    def newest(self) -> int | None:
        """When the newest question that was answered was asked, in raw microseconds."""

    @property
    def seen(self) -> tuple[int, int] | None:
        """(epoch, seq) of this user's record as it was then."""

    @property
    def asleep_us(self) -> int:
        """How long this boot had been suspended at the newest sample, in microseconds."""

    def estimate(self) -> Estimate | None:
        """As of now."""

    def announced(self, *, together: bool) -> None:
        """A start is to come; ``together``: many boards hear so at the same time."""

    def awaits(self, instant: int | None) -> None:
        """When it comes, in raw microseconds; None: there is none any more."""

    @property
    def in_burst(self) -> bool:
        """Whether more questions follow at once."""

    def presence(self) -> dict[str, Any] | None:
        """What the heartbeat says of it."""

    def connected(self) -> None:
        """Answers will be heard from now on."""

    def disconnected(self) -> None:
        """Nobody can be asked."""

    def tick(self) -> float | None:
        """Ask, where that is due; seconds until the next question, None: there is none."""

    def heard(self, payload: bytes, read_us: int) -> bool:
        """An answer came, and was read then; whether anybody waits for it."""


def is_certain(clock: LabClock, within: float, life: str) -> bool:
    """Whether lab time is known as well as a start asks for.

    ``life``: whose time its instant is in, where that is fixed already.
    """
    estimate = clock.estimate()
    if estimate is None or (life and estimate.life != life):
        return False
    return estimate.bound_at(estimate.at) < to_micros(within)


def instant(
    clock: LabClock, start_at: int, life: str, within: float, heard: tuple[int, int]
) -> Instant | None:
    """When that is, as far as is known now; None: in that life nothing is known.

    ``heard``: (epoch, seq) of the newest status.
    """
    estimate = clock.estimate()
    if estimate is None or estimate.life != life:
        return None
    raw = estimate.raw_us(start_at)
    newest, seen = clock.newest, clock.seen
    return Instant(
        start_at,
        raw * NS,
        fresh_until_ns=0 if newest is None else (newest + FRESH_US) * NS,
        heard=seen is not None and seen <= heard,
        bound_us=estimate.bound_at(raw),
        within_us=to_micros(within),
        drift_ppb=estimate.drift,
        known=Known(
            *(estimate.lab_us(estimate.at), estimate.at * NS),
            *(estimate.bound_at(estimate.at), estimate.grows),
        ),
        asleep_us=clock.asleep_us,
    )
