"""Somebody who asks all boards of a group at once, and stops all of them, with ``mosquitto_pub``.

The law: each message is sent once; what it asks of each member is noted as if each had been asked,
so that the checker's promises about commands hold for them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from hwsync.protocol.groups import SIGN
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.asking import encode_id
from hwsync.protocol.wire.request import encode_request
from hwsync.testing.context import Context
from hwsync.testing.history import Asked
from hwsync.testing.operators import Numbers
from hwsync.testing.persons import publish
from hwsync.testing.programs import files_of

IDLE_S: Final = 6.0  # between two actions, on average
Groups = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One batch, which may be asked again, and cancelled."""

    ask: Callable[[], None]
    cancel: Callable[[], None]


class Teacher:
    """One message after another, for one of these groups; ``dice``: of its own."""

    def __init__(
        self, context: Context, name: str, groups: Groups, numbers: Numbers, dice: Random
    ) -> None:
        self.context, self.name, self.groups, self.numbers = context, name, groups, numbers
        self._dice = dice
        self.asking = True
        self.topics = Topics()
        self._known: list[tuple[str, str, str, dict[str, Any]]] = []  # group, id, program, keys
        self._lists: list[tuple[str, str, dict[str, Any]]] = []  # id, program, keys
        context.schedule.after(IDLE_S * dice.random(), self._acts)

    def _acts(self) -> None:
        dice = self._dice
        self.context.schedule.after(IDLE_S * 2 * dice.random(), self._acts)
        if not self.asking:
            return
        self.context.step()
        action = dice.choices(
            [self._asks, self._repeats, self._asks_one_first, self._cancels, self._stops_all,
             self._queries, self._asks_a_list, self._repeats_of_a_list],
            [8, 2, 1, 2, 1, 1, 2, 1],
        )[0]  # fmt: skip
        action(dice.choice(sorted(self.groups)))

    def _asks(self, group: str) -> None:
        dice = self._dice
        id, program = f"b{self.numbers.id()}", self.numbers.program().text
        keys: dict[str, Any] = {
            "timeout": dice.choice((1.0, 2.0)), "grace": dice.choice((1.0, 3.0)),
            "expires": dice.choice((2.0, 8.0, 20.0)),
        }  # fmt: skip
        if dice.random() < 0.6:
            keys["parallel"] = dice.choice((1, 1, 2))
        elif dice.random() < 0.5:
            keys["queue"] = True
        if dice.random() < 0.3:
            keys["abort"] = dice.choice((0.0, 0.3))
        if dice.random() < 0.2:
            keys["online"] = True
        self._known = [*self._known[-10:], (group, id, program, keys)]
        self._ask(group, id, program, keys)
        soon = dice.random()
        if soon < 0.4:  # while it waits, or runs
            stop = self._stops_all if soon < 0.1 else lambda of: self._cancel(of, id)
            self.context.schedule.after(4.0 * dice.random(), lambda: stop(group))

    def lesson(self, seconds: float) -> Lesson:
        """All of the largest group are stopped, and asked one after the other, for so long each."""
        group = max(self.groups, key=lambda name: len(self.groups[name]))
        id, program = f"b{self.numbers.id()}", replace(self.numbers.program(), seconds=seconds).text
        keys: dict[str, Any] = {"timeout": 2.0, "grace": 1.0, "expires": 20.0, "parallel": 1}

        def ask() -> None:
            self._stops_all(group)
            self._ask(group, id, program, keys)

        ask()
        return Lesson(ask, lambda: self._cancel(group, id))

    def _ask(self, group: str, id: str, program: str, keys: dict[str, Any]) -> None:
        if self.numbers.carriers.issuperset(self.groups[group]):
            keys = keys | self.numbers.files(self.groups[group][0], id)
        for user in self.groups[group]:
            self._note(user, group, "request", id, program, keys)
        payload = encode_request(program, id=id, **keys)
        self._publish(group, TopicKind.REQUEST, payload)

    def _repeats(self, _: str) -> None:
        if self._known:
            self._ask(*self._dice.choice(self._known))

    def _asks_a_list(self, group: str) -> None:
        """A batch without a group: each of its boards is asked by itself, some perhaps late."""
        dice, every = self._dice, self.groups[group]
        users = dice.sample(every, dice.randint(1, len(every)))
        id, program = f"l{self.numbers.id()}", self.numbers.program().text
        keys = {
            "analysis": "outcome", "timeout": dice.choice((1.0, 2.0)), "grace": 1.0,
            "expires": dice.choice((2.0, 8.0)), "batch": users, "queue": dice.random() < 0.5,
        }  # fmt: skip
        self._lists = [*self._lists[-10:], (id, program, keys)]
        for user in users:
            late = 4.0 * dice.random() if dice.random() < 0.3 else 0.0
            self.context.schedule.after(
                late,
                lambda user=user: self._ask_alone(user, id, program, keys),  # type: ignore[misc]
            )

    def _repeats_of_a_list(self, _: str) -> None:
        """One member's request again, or the first time that it arrives."""
        if self._lists:
            id, program, keys = self._dice.choice(self._lists)
            self._ask_alone(self._dice.choice(keys["batch"]), id, program, keys)

    def _ask_alone(self, user: str, id: str, program: str, keys: dict[str, Any]) -> None:
        if self.asking:
            keys = keys | self.numbers.files(user, id)
            self._note(user, "", "request", id, program, keys)
            payload = encode_request(program, id=id, **keys)
            publish(self.context, self.name, self.topics.of(user, TopicKind.REQUEST), payload)

    def _asks_one_first(self, group: str) -> None:
        """The id of a batch may be known to one of its members already."""
        user, id = self._dice.choice(self.groups[group]), f"b{self.numbers.id()}"
        program = self.numbers.program().text
        keys = {"analysis": "outcome", "timeout": 1.0, "grace": 1.0, "expires": 8.0}
        self._note(user, "", "request", id, program, keys)
        payload = encode_request(program, id=id, **keys)
        publish(self.context, self.name, self.topics.of(user, TopicKind.REQUEST), payload)
        del keys["analysis"]
        self.context.schedule.after(
            4.0 * self._dice.random(), lambda: self._ask(group, id, program, keys)
        )

    def _cancels(self, group: str) -> None:
        known = [id for of, id, _, _ in self._known if of == group]
        self._cancel(
            group, self._dice.choice(known) if known and self._dice.random() < 0.7 else None
        )

    def _cancel(self, group: str, id: str | None) -> None:
        if not self.asking:
            return
        for user in self.groups[group]:
            self._note(user, group, "cancel", id)
        self._publish(group, TopicKind.CANCEL, encode_id(id))

    def _stops_all(self, group: str) -> None:
        if not self.asking:
            return
        for user in self.groups[group]:
            self._note(user, group, "reset", None)
        self._publish(group, TopicKind.RESET, b"")

    def _queries(self, group: str) -> None:
        self._publish(group, TopicKind.QUERY, b"")

    def _publish(self, group: str, kind: TopicKind, payload: bytes) -> None:
        publish(self.context, self.name, self.topics.of(f"{SIGN}{group}", kind), payload)

    def _note(
        self, user: str, group: str, kind: str, id: str | None, program: str = "",
        keys: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        keys = keys or {}
        self.context.see(
            Asked(
                *(self.context.now, self.name, user, kind, id, program),
                expires=keys.get("expires"), group=group, parallel=keys.get("parallel"),
                batch=tuple(keys.get("batch", ())), timeout=keys.get("timeout"),
                grace=keys.get("grace"), files=files_of(dict(keys)),
            )
        )  # fmt: skip
