"""What damage or a foreign hand has done to a database: found and named, never mended.

The law: the coordinator may use it meanwhile; what cannot be read is named, and the rest is looked
at.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hwsync.protocol.admission import digest_of
from hwsync.protocol.analysis import noted
from hwsync.protocol.errors import DatabaseError
from hwsync.protocol.files import NOTED, note_of
from hwsync.protocol.record import WHO_ASKED, Request, Verb, replace
from hwsync.store import chain, statements
from hwsync.store.contents import NONE, Contents, files_from
from hwsync.store.migrations import COMMANDS_OF_6, SCHEMA
from hwsync.store.read_only import opened
from hwsync.store.rows import analysed_by_from, asked_from, regrade_from, start_from


def check(path: Path, begins: Callable[[str], object] = lambda _: None) -> Iterator[str]:
    """What is wrong with a database, one line for people each; none: nothing was found.

    The file itself, the hashes over the log, each record beside the end of its log, programs and
    results beside their hashes, who asked beside what the log says (docs/decisions.md, 54). Of an
    older schema what it has. ``begins`` is told what is looked at next. Raises ``DatabaseError``
    where it cannot even be opened.
    """
    with contextlib.closing(opened(path)) as connection:
        (version,) = connection.execute(statements.VERSION).fetchone()
        looks = {"file": _pages}
        if version > 1:  # the first one had no hashes
            looks |= {"transitions": chain.broken, "hw_status": _records, "commands": _commands}
        if version == 6:
            looks["commands"] = _commands_of_6
        if version >= 7:
            looks |= {"commands": _present_commands, "asked": _askers, "files": _files}
            looks["contents"] = _contents
        if version == SCHEMA:
            looks["analyses"] = _analyses
        for name, look in looks.items():
            begins(name)
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


def _commands_of_6(connection: sqlite3.Connection) -> Iterator[str]:
    return _commands(connection, COMMANDS_OF_6)


def _present_commands(connection: sqlite3.Connection) -> Iterator[str]:
    return _commands(connection, contents=Contents(connection))


def _commands(
    connection: sqlite3.Connection,
    statement: str = statements.COMMANDS,
    contents: Contents | None = None,
) -> Iterator[str]:
    """Programs and results are those whose hashes are stored."""
    for row in _rows(connection, statement):
        name = f"commands: {row['id']} of {row['user']}"
        if row["pruned"]:
            continue
        try:
            digest = _digest(dict(row), contents)
        except DatabaseError as error:
            yield f"{name}: {error.message}"
            continue
        if not row["orphan"] and digest != row["digest"]:
            yield f"{name}: its program, stdin, args, name, start or files were changed"
        if row["truncated"]:
            continue
        for text, stored in (("response", "sha256_stdout"), ("stderr", "sha256_stderr")):
            # Bytes that were no UTF-8 were replaced: then the hash is not that of the text.
            whole = row[text].encode()
            if row[stored] and "\ufffd" not in row[text] and _sha256(whole) != row[stored]:
                yield f"{name}: its {text} was changed"


def _askers(connection: sqlite3.Connection) -> Iterator[str]:
    """Who asked is who the log names, and a program's own hash is that of the program."""
    contents = Contents(connection)
    for row in _rows(connection, statements.NOTED, Verb.REQUEST):
        name = f"commands: {row['id']} of {row['user']}"
        _, asked, said = row["note"].partition(WHO_ASKED)
        stored = row["asked_by"] is not None and f"({row['asked_known_by']}): {row['asked_by']}"
        if (bool(asked) and said) != stored:
            yield f"{name}: who asked was changed"
        if (
            not row["pruned"]
            and _sha256(contents.text(row, "program").encode()) != row["program_sha256"]
        ):
            yield f"{name}: the hash of its program was changed"


def _files(connection: sqlite3.Connection) -> Iterator[str]:
    """Names and hashes of files are those that the log says, also when their bytes were dropped."""
    contents = Contents(connection)
    for verb, column in ((Verb.REQUEST, "files"), (Verb.RESPONSE, "returned")):
        said: dict[tuple[str, str], bool] = {}
        for row in _rows(connection, statements.NOTED, verb):
            key, is_noted = (row["user"], row["id"]), row["note"].startswith(NOTED)
            if is_noted or row[column] != "[]" or row["long"] != NONE:
                text = contents.text(row, column) if column == "files" else row[column]
                noted = note_of(files_from(text))
                # Of several results the last that speaks of files counts; of none, there are none.
                if is_noted or key not in said:
                    said[key] = bool(noted) == is_noted and row["note"].startswith(noted)
        for (user, id), is_same in said.items():
            if not is_same:
                yield f"commands: {id} of {user}: its {column} were changed"


def _analyses(connection: sqlite3.Connection) -> Iterator[str]:
    """What analysers said is what the log has the hash of, and each regrade is there."""
    for row in _rows(connection, statements.ANALYSES):
        by = analysed_by_from(row["analysed_by"])
        said = by and noted(by, row["analysis"])
        if said and not connection.execute(statements.IS_NOTED, (*_of(row), said)).fetchone():
            yield f"commands: {row['id']} of {row['user']}: its analysis was changed"
        found = list(_rows(connection, statements.REGRADES, *_of(row)))
        if [[one["name"], one["version"]] for one in found] != json.loads(row["regraded"]):
            yield f"regrades: of {row['id']} of {row['user']} one is lost, or was added"
        for one in () if row["pruned"] else found:
            regrade = regrade_from(dict(one))
            said = noted(regrade.by, regrade.analysis, regrade=True)
            if not connection.execute(statements.IS_NOTED, (*_of(row), said)).fetchone():
                yield f"regrades: {regrade.by.name} of {row['id']} of {row['user']} was changed"


def _of(row: sqlite3.Row) -> tuple[str, str]:
    return row["user"], row["id"]


def _contents(connection: sqlite3.Connection) -> Iterator[str]:
    """Each content has its hash, and whoever has one finds it."""
    for row in _rows(connection, statements.ALL_CONTENTS):
        if _sha256(bytes(row["data"])) != row["sha256"]:
            yield f"contents: {row['sha256']} was changed"
    for row in _rows(connection, statements.MISSING_CONTENTS):
        yield f"contents: {row['sha256']} of {row['owner']} is lost"


def _digest(row: dict[str, Any], contents: Contents | None) -> str:
    asked = _asked_before(row) if contents is None else asked_from(row, contents)
    # Before schema 4 there was no name, before 6 no start.
    return digest_of(replace(asked, name=row.get("name"), start=start_from(row.get("start"))))


def _asked_before(row: dict[str, Any]) -> Request:
    """What a request says in texts, of a row before schema 7 (``COMMANDS_OF_6``)."""
    start = "t_" if row.get("t_program") is not None else ""
    return Request(
        program=row[f"{start}program"],
        stdin=row[f"{start}stdin"],
        args=tuple(json.loads(row[f"{start}args"])),
        meta=row[f"{start}meta"],
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
