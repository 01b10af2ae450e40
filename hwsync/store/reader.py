"""The database read beside the coordinator, or without one. Nothing here writes."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from peewee import Model

from hwsync.protocol import limits
from hwsync.protocol.errors import DatabaseError, NotFound
from hwsync.protocol.jsons import loads
from hwsync.protocol.record import Asker, State
from hwsync.protocol.wire.status import result_json
from hwsync.store.migrations import APPLICATION_ID, SCHEMA
from hwsync.store.models import CommandRow, HwStatus, RefusedCount, RefusedMessage, Transition
from hwsync.store.rows import asker_from, find_command, select, table


def open_to_read(path: Path, *, for_long: bool = False) -> tuple[sqlite3.Connection, int, int]:
    """(connection, application id, schema) of the file at an absolute path.

    Without a -wal file nobody writes: a reader that may not make one reads the file as it is,
    unless it reads ``for_long`` and a writer may come meanwhile. Raises ``sqlite3.Error``.
    """
    used = for_long or path.with_name(path.name + "-wal").exists()
    mode = "mode=ro" if used else "immutable=1"
    connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True)
    try:
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection, owner, schema


def look_for(path: Path, hint: str) -> None:
    """Raises ``DatabaseError``: there is none (what to do then: ``hint``), or it is hidden."""
    try:
        there = path.is_file()
    except PermissionError:
        raise DatabaseError(
            f"{path} is not readable for this account",
            "as root: sudo hwsync …; or join the group of its folder",
        ) from None
    if not there:
        raise DatabaseError(f"there is no database {path}", hint)


class Reader:
    """The database read by another process, at any time. Raises ``DatabaseError``, ``NotFound``."""

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        look_for(path, "history and show read it on the coordinator's machine; name it with --db")
        try:
            self._connection, owner, version = open_to_read(path)
        except sqlite3.Error as error:
            raise _unreadable(path, error) from None
        self._path = path
        if owner != APPLICATION_ID or version != SCHEMA:
            self.close()
            raise DatabaseError(
                f"{path} is no database of this hwsync (schema {version}, expected {SCHEMA})",
                "start the coordinator once to bring an older one up to date",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def history(self, user: str) -> Iterator[dict[str, Any]]:
        """Transitions and refused messages of a user, in order of time. Raises ``NotFound``.

        Each of both in its own order, whatever the clock said meanwhile. A transition has who asked
        for its command too, and the hash of that program.
        """
        try:
            log = list(self._read(Transition, user))
            asked = self._asked(user)  # after the log, which may grow meanwhile
            log = [row | asked.get(row["id"], _NOT_ASKED) for row in log]
            refused = list(self._read(RefusedMessage, user))
            total = self._connection.execute(
                f'SELECT total FROM "{table(RefusedCount)}" WHERE user = ?', (user,)
            ).fetchone()
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from None
        if not log and not refused:
            raise NotFound(f"nothing is recorded of {user}", "hwsync status lists the boards")
        yield from heapq.merge(log, refused, key=lambda row: row["time"])
        if total and total[0] > limits.REFUSED_ROWS:
            yield {"user": user, "refused": total[0], "kept": limits.REFUSED_ROWS}

    def show(self, user: str, id: str) -> dict[str, Any]:
        """Everything of one command, with its rows of the log. Raises ``NotFound``."""
        try:
            command = find_command(self._connection, user, id)
            sql = f'SELECT state, id, queue FROM "{table(HwStatus)}" WHERE user = ?'
            row = next(select(self._connection, sql, user), None)
            rows = [*self._read(Transition, user), *self._read(RefusedMessage, user)]
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from None
        if command is None:
            raise NotFound(f"{user} has no command {id}", f"hwsync history {user} lists them")
        state = State(row["state"]) if row and row["id"] == id else State.REST
        queue: list[str] = loads(row["queue"]) if row else []
        shown = result_json(command, state, queue.index(id) + 1 if id in queue else 0)
        shown |= _asked(command.asker, command.program_sha256)
        shown["history"] = [entry for entry in rows if entry["id"] == id]
        return shown

    def _asked(self, user: str) -> dict[str, dict[str, Any]]:
        """Who asked for each command, by its id."""
        sql = f"""
            SELECT id, asked_by, asked_known_by, program_sha256
            FROM "{table(CommandRow)}" WHERE user = ?"""
        rows = select(self._connection, sql, user)
        return {row["id"]: _asked(asker_from(row), row["program_sha256"]) for row in rows}

    def _read(self, model: type[Model], user: str) -> Iterator[dict[str, Any]]:
        sql = f'SELECT * FROM "{table(model)}" WHERE user = ? ORDER BY row'
        for row in select(self._connection, sql, user):
            payload = row.pop("payload")
            for name in ("hash", "payload_sha256"):
                row.pop(name, None)
            yield {**row, "payload": bytes(payload).decode(errors="replace")}


def _asked(asker: Asker | None, program_sha256: str) -> dict[str, Any]:
    return {
        "asked_by": asker and asker.name,
        "asked_known_by": asker and asker.known_by,
        "program_sha256": program_sha256 or None,
    }


_NOT_ASKED: Final = _asked(None, "")  # a reset at rest is no command's


def _unreadable(path: Path, error: sqlite3.Error) -> DatabaseError:
    return DatabaseError(
        f"cannot read the database {path}: {error}",
        "is it damaged, or not readable for this account?",
    )
