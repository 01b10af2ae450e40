"""Who has several boards begin at one instant: requests with a start, and what is known of them.

The law: a conductor is an operator, who knows what MQTT told it. It names instants by the lab time
of the newest health, as the command line does; or by a clock of its own, which may be years from
the lab's: then it is refused, and tries something else. Lab time may be set back meanwhile, so that
what it named is tomorrow: hwsync waits for that rightly, and whoever asked takes it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any, Final

from hwsync.operator.conversation import Talk
from hwsync.protocol.errors import Refused
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.asking import encode_id
from hwsync.testing.context import WALL, Context
from hwsync.testing.history import Asked
from hwsync.testing.operators import Numbers, Operator

WAITS: Final = (0.5, 2.0, 10.0)  # seconds for the members to get ready
LEADS: Final = (0.2, 1.0)  # seconds between the decision and the instant
AHEAD: Final = (0.5, 2.0, 8.0, 30.0)  # seconds until an instant that is named
WITHIN: Final = (0.1, 1.0)
FAR_S: Final = 60.0  # until an instant that nobody has meant
LAST_S: Final = (0.1, 2.0)  # before an instant, in which somebody may take it back


class Conductor(Operator):
    """Asks for starts, for all of its users or for one; cancels and resets like any operator."""

    def __init__(
        self, context: Context, name: str, users: list[str], numbers: Numbers, stops: bool
    ) -> None:
        super().__init__(context, name, users, numbers, stops)
        self._untidy = list(users)

    def choices(self) -> tuple[list[Any], list[float]]:
        """What it does, and how often."""
        actions = [self._begins_together, self._begins_at, self._repeats_a_member]
        return (
            [*actions, self._cancels, self._resets, self._queries],
            [8, 3, 3, 2 * self._stops, self._stops, 1],
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
        own = dice.random() < 0.25
        now = WALL + self.context.now if own else self.context.lab_s()
        at = round(now + dice.choice(AHEAD), 3)
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
            own = keys | self.numbers.files(user, id)
            self.known = [*self.known[-20:], (user, id, program, own)]
            try:
                yield from self.ask(user, id, program, **own)
                asked.append(user)
            except Refused as refusal:
                self.context.note(self.name, f"{user} refuses {id}: {refusal}")
        if asked and self._stops:
            yield from self._takes_back(asked, id, keys["start"])
        for user in asked:
            yield from self.follow(user, id)

    def _takes_back(self, users: list[str], id: str, start: dict[str, Any]) -> Talk[None]:
        """Perhaps, at the last moment."""
        dice = Random(f"{self.name} {id}")
        if dice.random() < 0.5:
            return
        until = start["at"] - self.context.lab_s() if "at" in start else start["lead"]
        # Where lab time was set back it is tomorrow, and nobody waits for that.
        yield from self._sleep(min(until, FAR_S) - dice.choice(LAST_S) * dice.random())
        user = dice.choice(users)
        self.context.see(Asked(self.context.now, self.name, user, "cancel", id))
        try:
            yield from self.conversation(user).telling(TopicKind.CANCEL, encode_id(id), id)
        except Refused as refusal:
            self.context.note(self.name, f"{user} does not take back {id}: {refusal}")

    def _tidies(self, user: str) -> Talk[None]:
        """What would begin tomorrow is taken back."""
        record = yield from self.conversation(user).reading()
        if record["outcome"] is None and (record["start_at"] or 0.0) > self.context.lab_s() + FAR_S:
            id = str(record["id"])
            self.context.see(Asked(self.context.now, self.name, user, "cancel", id))
            yield from self.conversation(user).telling(TopicKind.CANCEL, encode_id(id), id)
        self._untidy.remove(user)

    def _repeats_a_member(self, user: str) -> Talk[None]:
        """The same again, perhaps long after its end; nobody begins by it."""
        if self.known and self.context.dice.random() < 0.5:
            user, id, program, keys = self.known[-1]
            yield from self.ask(user, id, program, **keys)
        else:
            yield from self._repeats(user)
