"""What goes wrong in a soak, when, and for how long: all drawn from one seeded generator.

The law: one fault begins at a time, several may last; each has its end planned when it begins. The
same seed plans the same faults, but the processes are real: what they meet differs from run to run.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.support.proxy import PUBACK, PUBLISH, TO_BROKER, TO_CLIENT, Proxy
from tests.support.soak_analysts import write_analyser
from tests.support.soak_lab import Part, ProgramPart, SoakLab, heal
from tests.support.soak_starts import Instants

VICTIMS: Final = (
    *("coordinator", "coordinator", "device", "device", "analyst", "analyst"),
    "broker",
)
KILL_SHARE: Final = 0.5  # of all faults
AIMED_SHARE: Final = 0.6  # of the kills wait for a program's beginning: else few hit a run
AIM_S: Final = 1.0  # how long they wait
AFTER_S: Final = (0.0, 0.25)  # from that beginning to the kill
POLL_S: Final = 0.005
VICTIMS_BEFORE: Final = ("coordinator", "coordinator", "device")
BEFORE_SHARE: Final = 0.7  # of the instants that are decided are followed by a kill
INSTANT_S: Final = 15.0  # the last kill waits for one, at most
BEFORE_S: Final = (0.0, 0.3)  # from the decision to the kill; the instant is later
BETWEEN_S: Final = (0.1, 1.5)  # from one fault's beginning to the next one's
CALM_SHARE: Final = 0.05  # of the faults are followed by a calm, so that backoffs come to an end
CALM_S: Final = (3.0, 12.0)
WRONG_CLOCK_SHARE: Final = 0.25  # of the kills of a coordinator or a device
YEAR_S: Final = 365 * 86_400.0
WRONG_S: Final = (-30 * YEAR_S, -3_600.0, 2 * 86_400.0, 10 * YEAR_S)  # without a clock chip, or so
DOWN_S: Final = {"coordinator": 1.0, "device": 2.0, "analyst": 4.0, "broker": 1.0}  # at most
CHANGE_SHARE: Final = 0.5  # of the kills of an analyst: another version of the analyser is there
PAUSE_S: Final = (0.2, 8.0)
DELAY_S: Final = (0.01, 0.3)  # of each packet
LASTS_S: Final = (0.3, 6.0)  # a delay, a hold, a partition
DROP_LASTS_S: Final = (0.2, 3.0)
DROPPED: Final = 4  # packets at most


class Storm:
    """The faults of one lab. ``step`` is called often, ``calm`` in the end."""

    def __init__(self, lab: SoakLab, seed: int, instants: Instants) -> None:
        self._lab, self._instants = lab, instants
        self._dice = random.Random(f"faults of {seed}")
        self._clocks = random.Random(f"clocks of {seed}")
        self._starts = random.Random(f"starts of {seed}")
        self._next = time.monotonic() + 1.0
        self._ends: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._busy: set[str] = set()  # proxies that have a fault
        self.counts: Counter[str] = Counter()
        self.kills = 0
        self._number = 1  # of the analyser's version
        self._aimed = False  # whether one was before an instant
        self._give_up_at = 0.0  # and when that is no longer waited for

    def step(self, kills_left: int | None = None) -> None:
        """End the faults that are over, begin one that is due.

        The last kill that is left waits for a start's instant, if there was none before.
        """
        now = time.monotonic()
        while self._ends and self._ends[0][0] <= now:
            heapq.heappop(self._ends)[2]()
        if self._instants.another(now) and self._kill_before_instant():
            return
        if kills_left == 1 and not self._aimed:
            self._give_up_at = self._give_up_at or now + INSTANT_S
            if now < self._give_up_at:
                return
        if now < self._next:
            return
        self._begin()
        pause = self._dice.uniform(*BETWEEN_S)
        if self._dice.random() < CALM_SHARE:
            pause += self._dice.uniform(*CALM_S)
        self._next = time.monotonic() + pause

    def calm(self) -> None:
        """End every fault now, in the order that was planned; the lab is whole afterwards."""
        while self._ends:
            heapq.heappop(self._ends)[2]()
        self._lab.heal()

    def _begin(self) -> None:
        if self._dice.random() < KILL_SHARE:
            self._kill()
            return
        choice = self._dice.choice(
            [self._pause, self._delay, self._drop, self._repeat, self._cut, self._hold,
             self._refuse]
        )  # fmt: skip
        choice()

    def _later(self, seconds: float, end: Callable[[], None]) -> None:
        heapq.heappush(self._ends, (time.monotonic() + seconds, next(self._numbers), end))

    def _victim(self, fits: Callable[[Part], bool]) -> Part | None:
        wanted = self._dice.choice(VICTIMS)
        parts = [part for part in self._lab.parts.values() if fits(part)]
        return self._dice.choice([p for p in parts if p.kind == wanted] or parts or [None])

    # -- processes ----------------------------------------------------------------------------

    def _kill(self) -> None:
        part = self._victim(lambda part: part.up)
        if part is None:
            return
        if self._dice.random() < AIMED_SHARE:
            self._aim(part)
        self._kill_now(part)

    def _kill_before_instant(self) -> bool:
        """A start's instant was decided: kill who decided it, or who waits for it; or neither."""
        dice = self._starts
        moment = dice.uniform(*BEFORE_S)
        wanted = dice.choice(VICTIMS_BEFORE)
        up = [part for part in self._lab.parts.values() if part.up and part.kind in VICTIMS_BEFORE]
        part = dice.choice([one for one in up if one.kind == wanted] or up or [None])
        if part is None or (self._aimed and dice.random() > BEFORE_SHARE):
            return False
        self._aimed = True
        time.sleep(moment)
        self.counts[f"aimed before an instant, {part.kind}"] += 1
        self._kill_now(part)
        return True

    def _kill_now(self, part: Part) -> None:
        held = part.paused_at is not None
        part.kill()
        self.kills += 1
        self.counts[f"kill -9 {part.kind}{' while stopped' if held else ''}"] += 1
        if part.kind == "analyst" and self._clocks.random() < CHANGE_SHARE:
            self._number += 1
            write_analyser(self._lab.analysers, self._number)
            self.counts["another version of the analyser"] += 1
        if isinstance(part, ProgramPart):
            part.wrong_clock = 0.0
            if self._clocks.random() < WRONG_CLOCK_SHARE:
                part.wrong_clock = self._clocks.choice(WRONG_S)
                self.counts[f"wrong clock at a restart, {part.kind}"] += 1
        self._later(self._dice.uniform(0.0, DOWN_S[part.kind]), lambda: _start(part))

    def _aim(self, part: Part) -> None:
        """Wait until a program begins, on this device where it is one, and a moment more."""
        word = f"began {part.name} " if part.kind == "device" else "began "
        moment = self._dice.uniform(*AFTER_S)
        limit = time.monotonic() + AIM_S
        with self._lab.witness.open() as witness:
            witness.seek(0, os.SEEK_END)
            while time.monotonic() < limit:
                if word in witness.read():
                    time.sleep(moment)
                    return
                time.sleep(POLL_S)

    def _pause(self) -> None:
        part = self._victim(lambda part: part.steady)
        if part is None:
            return
        part.pause()
        began = part.paused_at
        self.counts[f"SIGSTOP {part.kind}"] += 1
        # Killed meanwhile and held again, it is another fault's.
        self._later(
            self._dice.uniform(*PAUSE_S),
            lambda: part.resume() if part.paused_at == began else None,
        )

    # -- the network --------------------------------------------------------------------------

    def _free(self) -> tuple[str, Proxy] | None:
        free = [pair for pair in self._lab.proxies.items() if pair[0] not in self._busy]
        return self._dice.choice(free) if free else None

    def _spoil(self, kind: str, lasts: tuple[float, float], begin: Callable[[Proxy], object],
               before_end: Callable[[Proxy], None] = lambda _: None) -> None:  # fmt: skip
        found = self._free()
        if found is None:
            return
        name, proxy = found
        self._busy.add(name)
        part, since = self._lab.parts[name], time.monotonic()
        part.spoilt_at = since
        begin(proxy)
        self.counts[kind] += 1

        def end() -> None:
            before_end(proxy)
            heal(proxy)
            part.spoilt.append((since, time.monotonic()))
            part.spoilt_at = None
            self._busy.discard(name)

        self._later(self._dice.uniform(*lasts), end)

    def _delay(self) -> None:
        seconds = self._dice.uniform(*DELAY_S)
        self._spoil("delay", LASTS_S, lambda proxy: proxy.delay(seconds))

    def _drop(self) -> None:
        """A stream that has lost something cannot go on in TCP: it is cut a little later."""
        kind, name = self._dice.choice([(PUBLISH, "PUBLISH"), (PUBACK, "PUBACK")])
        to_broker, times = self._dice.random() < 0.5, self._dice.randint(1, DROPPED)
        where = "to the broker" if to_broker else "from the broker"
        self._spoil(
            f"drop {name} {where}",
            DROP_LASTS_S,
            lambda proxy: proxy.drop(kind, to_broker, times=times),
            Proxy.cut,
        )

    def _repeat(self) -> None:
        to_broker = self._dice.choice([TO_BROKER, TO_CLIENT])
        times = self._dice.randint(1, DROPPED)
        self._spoil(
            "repeat PUBLISH",
            DROP_LASTS_S,
            lambda proxy: proxy.repeat(PUBLISH, to_broker, times=times),
        )

    def _cut(self) -> None:
        self._spoil("cut", (0.0, 0.1), Proxy.cut)

    def _hold(self) -> None:
        self._spoil("hold", LASTS_S, Proxy.hold)

    def _refuse(self) -> None:
        """A partition of one or several parts; each comes back at its own time."""
        for _ in range(self._dice.randint(1, len(self._lab.proxies))):
            self._spoil("partition", LASTS_S, Proxy.refuse)


def _start(part: Part) -> None:
    if not part.up:
        part.start()
