"""Who publishes analyses that nobody should believe, where no rights keep him from it.

The law: each message is sent once, with plain tools. What could be believed is noted, so that the
checker knows who has given what.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.testing.context import Context
from hwsync.testing.history import Asked, Judged
from hwsync.testing.operators import IDLE_S, Numbers
from hwsync.testing.persons import publish

VERSIONS: Final = ("000000000001", "000000000002", "feedfeedfeed")
LATELY: Final = 40  # observations among which it looks for a command


class Meddler:
    """A pupil who would like to pass; ``dice``: of its own."""

    def __init__(
        self, context: Context, name: str, users: list[str], numbers: Numbers, dice: Random
    ) -> None:
        self.context, self.name, self.users, self.numbers = context, name, users, numbers
        self._dice = dice
        self.asking = True
        self.topics = Topics()
        context.schedule.after(IDLE_S * dice.random(), self._acts)

    def _acts(self) -> None:
        dice = self._dice
        self.context.schedule.after(IDLE_S * 6 * dice.random(), self._acts)
        if not self.asking:
            return
        asked = [one for one in self.context.history[-LATELY:] if isinstance(one, Asked) and one.id]
        if not asked:
            return
        self.context.step()
        one = dice.choice(asked)
        assert one.id is not None
        action = dice.choices([self._forges, self._regrades, self._by_hand, self._nonsense],
                              [3, 3, 2, 2])[0]  # fmt: skip
        action(one.user, one.id)

    def _text(self) -> str:
        return f"passed, says {self.name} {self.numbers.id()}"

    def _forges(self, user: str, id: str) -> None:
        """As if an analyser had said so; perhaps as one that has said something already."""
        self._as_analyser(user, id, regrade=False)

    def _regrades(self, user: str, id: str) -> None:
        """In whatever state the command is."""
        self._as_analyser(user, id, regrade=True)

    def _as_analyser(self, user: str, id: str, *, regrade: bool) -> None:
        by = (self._dice.choice(self.numbers.analysers), self._dice.choice(VERSIONS))
        text = self._text()
        fields: dict[str, Any] = {
            "analysis": text, "id": id, "analyser": {"name": by[0], "version": by[1]},
        }  # fmt: skip
        if regrade:
            fields["regrade"] = True
        self.context.see(Judged(self.context.now, self.name, user, id, text, by, regrade))
        self._publish(user, dumps(fields).encode())

    def _by_hand(self, user: str, id: str) -> None:
        text = self._text()
        self.context.see(Judged(self.context.now, self.name, user, id, text))
        self._publish(user, dumps({"analysis": text, "id": id}).encode())

    def _nonsense(self, user: str, id: str) -> None:
        """What must change nothing."""
        analyser = {"name": "check", "version": VERSIONS[0]}
        self._publish(user, dumps(self._dice.choice((
            {"analysis": "x" * (limits.MAX_ANALYSIS + 1), "id": id, "analyser": analyser},
            {"analysis": self._text(), "id": id, "regrade": True},
            {"analysis": self._text(), "id": id, "analyser": "check"},
            {"analysis": self._text(), "id": id, "analyser": {**analyser, "name": "No Name"}},
            {"analysis": self._text(), "id": id, "analyser": {"name": "check"}},
            {"analysis": self._text(), "id": id, "analyser": analyser, "regrade": "yes"},
            {"analysis": self._text(), "id": "nobody's", "analyser": analyser, "regrade": True},
        ))).encode())  # fmt: skip

    def _publish(self, user: str, payload: bytes) -> None:
        publish(self.context, self.name, self.topics.of(user, TopicKind.ANALYSIS), payload)
