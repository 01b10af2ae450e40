"""The chain over the log, as it is stored (``protocol.chain``).

The law: a row that was changed, taken out or put in is named by ``broken``. Rows cut off the very
end leave the chain whole: they show in the records, whose seq is then ahead of their last row
(``checking``). Rows of before schema 8 cover the hash before them alone, and count as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from sqlite3 import Connection

from hwsync.protocol import chain
from hwsync.protocol.chain import Tops
from hwsync.store import statements


def tops(connection: Connection) -> Tops:
    """How far the log is, and what its next rows cover."""
    (last,) = connection.execute(statements.LAST_LOG_ROW).fetchone()
    found = []
    for number in chain.rows_of_tops(last or 0):
        row = connection.execute(statements.HASH_OF, (number,)).fetchone()
        found.append((number, chain.START if row is None else bytes(row[0])))
    return tuple(found)


def write(connection: Connection) -> None:
    """Give every row its hash: for a log that had none."""
    reached: Tops = ()
    for row, _, _, payload, *values in connection.execute(statements.CHAIN).fetchall():
        digest = hashlib.sha256(payload).digest()
        reached = chain.followed(reached, chain.digest_of([*values[:-1], digest]))
        connection.execute(statements.WRITE_HASH, (reached[-1][1], digest, row))


def broken(connection: Connection) -> Iterator[str]:
    """Where the chain does not hold, one line for people each."""
    reached: Tops = ()
    for row, stored, pruned, payload, *values in connection.execute(statements.CHAIN):
        expected = (reached[-1][0] if reached else 0) + 1
        whole = not payload if pruned else hashlib.sha256(payload).digest() == values[-1]
        if row != expected:
            last = row - 1
            yield f"transitions: missing: row {expected}" + (
                f" to {last}" if last > expected else ""
            )
            reached = tuple(one for one in reached if one[0] <= chain.back(row))
            reached = (*reached, (row - 1, b""))  # which nobody knows any more
        elif not whole or not _holds(reached, values, bytes(stored)):
            user, _, seq = values[:3]
            yield f"transitions: row {row} was changed (board {user}, seq {seq})"
        reached = chain.moved(reached, bytes(stored))


def _holds(reached: Tops, values: list[object], stored: bytes) -> bool:
    row, previous, further = chain.covered(reached)
    if chain.link(row, previous, further, chain.digest_of(values)) == stored:
        return True
    if chain.back(row) and not dict(reached).get(chain.back(row)):
        return True  # it covers a row that is missing, which was named
    return chain.link_of_before(previous, values) == stored
