"""What damage or a foreign hand has done to a database: found and named, never mended.

The law: the coordinator may use it meanwhile; what cannot be read is named, and the rest is looked
at.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwsync.protocol.admission import digest_of
from hwsync.protocol.record import WHO_ASKED, Verb, replace
from hwsync.store import chain, statements
from hwsync.store.migrations import SCHEMA
from hwsync.store.read_only import opened
from hwsync.store.rows import start_from, texts_of


def check(path: Path) -> Iterator[str]:
    """What is wrong with a database, one line for people each; none: nothing was found.

    The file itself, the hashes over the log, each record beside the end of its log, programs and
    results beside their hashes, who asked beside what the log says (docs/decisions.md, 54). Of an
    older schema what it has. Raises ``DatabaseError`` where it cannot even be opened.
    """
    with contextlib.closing(opened(path)) as connection:
        (version,) = connection.execute(statements.VERSION).fetchone()
        looks = {"file": _pages}
        if version > 1:  # the first one had no hashes
            looks |= {"transitions": chain.broken, "hw_status": _records, "commands": _commands}
        if version == SCHEMA:
            looks |= {"commands": _commands_and_texts, "asked": _askers}
        for name, look in looks.items():
            try:
                yield from look(connection)
            except (sqlite3.Error, ValueError, TypeError) as error:
                yield f"{name}: cannot be read: {error}"


def _rows(connection: sqlite3.Connection, sql: str, *values: object) -> Iterator[sqlite3.Row]:
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    yield from cursor.execute(sql, values)


def _pages(connection: sqlite3.Connection) -> Iterator[str]:
    for (said,) in connection.execute(statements.EVERY_FAULT):
        if said != "ok":
            yield f"file: {said}"


def _records(connection: sqlite3.Connection) -> Iterator[str]:
    """Each record is as far as its last row of the log."""
    last = {row["user"]: row for row in _rows(connection, statements.LOG_ENDS)}
    for row in _rows(connection, statements.RECORD_ENDS):
        logged = last.pop(row["user"], None)
        said = (row["seq"], row["state"])
        if logged is None or (logged["seq"], logged["state"]) != said:
            found = "nothing" if logged is None else f"seq {logged['seq']}, state {logged['state']}"
            yield f"hw_status: {row['user']} is at seq {said[0]}, state {said[1]}; its log: {found}"
    for user in last:
        yield f"hw_status: {user} is in the log and has no record"


def _commands_and_texts(connection: sqlite3.Connection) -> Iterator[str]:
    return _commands(connection, statements.WITH_TEXTS)


def _commands(
    connection: sqlite3.Connection, statement: str = statements.COMMANDS
) -> Iterator[str]:
    """Programs and results are those whose hashes are stored."""
    for row in _rows(connection, statement):
        name = f"commands: {row['id']} of {row['user']}"
        if row["pruned"]:
            continue
        if not row["orphan"] and _digest(row) != row["digest"]:
            yield f"{name}: its program, stdin, args or name were changed"
        if row["truncated"]:
            continue
        for text, stored in (("response", "sha256_stdout"), ("stderr", "sha256_stderr")):
            # Bytes that were no UTF-8 were replaced: then the hash is not that of the text.
            whole = row[text].encode()
            if row[stored] and "\ufffd" not in row[text] and _sha256(whole) != row[stored]:
                yield f"{name}: its {text} was changed"


def _askers(connection: sqlite3.Connection) -> Iterator[str]:
    """Who asked is who the log names, and a program's own hash is that of the program."""
    for row in _rows(connection, statements.NOTED, Verb.REQUEST):
        name = f"commands: {row['id']} of {row['user']}"
        _, asked, said = row["note"].partition(WHO_ASKED)
        stored = row["asked_by"] is not None and f"({row['asked_known_by']}): {row['asked_by']}"
        if (bool(asked) and said) != stored:
            yield f"{name}: who asked was changed"
        if (
            not row["pruned"]
            and _sha256(texts_of(dict(row)).program.encode()) != row["program_sha256"]
        ):
            yield f"{name}: the hash of its program was changed"


def _digest(row: Any) -> str:
    values = dict(row)  # before schema 4 there was no name, before 6 no start
    texts, start = texts_of(values), start_from(values.get("start"))
    return digest_of(replace(texts, name=values.get("name"), start=start))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
