"""What is dropped of the database, and what is written down to know when (``retention`` decides).

The law: ids, hashes, ends and every row of the log stay, so the chain holds; nothing goes that is
open, that a record shows, or whose reply is owed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from hwsync.protocol.analysis import cut_message, verdict_of
from hwsync.protocol.batch import is_shared
from hwsync.protocol.jsons import dumps
from hwsync.store import statements
from hwsync.store.contents import owner_of
from hwsync.store.database import Database, translated
from hwsync.store.rows import regrade_from, select

ROWS_EACH: Final = 8  # of the log, that a command has at most before it is old, as a rule


def _drop_contents(
    connection: Connection, found: Iterable[tuple[str, str]], batches: Iterable[str]
) -> None:
    """What these commands had, but for names and hashes, as far as nobody else has it.

    What a group's batch has goes with the last of its members.
    """
    owners = [owner_of(user, id) for user, id in found]
    shared = [one for one in batches if is_shared(one)]
    owners += [
        one for one in shared if not connection.execute(statements.IN_BATCH, (one,)).fetchone()
    ]
    for owner in owners:
        dropped = connection.execute(statements.DROP_USES, (owner,)).fetchall()
        connection.executemany(statements.DROP_CONTENT, dropped)


def _shorten_regrades(connection: Connection, found: Iterable[tuple[str, str]]) -> None:
    """What a regrade says by the convention stays: grades are made of it."""
    for user, id in found:
        for row in list(select(connection, statements.REGRADES, user, id)):
            regrade = regrade_from(row)
            said = verdict_of(regrade.analysis, regrade.by)
            kept = {"passed": said.passed, "score": said.score, "message": said.message}
            kept["message"] = cut_message(said.message)
            connection.execute(statements.PRUNE_REGRADE, (dumps(kept), user, id, *regrade.by.key))


@dataclass(frozen=True, slots=True)
class LastRows:
    """The last row of the log, and of the refused messages; 0: there is none."""

    log: int
    refused: int


class Pruning:
    """The coordinator's open database, for ``Retention``; each method raises ``StoreError``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = 0  # the row of the log up to which there was nothing more to drop

    @translated()
    def used(self) -> int:
        """Bytes of the file that hold something."""
        pages, free, size = (
            self._database.connection.execute(statement).fetchone()[0]
            for statement in (statements.PAGES, statements.FREE_PAGES, statements.PAGE_SIZE)
        )
        return int((pages - free) * size)

    @translated()
    def last_rows(self) -> LastRows:
        """How far the log and the refused messages are."""
        log, refused = (
            self._database.connection.execute(statement).fetchone()[0] or 0
            for statement in (statements.LAST_LOG_ROW, statements.LAST_REFUSED_ROW)
        )
        return LastRows(log, refused)

    @translated()
    def running_days(self) -> tuple[float, tuple[LastRows, ...]]:
        """Seconds of the present day of running; how far all was at the end of each day before.

        docs/decisions.md, 137.
        """
        meta = dict(self._database.connection.execute(statements.META))
        ends = json.loads(meta.get("days_ends", "[]"))
        return float(meta.get("day_seconds", 0.0)), tuple(LastRows(*pair) for pair in ends)

    @translated()
    def write_running_days(self, seconds: float, ends: Iterable[LastRows] | None) -> None:
        """Save them; ``ends`` None: as they are. Where it raises, nothing is saved."""
        rows = [("day_seconds", str(seconds))]
        if ends is not None:
            rows.append(("days_ends", dumps([(one.log, one.refused) for one in ends])))
        with self._database.transaction() as connection:
            connection.executemany(statements.SAVE_META, rows)

    @translated()
    def prune(self, row: int | None, most: int) -> int:
        """Drop the texts of commands that were in the log at that row, the oldest first.

        ``row`` None: of any. At most so many commands, with their rows of the log. Returns how
        many; where it raises, nothing is dropped.
        """
        with self._database.transaction() as connection:
            last = self.last_rows().log if row is None else row
            values = (self._after, last, ROWS_EACH * most)
            rows = connection.execute(statements.PRUNABLE, values).fetchall()
            batches = {(user, id): batch for user, id, batch, _ in rows}
            found = list(batches)[:most]
            touched = dict.fromkeys(batches[one] for one in found)
            connection.executemany(statements.PRUNE_COMMAND, found)
            _drop_contents(connection, found, touched)
            _shorten_regrades(connection, found)
            connection.executemany(statements.PRUNE_LOG, found)
        # Where there was less, some may lie before it that were open when it came by.
        ends = [row for user, id, _, row in rows if (user, id) == found[-1]]
        self._after = ends[0] if len(found) == most else 0
        return len(found)

    @translated()
    def prune_refused(self, row: int) -> None:
        """Drop refused messages up to a row; the counters stay, and the last one.

        Without that one SQLite would count its rows from the beginning.
        """
        self._database.connection.execute(statements.PRUNE_REFUSED, (row,))
