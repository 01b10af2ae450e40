"""What is kept by its content: the bytes of files, and long texts of requests.

The law: a content is stored once, whoever has it and however often, under its SHA-256. Who has it
is written down beside it, so that what nobody has any more can be dropped. Short texts stand in the
rows of commands (docs/decisions.md, 220).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.batch import is_shared
from hwsync.protocol.errors import DatabaseError
from hwsync.protocol.files import File, Files, names_and_hashes
from hwsync.protocol.jsons import dumps
from hwsync.protocol.record import Command, Request
from hwsync.store import statements

Row = Mapping[str, Any] | sqlite3.Row

SHORT: Final = limits.LOG_PAYLOAD  # characters of a text that stands in its command's row
NONE: Final = "{}"  # of ``CommandRow.long``: all texts are short
NO_FILES: Final = "[]"  # as most have
STAY: Final = frozenset({"meta", "files"})  # when the others are dropped with the years
EMPTY: Final = {"program": "", "stdin": "", "args": "[]", "meta": "{}", "files": "[]"}


def owner_of(user: str, id: str) -> str:
    """Who has a content of a command's own."""
    return f"{user}/{id}"


@lru_cache(maxsize=8)  # a batch has the same texts for thousands of members
def sha256_of(text: str) -> str:
    """The name under which a text is kept."""
    return hashlib.sha256(text.encode()).hexdigest()


def files_from(text: str) -> Files:
    """The same, read."""
    if text == NO_FILES:
        return ()
    return tuple(File(path, size, sha256) for path, size, sha256 in json.loads(text))


def texts_of(command: Command) -> dict[str, str]:
    """The texts of a request by their columns, as they are kept."""
    request = command.request
    return {
        "program": request.program,
        "stdin": request.stdin,
        "args": dumps(request.args) if request.args else "[]",
        "meta": request.meta,
        "files": names_and_hashes(request.files),
    }


def columns_of(command: Command) -> dict[str, str]:
    """The columns of a command's row for its texts: those that are short, and ``long``."""
    texts = texts_of(command)
    if _is_small(command.request):
        texts["long"] = NONE
        return texts
    long = {name: sha256_of(text) for name, text in texts.items() if len(text) > SHORT}
    return texts | {name: EMPTY[name] for name in long} | {"long": dumps(long) if long else NONE}


def _is_small(request: Request) -> bool:
    """Whether it surely has nothing long, which most have not: it is asked at each save."""
    texts = len(request.program) + len(request.stdin) + len(request.meta)
    return texts <= SHORT and not request.args and not request.files


class Added:
    """The contents of a round, and who has them: each of both once."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.data: dict[str, bytes] = dict(files)
        self.uses: dict[tuple[str, str], bool] = {}

    def add(self, command: Command) -> None:
        """What a command has. Of one that is pruned, or has nothing long, that is nothing."""
        request, report = command.request, command.report
        returned = report.files if report else ()
        if command.pruned or (not returned and _is_small(request)):
            return
        own = owner_of(command.user, command.id)
        asked = command.batch if is_shared(command.batch) else own
        for name, text in texts_of(command).items():
            if len(text) > SHORT:
                sha256 = sha256_of(text)
                self.data.setdefault(sha256, text.encode())
                self._use(asked, sha256, stays=name in STAY)
        for file in request.files:
            self._use(asked, file.sha256)
        for file in returned:
            self._use(own, file.sha256)

    def _use(self, owner: str, sha256: str, *, stays: bool = False) -> None:
        self.uses[owner, sha256] = stays or self.uses.get((owner, sha256), False)


class Contents:
    """What is kept, read. ``share``: a long text that many have is one in memory, too."""

    def __init__(self, connection: sqlite3.Connection, *, share: bool = False) -> None:
        self._connection = connection
        self._share = share
        self._texts: dict[str, str] = {}

    def bytes(self, sha256: str) -> bytes | None:
        """A content; None: it is not kept any more."""
        row = self._connection.execute(statements.CONTENT, (sha256,)).fetchone()
        return None if row is None else bytes(row[0])

    def text(self, row: Row, name: str) -> str:
        """A text of a command's row, wherever it is.

        Raises ``DatabaseError`` where it is lost and the command is open: nobody may run it then.
        """
        if row["long"] == NONE:
            return str(row[name])
        sha256 = json.loads(row["long"]).get(name)
        if sha256 is None:
            return str(row[name])
        if sha256 in self._texts:
            return self._texts[sha256]
        data = self.bytes(sha256)
        if data is None and row["outcome"] is None:
            what = f"the {name} of {row['id']} of {row['user']} is lost"
            raise DatabaseError(what, "hwsync check-db says all")
        text = EMPTY[name] if data is None else data.decode()
        if self._share:
            self._texts[sha256] = text
        return text


Finder = Callable[[Iterable[str]], Mapping[str, bytes]]
"""Gives the contents of these hashes, as far as they are kept."""
