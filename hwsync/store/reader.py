"""The database read beside the coordinator, or without one. Nothing here writes."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from sqlite3 import Cursor
from typing import Any

from hwsync.protocol import limits
from hwsync.protocol.errors import NotFound
from hwsync.protocol.record import Asker, Record
from hwsync.protocol.wire.status import result_json
from hwsync.store import statements
from hwsync.store.contents import Contents
from hwsync.store.read_only import OpenFile, look_for
from hwsync.store.rows import asker_from, find_command, find_regrades, record_from, select


class Reader(OpenFile):
    """The database read by another process, at any time; a context manager that closes it.

    ``path``: the file, or a link to it. Raises ``DatabaseError``: there is none, this account may
    not read it, or it is none of this schema. Every method raises that where the file cannot be
    read.
    """

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        look_for(path, "history and show read it on the coordinator's machine; name it with --db")
        super().__init__(path)

    def history(self, user: str) -> Iterator[dict[str, Any]]:
        """Transitions and refused messages of a user, by column, in order of time (Unix seconds).

        Each of both in its own order, whatever the clock said meanwhile. A transition has who asked
        for its command too, and the hash of that program; where messages were only counted, how
        many stands last. docs/protocol.md, section 2, "The log". Raises ``DatabaseError``,
        ``NotFound``: nothing is recorded of that user.
        """
        with self._reading():
            rows = array("q", (row for (row,) in self._execute(statements.LOG_ROWS_OF, user)))
            refused = list(self._read(statements.REFUSED_OF, user))
            total = self._execute(statements.REFUSED_COUNT_OF, user).fetchone()
        if not rows and not refused:
            raise NotFound(f"nothing is recorded of {user}", "hwsync status lists the boards")
        yield from heapq.merge(self._log(rows), refused, key=lambda row: row["time"])
        if total and total[0] > limits.REFUSED_ROWS:
            yield {"user": user, "refused": total[0], "kept": limits.REFUSED_ROWS}

    def show(self, user: str, id: str) -> dict[str, Any]:
        """Everything of one command as on ``result/<id>``, with its rows of the log.

        docs/protocol.md, section 3. Raises ``DatabaseError``, ``NotFound``: that user has no such
        command.
        """
        with self._reading():
            command = find_command(self._connection, user, id)
            regrades = find_regrades(self._connection, command) if command else []
            row = next(select(self._connection, statements.RECORD_OF, user), None)
            rows = [
                *self._read(statements.LOG_OF_COMMAND, user, id),
                *self._read(statements.REFUSED_OF_COMMAND, user, id),
            ]
        if command is None:
            raise NotFound(f"{user} has no command {id}", f"hwsync history {user} lists them")
        own = command if row and row["id"] == id else None
        record = record_from(row, own, 0.0) if row else Record(user)
        shown = result_json(command, record.state_of(id), record.place(id), regrades)
        shown |= _asked(command.asker, command.program_sha256)
        shown["history"] = rows
        return shown

    def sent(self, user: str, id: str) -> dict[str, bytes]:
        """The files that went along with a command, by path, as far as they are kept.

        Raises ``DatabaseError``.
        """
        with self._reading():
            command = find_command(self._connection, user, id)
            contents = Contents(self._connection)
            files = command.request.files if command else ()
            found = {file.path: contents.bytes(file.sha256) for file in files}
        return {path: data for path, data in found.items() if data is not None}

    def starts(self, id: str) -> list[dict[str, Any]]:
        """Each board's command of that id, by board: how it ended, and when it began.

        ``user``, ``outcome``, ``reason``, ``started`` (Unix seconds), ``start_error`` and
        ``clock_bound`` (seconds; None where it was not released at an instant). Raises
        ``DatabaseError``, ``NotFound``: no board has such a command.
        """
        with self._reading():
            rows = list(select(self._connection, statements.STARTS_OF, id))
        if not rows:
            raise NotFound(f"no board has a command {id}", "hwsync history BOARD lists them")
        return rows

    def _log(self, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Each row when it is asked for: there may be very many, and whoever reads may be slow."""
        for number in rows:
            with self._reading():
                found = list(self._read(statements.LOG_AT, number))
            for row in found:
                asker, program_sha256 = asker_from(row), row["program_sha256"]
                yield row | _asked(asker, program_sha256)

    def _execute(self, statement: str, *values: object) -> Cursor:
        return self._connection.execute(statement, values)

    def _read(self, statement: str, *values: object) -> Iterator[dict[str, Any]]:
        for row in select(self._connection, statement, *values):
            payload = row.pop("payload")
            for name in ("hash", "payload_sha256"):
                row.pop(name, None)
            yield {**row, "payload": bytes(payload).decode(errors="replace")}


def _asked(asker: Asker | None, program_sha256: str | None) -> dict[str, Any]:
    return {
        "asked_by": asker and asker.name,
        "asked_known_by": asker and asker.known_by,
        "program_sha256": program_sha256 or None,
    }
