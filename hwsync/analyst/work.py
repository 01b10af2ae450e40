"""What is to be judged next, by what statuses and the history say.

The law: a board that waits for its analysis comes first, since nobody can use it meanwhile. Nothing
here is the last place where something is known: what does not fit, or was put off, is in a status
or in the history again.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsync.analyst.judging import is_judged
from hwsync.grading import is_lab_failed
from hwsync.protocol import limits
from hwsync.protocol.record import Analyser, State

PAST: Final = 1_000  # commands that wait and hold up no board; the history has the others
MOST_PUT_OFF: Final = 1_000
AGAIN_FIRST_S: Final = 10.0  # until one that failed is tried again; doubles,
AGAIN_MAX_S: Final = 600.0  # to this
NOT_OURS: Final = frozenset(map(str, Analyser))  # a person, or the coordinator

Key = tuple[str, str]  # a board, and the id of a command


@dataclass(frozen=True, slots=True)
class Task:
    """One command to be judged."""

    user: str
    id: str
    analyser: str

    @property
    def key(self) -> Key:
        return self.user, self.id


def task_of(user: str, fields: Mapping[str, Any]) -> Task | None:
    """What a status or result asks of whoever has its analyser; None: nothing."""
    name, id = fields.get("analyser"), fields["id"]
    if not isinstance(name, str) or name in NOT_OURS or not limits.is_id(id):
        return None
    if fields["outcome"] is None:
        return None
    if fields["state"] == State.RETURNED:
        return Task(user, id, name)
    if fields["state"] != State.REST or is_lab_failed(fields):
        return None
    return None if is_judged(fields) else Task(user, id, name)


class Work:
    """The tasks that wait. Moments are monotonic seconds.

    work = Work()
    work.hear("pi1", status, offered)
    while (task := work.next(now, offered, busy)) is not None:
        ...
        work.done(task.key)
    """

    def __init__(self, most: int = PAST) -> None:
        self._most = most
        self._holding: dict[str, Task] = {}  # by board: it waits for its analysis
        self._past: dict[Key, Task] = {}
        self._in_hand: set[Key] = set()
        self._put_off: dict[Key, tuple[float, float]] = {}  # until when, and the next pause
        self.missed: set[str] = set()  # boards of which the history has more

    def __len__(self) -> int:
        return sum(1 for _ in self._waiting())

    @property
    def has_room(self) -> bool:
        """Whether more of the past can be taken."""
        return len(self._past) < self._most

    def hear(self, user: str, fields: Mapping[str, Any], offered: Container[str]) -> None:
        """A status came. Of the past only what is ``offered`` takes a place of those."""
        task = task_of(user, fields)
        if task is not None and fields["state"] == State.RETURNED:
            self._holding[user] = task
            return
        self._holding.pop(user, None)
        if task is not None and task.analyser in offered:
            self.offer(task)

    def offer(self, task: Task) -> None:
        """One that holds up no board."""
        if task.key in self._in_hand or task.key in self._past:
            return
        if self.has_room:
            self._past[task.key] = task
        else:
            self._miss(task.user)

    def next(self, now: float, offered: Collection[str], busy: Collection[str] = ()) -> Task | None:
        """The next one of these analysers, of no ``busy`` board; it is in hand from now on."""
        for task in self._waiting():
            until, _ = self._put_off.get(task.key, (now, 0.0))
            if task.analyser in offered and task.user not in busy and until <= now:
                self._in_hand.add(task.key)
                return task
        return None

    def _waiting(self) -> Iterator[Task]:
        for tasks in (self._holding, self._past):
            yield from (task for task in tasks.values() if task.key not in self._in_hand)

    def done(self, key: Key) -> None:
        """Nothing is left to be done of it, as far as it is known."""
        self._in_hand.discard(key)
        self._put_off.pop(key, None)
        self._drop(key)

    def take_again(self, key: Key) -> None:
        """What was found of it is not true any more: it waits as before it was taken."""
        self._in_hand.discard(key)

    def put_off(self, key: Key, now: float) -> None:
        """It came to nothing now. What holds up no board is left to the history."""
        self._in_hand.discard(key)
        user, id = key
        self._past.pop(key, None)
        if user not in self._holding or self._holding[user].id != id:
            self._put_off.pop(key, None)
            self._miss(user)
            return
        _, pause = self._put_off.pop(key, (now, AGAIN_FIRST_S))
        while len(self._put_off) >= MOST_PUT_OFF:
            del self._put_off[next(iter(self._put_off))]
        self._put_off[key] = now + pause, min(2 * pause, AGAIN_MAX_S)

    def try_again(self) -> None:
        """There is a new connection: what was put off may come to something."""
        self._put_off.clear()

    def _miss(self, user: str) -> None:
        if len(self.missed) < limits.MAX_USERS:
            self.missed.add(user)

    def _drop(self, key: Key) -> None:
        user, id = key
        if user in self._holding and self._holding[user].id == id:
            del self._holding[user]
        self._past.pop(key, None)

    def until(self, now: float) -> float | None:
        """When one that was put off is to be tried again; None: none is."""
        return min((until for until, _ in self._put_off.values() if until > now), default=None)

    def forget_those_of(self, offered: Collection[str]) -> None:
        """Of the past, those whose analyser is not offered any more give their place free."""
        self._past = {key: one for key, one in self._past.items() if one.analyser in offered}
