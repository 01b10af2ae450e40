"""A board's commands, for who asks what was run there: the newest first, with a cursor each.

The law: it has a connection of its own and only reads, so the coordinator waits for nothing here,
and a full disk changes nothing. A row is read when it is looked at. Their order is that in which
they were accepted; no clock can change it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.analysis import verdict_of
from hwsync.protocol.history import Wanted, line_of
from hwsync.protocol.jsons import cut
from hwsync.protocol.record import Regrade
from hwsync.protocol.wire.history import Row, verdicts_json
from hwsync.store import statements
from hwsync.store.contents import files_from
from hwsync.store.read_only import OpenFile
from hwsync.store.rows import analysed_by_from, regrade_from, select

BEGINNING: Final = 2_048  # characters of standard output, and of the end of stderr, for one line
NEWEST: Final = 2**63 - 1  # above any cursor
AT_A_TIME: Final = 100  # rows
MAX_INSTANT: Final = 1e300  # above any time of day


class Past(OpenFile):
    """The file, read for as long as its coordinator lives."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.resolve(), for_long=True)

    def users(self) -> list[str]:
        """The boards that have a record, by name."""
        with self._reading():
            return [user for (user,) in self._connection.execute(statements.USERS)]

    def commands(
        self, wanted: Wanted, wall: float
    ) -> Generator[tuple[int, Row | None], None, None]:
        """Those of the board that may be wanted, each with its cursor; close it when done.

        None stands for one of somebody else: most are, where many share a board.

        ``wall``: now, in Unix seconds. Times and cursor are looked at, the rest is its caller's.
        """
        with self._reading():
            yield from self._commands(wanted, wall)

    def _commands(self, wanted: Wanted, wall: float) -> Iterator[tuple[int, Row | None]]:
        execute = self._connection.execute
        before = NEWEST if wanted.after is None else wanted.after
        values = (BEGINNING, BEGINNING, wanted.user)
        if wanted.id is not None:
            cursor = execute(statements.PAST_ONE, (*values, wanted.id, before))
        else:
            since, until = wanted.at(wall)
            first, last = 0, NEWEST
            if since is not None or until is not None:
                times = (-MAX_INSTANT if since is None else since,
                         MAX_INSTANT if until is None else until)  # fmt: skip
                first, last = execute(statements.PAST_WITHIN, (wanted.user, *times)).fetchone()
                if first is None:
                    return
            cursor = execute(statements.PAST, (*values, before, first, last))
        names = [column[0] for column in cursor.description]
        place, asker = names.index("place"), names.index("asked_by")
        try:
            while rows := cursor.fetchmany(AT_A_TIME):
                for row in rows:
                    if wanted.account is not None and row[asker] != wanted.account:
                        yield row[place], None
                        continue
                    fields = dict(zip(names, row, strict=True))
                    regrades = self._regrades(wanted.user, fields)
                    yield fields["place"], _row(fields, regrades)
        finally:
            cursor.close()  # else the log of the database could not be shortened

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
    }
