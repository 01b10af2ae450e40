"""What goes wrong on the way: cables that are cut, slow or one-sided, and what a broker loses.

The law: all of it ends by itself, or by ``Faults.heal``.
"""

from __future__ import annotations

from collections.abc import Callable

from hwsync.testing.context import Context
from hwsync.testing.network import DOWN, UP


class NetworkFaults:
    """Those of ``Faults`` that need no process; nothing begins any more once it is ``_over``."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._over = False

    def _later(self, low: float, high: float, action: Callable[[], None]) -> None:
        seconds = low + (high - low) * self.context.dice.random()
        self.context.schedule.after(seconds, lambda: None if self._over else action())

    def _cable_of(self) -> str:
        return self.context.dice.choice(sorted(self.context.cables))

    def _cut(self) -> None:
        name = self._cable_of()
        port = self.context.cables[name].port
        if port is not None and port.connected:
            self.context.fault("connection reset", name)
            port.cut()

    def _block(self, name: str, *directions: bool) -> None:
        cable = self.context.cables[name]
        cable.block(*directions)
        if cable.port is not None:
            cable.port.silent()

    def _heal_later(self, name: str, low: float, high: float) -> None:
        self._later(low, high, self.context.cables[name].heal)

    def _partition(self) -> None:
        name = self._cable_of()
        self.context.fault("partition", name)
        self._block(name, UP, DOWN)
        self._heal_later(name, 0.5, 60.0)

    def _one_way(self) -> None:
        name = self._cable_of()
        up = self.context.dice.random() < 0.5
        self.context.fault("partition, one way", name, "up" if up else "down")
        self._block(name, up)
        self._heal_later(name, 0.5, 60.0)

    def _swizzle(self) -> None:
        """Parts are cut off one by one, and come back in another order."""
        dice = self.context.dice
        names = sorted(self.context.cables)
        some = dice.sample(names, dice.randint(2, len(names)))
        self.context.fault("partition, swizzled", "", some)
        for name in some:
            self._later(0.0, 5.0, lambda name=name: self._block(name, UP, DOWN))  # type: ignore[misc]
            self._heal_later(name, 5.0, 20.0)

    def _slow(self) -> None:
        name = self._cable_of()
        cable = self.context.cables[name]
        cable.latency = self.context.dice.choice((0.05, 0.3, 1.5))
        self.context.fault("delay", name, cable.latency)
        self._later(2.0, 20.0, lambda: self._fast(name))

    def _fast(self, name: str) -> None:
        cable = self.context.cables[name]
        cable.latency, cable.reorders, cable.late_s = 0.001, False, 0.0

    def _lose(self) -> None:
        self.context.broker.loss = self.context.dice.choice((0.05, 0.3))
        self._later(1.0, 15.0, self._lose_no_more)

    def _lose_no_more(self) -> None:
        self.context.broker.loss = 0.0

    def _repeat(self) -> None:
        broker, dice = self.context.broker, self.context.dice
        broker.dups = 0.3
        broker.copies = 0.4 if dice.random() < 0.6 else 0.0
        self._later(1.0, 30.0, self._repeat_no_more)

    def _repeat_no_more(self) -> None:
        self.context.broker.copies = self.context.broker.dups = 0.0
