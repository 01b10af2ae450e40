"""What a receipt is made of, out of the database: a run's rows of the log, and the hashes from them
to a later row (``protocol.receipt``).

The law: what is given was proved here first. Nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hwsync.protocol import chain, facts, receipt
from hwsync.protocol.errors import DatabaseError, NotFound
from hwsync.protocol.wire.schema import Json
from hwsync.store import statements
from hwsync.store.read_only import OpenFile, look_for
from hwsync.store.rows import find_command, select

OLD: Final = "a row of the log is of an hwsync of before, which proves nothing without all others"


class Receipts(OpenFile):
    """The database, read for receipts; a context manager that closes it.

    Raises ``DatabaseError``: there is none, this account may not read it, or it is none of this
    schema. So does every method where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        look_for(path, "a receipt is made on the coordinator's machine; name it with --db")
        super().__init__(path)

    def users_of(self, id: str) -> list[str]:
        """The boards that have a command of that id."""
        with self._reading():
            return [row["user"] for row in select(self._connection, statements.STARTS_OF, id)]

    def hash_of(self, row: int) -> str:
        """That of a row of the log, in hexadecimal; empty: there is no such row."""
        with self._reading():
            found = self._connection.execute(statements.HASH_OF, (row,)).fetchone()
            return bytes(found[0]).hex() if found else ""

    def last(self) -> int:
        """The number of the last row of the log."""
        with self._reading():
            return int(self._connection.execute(statements.LAST_LOG_ROW).fetchone()[0] or 0)

    def last_of(self, user: str, id: str) -> int:
        """The number of the last row of a command. Raises ``NotFound``."""
        return int(self._rows(user, id)[-1]["row"])

    def make(self, user: str, id: str, head: int) -> Json:
        """The receipt of a command up to that row of the log, unsigned.

        Raises ``NotFound``; ``DatabaseError`` where it cannot be proved, and why.
        """
        with self._reading():
            rows = self._rows(user, id)
            command = find_command(self._connection, user, id)
            if command is None:
                raise NotFound(f"{user} has no command {id}", f"hwsync history {user} lists them")
            if head < rows[-1]["row"]:
                raise DatabaseError(
                    f"row {head} stands before the last row of {id}, which is {rows[-1]['row']}",
                    "name a later one",
                )
            if command.report is None:
                raise DatabaseError(f"{id} of {user} has not ended", f"hwsync wait {user} {id}")
            kept: Json = {
                **facts.asked(command.request),
                **facts.ended(command.report, command.answered_by),
            }
            own = {row["row"]: row for row in rows}
            steps = []
            numbers = chain.path_through(own, head)
            for number, below in zip(numbers, [*numbers[1:], 0], strict=True):
                row = own.get(number) or self._row(number)
                self._link(row)
                if number not in own:
                    other = row["further"] if below == number - 1 else row["previous"]
                    steps.append((number, chain.digest_of(_values(row)), other))
            try:
                shown = [_shown(row) for row in rows]
                made = receipt.make(shown, {}, steps, (head, self._row(head)["hash"]))
                made["run"] = receipt.told_by(made["rows"], kept)
                receipt.verified(made)
            except receipt.Wrong as error:
                raise DatabaseError(
                    f"there can be no receipt of {id} of {user}: {error}",
                    "hwsync check-db looks for damage",
                ) from None
            return made

    def _rows(self, user: str, id: str) -> list[dict[str, Any]]:
        with self._reading():
            rows = list(select(self._connection, statements.LOG_OF_COMMAND, user, id))
        if not rows:
            raise NotFound(f"{user} has no command {id}", f"hwsync history {user} lists them")
        return rows

    def _row(self, number: int) -> dict[str, Any]:
        row = next(select(self._connection, statements.LOG_ROW, number), None)
        if row is None:
            raise DatabaseError(f"the log has no row {number}", "hwsync check-db says all")
        return row

    def _link(self, row: dict[str, Any]) -> None:
        """Adds the hashes that a row covers; ``DatabaseError``: its own is not right."""
        number = row["row"]
        for name, other in (("previous", number - 1), ("further", chain.back(number))):
            found = self._connection.execute(statements.HASH_OF, (other,)).fetchone()
            row[name] = bytes(found[0]) if found else chain.START
        said = chain.link(number, row["previous"], row["further"], chain.digest_of(_values(row)))
        if said == row["hash"]:
            return
        if chain.link_of_before(row["previous"], _values(row)) == row["hash"]:
            raise DatabaseError(f"there can be no receipt: {OLD} (row {number})")
        raise DatabaseError(f"row {number} of the log was changed", "hwsync check-db says all")


def _values(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in chain.HASHED]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """As a receipt has it: the message as text, where it is kept."""
    names = ("row", *chain.HASHED, "previous", "further")
    shown = {name: row[name] for name in names}
    try:
        shown["payload"] = None if row["pruned"] else bytes(row["payload"]).decode()
    except UnicodeDecodeError:
        shown["payload"] = None
    return shown
