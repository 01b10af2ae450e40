"""A board's commands, for who asks what was run there: the newest first, with a cursor each.

The law: it has a connection of its own and only reads, so the coordinator waits for nothing here,
and a full disk changes nothing. The numbers of the rows are found by an index, and some rows are
read when the first of them is looked at: no lock is held between two. Their order is that in which
they were accepted; no clock can change it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.analysis import verdict_of
from hwsync.protocol.errors import NotFound
from hwsync.protocol.history import Wanted, line_of
from hwsync.protocol.jsons import cut
from hwsync.protocol.record import Regrade
from hwsync.protocol.tags import tags_asked
from hwsync.protocol.wire.history import Row, verdicts_json
from hwsync.protocol.wire.ran_on import ran_on_json
from hwsync.store import statements
from hwsync.store.contents import files_from
from hwsync.store.read_only import OpenFile
from hwsync.store.rows import analysed_by_from, regrade_from, select

BEGINNINGS: Final = (2_048, 2_048)  # characters of standard output, and of the end of stderr
NEWEST: Final = 2**63 - 1  # above any cursor
AT_A_TIME: Final = 1_000  # numbers of rows
COUNTED: Final = 10_000  # of those that an index has; more are as many
MAX_INSTANT: Final = 1e300  # above any time of day


class Past(OpenFile):
    """The file, read for as long as its coordinator lives."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.resolve(), for_long=True)

    def users(self) -> list[str]:
        """The boards that have a record, by name."""
        with self._reading():
            return [user for (user,) in self._connection.execute(statements.USERS)]

    def printed(self, user: str, id: str) -> tuple[str, bool, float | None, float | None]:
        """A command's standard output, whether it is cut, when it started and how wrong that is.

        Raises ``DatabaseError``.
        """
        with self._reading():
            row = self._connection.execute(statements.PRINTED, (user, id)).fetchone()
        if row is None:
            raise NotFound(f"{user} has no command {id}")
        return row[0], bool(row[1]), row[2], row[3]

    def commands(
        self, wanted: Wanted, wall: float, *, oldest_first: bool = False
    ) -> Iterator[tuple[int, Row]]:
        """Those of the board that may be wanted, each with its cursor.

        ``wall``: now, in Unix seconds. Times, cursor and whose they are is looked at, the rest is
        its caller's. Some are read when the first of them is asked for; nothing is held meanwhile.
        """
        places = self._places(wanted, wall)
        if oldest_first:
            places = reversed(array("q", places))
        most = min(wanted.last, statements.PAST_AT_ONCE)
        while some := tuple(islice(places, most)):
            marks = some + some[-1:] * (statements.PAST_AT_ONCE - len(some))
            with self._reading():
                rows = select(self._connection, statements.PAST_AT, *BEGINNINGS, *marks)
                found = {row["place"]: (row, self._regrades(wanted.user, row)) for row in rows}
            for place in some:
                if place in found:
                    yield place, _row(*found[place])

    def _places(self, wanted: Wanted, wall: float) -> Iterator[int]:
        """The numbers of their rows, the newest first."""
        before = NEWEST if wanted.after is None else wanted.after
        with self._reading():
            statement, values = self._way(wanted)
            first, last = self._within(wanted, wall)
        more = True
        while more:
            with self._reading():
                bounds = (before, first, last, AT_A_TIME)
                found = self._connection.execute(statement, (*values, *bounds)).fetchall()
            more = len(found) == AT_A_TIME
            for (place,) in found:
                yield place
                before = place

    def _way(self, wanted: Wanted) -> tuple[str, tuple[object, ...]]:
        """By which index they are found: the one that has the fewest of them."""
        user = wanted.user
        if wanted.id is not None:
            return statements.PLACE_OF_ID, (user, wanted.id)
        asker = wanted.by if wanted.account is None else wanted.account
        ways: list[tuple[str, str, tuple[object, ...]]] = [
            (statements.PLACES_OF_TAG, statements.COUNT_OF_TAG, (user, *tags_asked(key, value)))
            for key, value in wanted.meta.items()
        ]
        if asker is not None:
            ways.append((statements.PLACES_OF_ASKER, statements.COUNT_OF_ASKER, (user, asker)))
        if not ways:
            return statements.PLACES, (user,)
        statement, _, values = min(ways, key=lambda way: self._count(way[1], way[2]))
        return statement, values

    def _count(self, statement: str, values: tuple[object, ...]) -> int:
        (count,) = self._connection.execute(statement, (*values, COUNTED)).fetchone()
        return int(count)

    def _within(self, wanted: Wanted, wall: float) -> tuple[int, int]:
        """Between which numbers they are, by when they were asked for."""
        since, until = wanted.at(wall)
        if since is None and until is None:
            return 0, NEWEST
        times = (-MAX_INSTANT if since is None else since,
                 MAX_INSTANT if until is None else until)  # fmt: skip
        statement = statements.PAST_WITHIN
        first, last = self._connection.execute(statement, (wanted.user, *times)).fetchone()
        return (1, 0) if first is None else (first, last)

    def _regrades(self, user: str, row: dict[str, Any]) -> list[Regrade]:
        """The newest regrades of a row's command; most have none."""
        if row["regraded"] == "[]":
            return []
        found = select(self._connection, statements.REGRADES, user, row["id"])
        return [regrade_from(one) for one in found]


def _row(row: dict[str, Any], regrades: Sequence[Regrade]) -> Row:
    first, by = None, analysed_by_from(row["analysed_by"])
    if row["analysis"] is not None:
        first = verdict_of(row["analysis"], by)
    others = [verdict_of(one.analysis, one.by, one.time) for one in regrades]
    return {
        "id": row["id"],
        "number": row["number"],
        "state": row["state"],
        "issued": row["issued"],
        "by": row["asked_by"],
        "known_by": row["asked_known_by"],
        "name": "" if row["orphan"] else row["name"] or limits.DEFAULT_NAME,
        "outcome": row["outcome"],
        "ran": row["ran"],
        "reason": row["reason"],
        "exit_code": row["exit_code"],
        "started": row["started"],
        "duration": row["duration"],
        "files": [file.path for file in files_from(row["returned"])],
        "analysis": cut(row["analysis"] or "", limits.HISTORY_TEXT),
        "meta": row["meta"],
        "line": line_of(row["response"], row["stderr"]),
        "analyser": row["analyser"],
        "no_analysis": row["no_analysis"] or None,
        "verdicts": verdicts_json(first, others),
        "clock_bound": row["clock_bound"],
        "ran_on": ran_on_json(row["ran_on"]),
    }
