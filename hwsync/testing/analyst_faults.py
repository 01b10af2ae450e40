"""What goes wrong with analysts: they die, are away for long, and come back as others.

The law: as in ``faults``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hwsync.testing.network_faults import NetworkFaults

if TYPE_CHECKING:
    from hwsync.testing.analysts import Analyst
    from hwsync.testing.world import World

AWAY_S: Final = (20.0, 130.0)  # less and more than the minute for which a name is waited for
STAY_S: Final = 15.0  # and it is there at least so long before
OF_ANALYSTS: Final = (
    *("an analyst dies", "an analyst dies at a point", "an analyst is away"),
    "all analysts are away",
)


class AnalystFaults(NetworkFaults):
    """Those of analysts; without any nothing happens."""

    world: World

    def _an_analyst(self) -> Analyst | None:
        alive = [one for one in self.world.analysts if one.alive]
        return self.context.dice.choice(alive) if alive else None

    def _kill_an_analyst(self) -> None:
        analyst = self._an_analyst()
        if analyst is None:
            return
        if self.context.dice.random() < 0.4:
            self.context.fault("another version of an analyser", analyst.name)
            analyst.change()
        self.context.fault("an analyst dies", analyst.name)
        analyst.kill()

    def _kill_an_analyst_at_a_point(self) -> None:
        analyst = self._an_analyst()
        if analyst is not None:
            analyst.armed = self.context.dice.choice(analyst.points)

    def _an_analyst_is_away(self) -> None:
        analyst = self._an_analyst()
        if analyst is not None:
            self._take_away(analyst, self.context.dice.uniform(*AWAY_S))

    def _all_analysts_are_away(self) -> None:
        seconds = self.context.dice.uniform(*AWAY_S)
        for analyst in self.world.analysts:
            self._take_away(analyst, seconds)

    def _take_away(self, analyst: Analyst, seconds: float) -> None:
        if analyst.alive and self.context.now - analyst.began_at > STAY_S:
            self.context.fault("an analyst is away", analyst.name, seconds)
            analyst.kill(restart=False)
            self._later(seconds, seconds, analyst.start)
