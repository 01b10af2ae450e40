"""Where the rows of ``history``, ``export`` and ``grades`` come from.

The law: it is asked for over MQTT, by whatever account the operator has; the database is read only
where ``--db`` names it, and gives the same rows. Who reads the one does not wait until the other is
loaded.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from hwsync.cli import say
from hwsync.cli.common import Settings
from hwsync.cli.spool import Spool
from hwsync.operator.filters import Filters
from hwsync.protocol import limits
from hwsync.protocol.history import Wanted, chooser
from hwsync.protocol.record import Reply
from hwsync.protocol.wire.history import Page, Row

if TYPE_CHECKING:
    from hwsync.store.past import Past

SLOW_ROWS: Final = 1_000  # rows, from which on it is said how far it is


class Rows(Protocol):
    """(board, row), the newest last; it can be gone through as often as one likes."""

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Each of them, read when it is asked for."""


@dataclass(frozen=True, slots=True)
class Told:
    """Rows, each with its board, the newest last; ``own``: they are the asker's own only."""

    rows: Rows
    own: bool = False


OnRows = Callable[[str, Sequence[Row]], object]
"""Given a board and rows of it, the newest first and older than those before."""


def over_mqtt(settings: Settings, users: Sequence[str], filters: Filters) -> Told:
    """Of these boards; of all that there are, where none is named. Raises ``HwsyncError``."""
    spool = Spool(filters.last)
    own = as_they_come(settings, users, filters, spool.add)
    return Told(spool, own)


def as_they_come(
    settings: Settings, users: Sequence[str], filters: Filters, on_rows: OnRows
) -> bool:
    """The same, kept by nobody; whether they are the asker's own only. Boards come in any order."""
    from hwsync.cli.names import boards_as_heard
    from hwsync.operator.client import Client
    from hwsync.operator.conversation import EVERYBODY
    from hwsync.operator.history import Answers, tell_pages

    url, count = settings.url, 0
    answers = Answers(url.username)

    def tell(page: Page) -> None:
        nonlocal count
        on_rows(page["user"], page["rows"])
        count += len(page["rows"])
        if count >= SLOW_ROWS:
            say.progress(f"{count:,} rows … ")

    with Client(url, settings.topics, EVERYBODY, named=users, answers=answers) as client:
        tell_pages(client, users or boards_as_heard(client), answers, filters, tell)
    if count >= SLOW_ROWS:
        say.progress("")
    return answers.everybody is False


def of_database(path: Path, users: Sequence[str], filters: Filters) -> Told:
    """The same from a file. Raises ``DatabaseError``."""
    file = _OfFile(path, users, filters)
    if filters.last is None:
        return Told(file)
    spool = Spool(filters.last)
    for user, rows in file.newest(filters.last):
        spool.add(user, rows)
    return Told(spool)


@dataclass(frozen=True, slots=True)
class _OfFile:
    """The rows of a database that are wanted, read when they are asked for."""

    path: Path
    users: Sequence[str]
    filters: Filters

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        with self._opened() as past:
            each = [self._of(past, user, oldest_first=True) for user in self.users or past.users()]
            yield from heapq.merge(*each, key=lambda one: one[1]["issued"])

    def newest(self, last: int) -> Iterator[tuple[str, list[Row]]]:
        """So many of each board, the newest first."""
        with self._opened() as past:
            for user in self.users or past.users():
                told = islice(self._of(past, user), last)
                while page := [row for _, row in islice(told, limits.HISTORY_ROWS)]:
                    yield user, page

    def _opened(self) -> Past:
        from hwsync.store.past import Past

        return Past(self.path)

    def _of(
        self, past: Past, user: str, *, oldest_first: bool = False
    ) -> Iterator[tuple[str, Row]]:
        filters, wall = self.filters, time.time()
        wanted = Wanted(
            user, Reply(""), None, since=filters.since, until=filters.until,
            outcomes=frozenset(filters.outcome) or None, by=filters.by, meta=filters.meta,
            name=filters.name, id=filters.id, analyser=filters.analyser, judged=filters.judged,
        )  # fmt: skip
        is_wanted = chooser(wanted, wall)
        for _, row in past.commands(wanted, wall, oldest_first=oldest_first):
            if is_wanted(row):
                yield user, row
