"""The chain over the log: each row's hash covers the row and the hash of the row before.

The law: a row that was changed, taken out or put in is named by ``broken``. Rows cut off the very
end leave the chain whole: they show in the records, whose seq is then ahead of their last row
(``checking``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from sqlite3 import Connection
from typing import Any, Final

from hwsync.protocol.jsons import dumps
from hwsync.store import statements

START: Final = bytes(32)  # what stands before the first row


def link(previous: bytes, values: Sequence[Any]) -> bytes:
    """The hash of a row, SHA-256; ``values`` are those of ``models.HASHED``."""
    *facts, payload = values
    return hashlib.sha256(previous + bytes(payload) + dumps(facts).encode()).digest()


def head(connection: Connection) -> bytes:
    """The hash of the last row."""
    row = connection.execute(statements.LAST_HASH).fetchone()
    return START if row is None else bytes(row[0])


def write(connection: Connection) -> None:
    """Give every row its hash: for a log that had none."""
    previous = START
    for row, _, _, payload, *values in connection.execute(statements.CHAIN).fetchall():
        digest = hashlib.sha256(payload).digest()
        previous = link(previous, [*values[:-1], digest])
        connection.execute(statements.WRITE_HASH, (previous, digest, row))


def broken(connection: Connection) -> Iterator[str]:
    """Where the chain does not hold, one line for people each."""
    previous, expected = START, 1
    for row, stored, pruned, payload, *values in connection.execute(statements.CHAIN):
        whole = not payload if pruned else hashlib.sha256(payload).digest() == values[-1]
        if row != expected:
            last = row - 1
            yield f"transitions: missing: row {expected}" + (
                f" to {last}" if last > expected else ""
            )
        elif not whole or link(previous, values) != stored:
            user, _, seq = values[:3]
            yield f"transitions: row {row} was changed (board {user}, seq {seq})"
        previous, expected = bytes(stored), row + 1
