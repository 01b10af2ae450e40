"""What this board knows of lab time: it asks, hears, and estimates (docs/protocol.md, section 6).

The law: what is estimated and when to ask is decided in ``protocol.device``; here stand the board's
clocks and the network. Nothing is known that the machine may have slept over: each look compares
how long it was suspended. Whoever begins programs at an instant reads ``estimate`` (an offset, a
bound, and how both go on), ``newest`` and ``seen`` at any time, and says with
``announced`` and ``awaits`` that he will need them.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

from hwsync.protocol.device.asking import Asking
from hwsync.protocol.device.clock import SUSPENDED_US, Estimate, Estimator
from hwsync.protocol.jsons import Micros
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.clock import encode_question, read_answer

log = logging.getLogger("hwsync.device")

NUMBERS: Final = 2**53  # that ``n`` is drawn from


class Surroundings(Protocol):
    """What is needed of an ``environment.Environment``."""

    def raw_us(self) -> int:
        """Microseconds of a clock that nobody sets or slews."""

    def asleep_us(self) -> int:
        """Microseconds that this boot was suspended."""

    def is_slewed(self) -> bool:
        """Whether the raw clock may be slewed after all."""

    def random(self) -> float:
        """A number from 0 to 1."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> bool:
        """Have it sent; False where there is no connection."""


class BoardClock:
    """One board's, in one life of its daemon; for one thread (``instants.LabClock``)."""

    def __init__(self, user: str, topics: Topics, surroundings: Surroundings) -> None:
        self._topic = topics.of(user, TopicKind.CLOCK)
        self._surroundings = surroundings
        self._slewed = surroundings.is_slewed()
        self._asking = Asking()
        self._estimator = Estimator(self._slewed)

    # -- for whoever wants to know the time ----------------------------------------------------

    @property
    def life(self) -> str:
        """Whose time is known; empty: none is."""
        return self._estimator.life

    @property
    def newest(self) -> int | None:
        """When the newest question that was answered was asked, in raw microseconds."""
        return self._asking.newest

    @property
    def seen(self) -> tuple[int, int] | None:
        """(epoch, seq) of this user's record, as that answer said it."""
        return self._asking.seen

    @property
    def asleep_us(self) -> int:
        """How long this boot had been suspended at the newest sample, in microseconds."""
        return self._estimator.asleep

    def estimate(self) -> Estimate | None:
        """As of now; None: nothing is known, or the machine was suspended since."""
        return self._estimator.estimate(self._surroundings.raw_us(), self._surroundings.asleep_us())

    def announced(self, *, together: bool) -> None:
        """A start is to come; ``together``: many boards hear so at the same time."""
        self._asking.announced(self._surroundings.raw_us(), together)

    def awaits(self, instant: int | None) -> None:
        """When it comes, in raw microseconds; None: there is none any more."""
        self._asking.awaits(instant, self._surroundings.raw_us())

    def presence(self) -> dict[str, Any] | None:
        """What the heartbeat says of it."""
        estimate, newest = self.estimate(), self.newest
        if estimate is None or newest is None:
            return None
        return {
            "bound": round(estimate.bound / 1e6, 6),
            "offset": Micros(estimate.offset),
            "drift_ppm": estimate.drift / 1_000,
            "samples": self._estimator.samples,
            "age": round((self._surroundings.raw_us() - newest) / 1e6, 3),
            "life": estimate.life,
            **({"slewed": True} if self._slewed else {}),
        }

    # -- for the daemon's loop -----------------------------------------------------------------

    @property
    def in_burst(self) -> bool:
        """Whether more questions follow at once."""
        return self._asking.in_burst

    def connected(self) -> None:
        """Answers will be heard from now on."""
        self._asking.connected(self._surroundings.raw_us())

    def disconnected(self) -> None:
        """Nobody can be asked."""
        self._asking.disconnected()

    def tick(self) -> float | None:
        """Ask, where that is due; seconds until the next question, None: there is none."""
        asking, now = self._asking, self._surroundings.raw_us()
        if asking.is_due(now):
            n = int(self._surroundings.random() * NUMBERS)
            asleep = self._surroundings.asleep_us()
            now = self._surroundings.raw_us()  # the last thing before it is sent
            asking.asked(n, now, asleep)
            self._surroundings.publish(self._topic, encode_question(n, now), qos=0)
        return None if asking.next is None else max(asking.next - now, 0) / 1e6

    def heard(self, payload: bytes, read_us: int) -> bool:
        """An answer came, and was read from the socket then; whether anybody waits for it."""
        answer = read_answer(payload)
        if answer is None:
            return False
        n, t0 = answer["n"], answer["t0"]
        epoch, seq = answer["seen"]
        newest = self.newest
        then = self._asking.answered(n, t0, (epoch, seq))
        if then is None:
            return False
        asleep, life = self._surroundings.asleep_us(), answer["life"]
        overtaken = newest is not None and t0 < newest and life != self.life
        if abs(asleep - then) <= SUSPENDED_US and not overtaken:
            before = self.life
            took = self._estimator.add(t0, answer["t1"], answer["t2"], read_us, life, asleep)
            if not took:
                log.warning("an answer to what time it is contradicts itself; it does not count")
            elif before not in ("", life):
                log.info("lab time began a new life: its old samples count no more")
        return True
