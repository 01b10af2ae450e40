"""Who has several boards begin at one instant: requests with a start, and what is known of them.

The law: a conductor is an operator, who knows what MQTT told it. It names instants by a clock of
its own, which may be years from the lab's: then it is refused, and tries something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hwsync.operator.conversation import Talk
from hwsync.protocol.errors import Refused
from hwsync.testing.context import WALL
from hwsync.testing.operators import Operator

WAITS: Final = (0.5, 2.0, 10.0)  # seconds for the members to get ready
LEADS: Final = (0.2, 1.0)  # seconds between the decision and the instant
AHEAD: Final = (0.5, 2.0, 8.0, 30.0)  # seconds until an instant that is named
WITHIN: Final = (0.1, 1.0)


class Conductor(Operator):
    """Asks for starts, for all of its users or for one; cancels and resets like any operator."""

    def choices(self) -> tuple[list[Any], list[float]]:
        """What it does, and how often."""
        actions = [self._begins_together, self._begins_at, self._repeats_a_member]
        return (
            [*actions, self._cancels, self._resets, self._queries],
            [8, 3, 1, 2 * self._stops, self._stops, 1],
        )

    def _begins_together(self, _: str) -> Talk[None]:
        """A batch of some boards without a group, each asked by itself."""
        dice = self.context.dice
        users = dice.sample(self.users, dice.randint(1, len(self.users)))
        start = {
            "together": True,
            "wait": dice.choice(WAITS),
            "lead": dice.choice(LEADS),
            "within": dice.choice(WITHIN),
            "need": dice.randint(1, len(users)),
        }
        yield from self._asks(users, {"start": start, "batch": users})

    def _begins_at(self, user: str) -> Talk[None]:
        dice = self.context.dice
        at = round(WALL + self.context.now + dice.choice(AHEAD), 3)
        start = {"at": at, "within": dice.choice(WITHIN)}
        yield from self._asks([user], {"start": start})

    def _asks(self, users: Iterable[str], keys: dict[str, Any]) -> Talk[None]:
        """One program for these; a board that refuses it holds nobody else up."""
        dice = self.context.dice
        id, program = self.numbers.id(), self.numbers.program().text
        times = {"timeout": dice.choice((1.0, 10.0)), "grace": dice.choice((1.0, 3.0))}
        keys = {**keys, **times, "expires": 20.0, "analysis": "outcome"}
        asked = []
        for user in users:
            self.known = [*self.known[-20:], (user, id, program, keys)]
            try:
                yield from self.ask(user, id, program, **keys)
                asked.append(user)
            except Refused as refusal:
                self.context.note(self.name, f"{user} refuses {id}: {refusal}")
        for user in asked:
            yield from self.follow(user, id)

    def _repeats_a_member(self, user: str) -> Talk[None]:
        """The same again, perhaps long after its end; nobody begins by it."""
        yield from self._repeats(user)
