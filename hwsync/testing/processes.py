"""The process table: what is alive, what it has heard, where it is killed.

The law: a process does one thing at a time, in its turn; a kill ends it between two of its own
effects (``point``), and nothing but its files and the broker's memory is left of it.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from hwsync.testing.context import WALL, Context, Killed
from hwsync.testing.port import Port
from hwsync.testing.schedule import Timer

RESTART_S: Final = (0.1, 5.0)  # systemd's RestartSec, more or less
TURN_S: Final = 0.000_1  # a turn takes so long at least
SPINNING: Final = 1_000  # turns without a signal, each followed by the next at once
THINK_S: Final = 0.004  # from a signal to its turn: what comes meanwhile is one round


class Process:
    """One process that is started, killed, paused and started again."""

    points: tuple[str, ...] = ()

    def __init__(self, context: Context, name: str) -> None:
        self.context, self.name = context, name
        self.cable = context.cable(name)
        self.port: Port | None = None
        self.alive = False
        self.life = 0
        self.inbox: deque[Any] = deque()
        self.armed: str | None = None  # the point at which it is killed next
        self.once_killed: Callable[[], None] | None = None  # there: what follows at once
        self.named = "a boot"  # of its machine
        self.jump = 0.0  # seconds by which its wall clock is wrong
        self.disk_full = False
        self.removed = False  # never started again
        self._paused_until = 0.0
        self._turn: Timer | None = None
        self._in_vain = 0

    # clocks of the process

    def wall(self) -> float:
        return WALL + self.context.now + self.jump

    def monotonic(self) -> float:
        return self.context.now

    def raw_us(self) -> int:
        return round(self.context.now * 1e6)

    def asleep_us(self) -> int:
        return 0

    def is_slewed(self) -> bool:
        return False

    def boot(self) -> str:
        return self.named

    def random(self) -> float:
        return self.context.dice.random()

    # what an outbox asks of its connection

    @property
    def all_acknowledged(self) -> bool:
        return self.port is not None and self.port.all_acknowledged

    def under_way(self, topic: str) -> bool:
        return self.port is not None and self.port.under_way(topic)

    # life and death

    def start(self) -> None:
        """Begin a life; where that fails it is tried again, as by systemd."""
        if self.alive or self.removed:
            return
        self.life += 1
        self.alive = True
        self.inbox.clear()
        self.context.note(self.name, f"starts, life {self.life}")
        self._guarded(self.begin)
        if self.alive:
            self.plan(0.0)

    def begin(self) -> None:
        """What the process does first: it opens its files, and connects."""
        raise NotImplementedError

    def work(self) -> float | None:
        """Do what waits; seconds until there is more to do by itself."""
        raise NotImplementedError

    def release(self) -> None:
        """What the kernel does when a process has ended: files and sockets are closed."""
        raise NotImplementedError

    def kill(self, *, restart: bool = True) -> None:
        """kill -9; ``restart``: a new life begins after a while, as by systemd."""
        if not self.alive:
            return
        self.context.note(self.name, "is killed")
        self.alive = False
        self.armed = self.once_killed = None
        if self._turn is not None:
            self._turn.cancel()
        self.inbox.clear()
        self.release()
        if restart and not self.removed:
            low, high = RESTART_S
            self.context.schedule.after(low + (high - low) * self.random(), self.start)

    def pause(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        self._paused_until = self.context.now + seconds
        self.plan(0.0)

    def point(self, name: str) -> None:
        """Between two effects: a kill may be due here."""
        if self.armed == name:
            self.armed = None
            self.context.fault(f"kill: {name}", self.name)
            raise Killed(name)

    # its turns

    def put(self, item: Any) -> None:
        """Something comes into the inbox; its turn follows soon."""
        if self.alive:
            self.inbox.append(item)
            self.plan(THINK_S * self.random())

    def plan(self, seconds: float) -> None:
        """Its next turn, at the latest then."""
        at = max(self.context.now + seconds, self._paused_until)
        if self._turn is not None and self._turn.action is not None:
            if self._paused_until <= self._turn.at <= at:
                return
            self._turn.cancel()
        self._turn = self.context.schedule.after(at - self.context.now, self._take_turn)

    def _take_turn(self) -> None:
        if not self.alive:
            return
        if not self.inbox:
            self.context.step()  # a timer
        self._guarded(self._work)

    def _work(self) -> None:
        idle = not self.inbox
        wait = self.work()
        if self.inbox:
            wait = 0.0
        if wait is not None:
            self.plan(max(wait, TURN_S))
        self._in_vain = self._in_vain + 1 if idle and wait is not None and wait <= 0.0 else 0
        if self._in_vain > SPINNING:
            self.context.violate(
                "ends", self.name, "", "it turns round and round, and does nothing"
            )

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Killed:
            follows = self.once_killed
            self.kill()
            if follows is not None:
                follows()
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__)[-3:])
            text = f"{self.name} failed: {type(error).__name__}: {error}\n{where}"
            self.context.violate("process", self.name, "", text)
            self.kill()
