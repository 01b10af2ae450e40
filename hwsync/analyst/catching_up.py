"""What ended without its analysis while nobody listened: asked of each board's history.

The law: no storm. A few boards are asked at a time, each at the history's own pace, and no more of
it is read than there is room for. Where this account may not ask, nothing of it is an error: what
waits in state 3 is judged all the same.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import Final

from hwsync.analyst.work import Task, Work
from hwsync.grading import is_lab_failed
from hwsync.operator.conversation import Conversation, Talk
from hwsync.operator.filters import Filters
from hwsync.operator.history import Answers, telling
from hwsync.operator.switchboard import Switchboard
from hwsync.protocol import limits
from hwsync.protocol.errors import HwsyncError, NoCoordinator
from hwsync.protocol.record import Outcome, State
from hwsync.protocol.wire.history import Page

log = logging.getLogger("hwsync.analyst")

BACK_S: Final = 7 * 86_400.0  # how long ago it may have been asked for, unless somebody says more
AT_ONCE: Final = 2  # boards that are asked at the same time
AGAIN_S: Final = 60.0  # between two looks at one board's history
MOST: Final = 1_000  # commands of one board and analyser that are looked for in one go
PAUSE_S: Final = 1.0  # between two analysers, for one board: others may ask of it, too
ROOM_S: Final = 0.5  # between two looks whether there is room for more of them
RETURNED: Final = tuple(
    str(one)
    for one in (Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT, Outcome.KILLED, Outcome.CANCELLED)
)
"""Outcomes that there is something to be said of."""


class CatchingUp:
    """Which boards are still to be asked. Moments are monotonic seconds.

    catching_up.look_at(["pi1"], offered, now)
    catching_up.go_on(now)      # now and then
    """

    def __init__(
        self, board: Switchboard, converse: Callable[[str], Conversation], answers: Answers,
        work: Work, back_s: float = BACK_S,
    ) -> None:  # fmt: skip
        self._board, self._converse, self._answers = board, converse, answers
        self._work, self._back_s = work, back_s
        self._names: dict[str, set[str]] = {}  # analysers, by the board that is to be asked
        self._not_before: dict[str, float] = {}  # boards that were asked
        self._going: dict[str, Future[None]] = {}
        self._said_that_nobody_answers = False

    def look_at(self, users: Iterable[str], names: Collection[str]) -> None:
        """Ask these boards for what these analysers have not judged, as soon as may be."""
        if self._back_s <= 0.0 or not names:
            return
        for user in users:
            if user in self._names or len(self._names) < limits.MAX_USERS:
                self._names.setdefault(user, set()).update(names)

    def go_on(self, now: float) -> float | None:
        """Begin what may begin; when more may, None: with the next thing that comes."""
        for user, future in list(self._going.items()):
            if future.done():
                del self._going[user]
                self._ended(user, future)
        nearest: float | None = None
        for user in list(self._names):
            if len(self._going) >= AT_ONCE or not self._work.has_room:
                return None if self._going else now + ROOM_S
            until = self._not_before.get(user, now)
            if user in self._going:
                continue
            if until > now:
                nearest = until if nearest is None else min(until, nearest)
                continue
            self._begin(user, now)
        return nearest

    def _begin(self, user: str, now: float) -> None:
        names = sorted(self._names.pop(user))
        self._not_before[user] = now + AGAIN_S
        while len(self._not_before) > limits.MAX_USERS:
            del self._not_before[next(iter(self._not_before))]
        self._going[user] = self._board.begin(self._looking(user, names), user)

    def _looking(self, user: str, names: list[str]) -> Talk[None]:
        conversation = self._converse(user)
        yield from _pause(conversation)  # analysts that come back together ask one by one
        for name in names:
            found = 0

            def offer(page: Page, name: str = name) -> None:
                nonlocal found
                for row in page["rows"]:
                    if not is_lab_failed(row):
                        found += row["state"] == State.REST  # the others are heard of
                        self._work.offer(Task(user, row["id"], name))

            filters = Filters(since=-self._back_s, last=MOST, outcome=RETURNED, analyser=name,
                              judged=False)  # fmt: skip
            rows = telling(conversation, self._answers, filters, offer)
            yield from held_back(rows, lambda: self._work.has_room)
            if found:
                log.info("%d that %s has not judged are in the history", found, name,
                         extra={"user": user})  # fmt: skip
            if found >= MOST:
                self._work.missed.add(user)
            yield from _pause(conversation)

    def _ended(self, user: str, future: Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, NoCoordinator):
            log.debug("%s", error, extra={"user": user})
            self._work.missed.add(user)
        elif isinstance(error, HwsyncError):
            if not self._said_that_nobody_answers:
                log.warning("the history cannot be asked: %s", error, extra={"user": user})
            self._said_that_nobody_answers = True
        elif error is not None:
            log.error("hwsync failed; this is a bug", exc_info=error, extra={"user": user})


def _pause(conversation: Conversation) -> Talk[None]:
    until = conversation.now + PAUSE_S * (1.0 + random.random() / 2)
    while (left := until - conversation.now) > 0.0:
        yield left


def held_back(talk: Talk[object], has_room: Callable[[], bool]) -> Talk[None]:
    """A talk that hears nothing, and so asks nothing further, until there is room."""
    try:
        seconds = next(talk)
        while True:
            signal = yield seconds
            while not has_room():
                signal = yield ROOM_S
            seconds = talk.send(signal)
    except StopIteration:
        return
