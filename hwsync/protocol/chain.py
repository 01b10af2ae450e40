"""The chain over the log: each row's hash covers the row, the hash before it, and one further back.

Row 12 covers the hashes of 11 and of 8 (12 without its lowest bit), row 13 that of 12 alone.
So what leads from a row to any later one is a few dozen hashes, however many rows lie between, and
of those it says nothing (docs/decisions.md, 352).

    >>> path(1, 8)
    [8, 7, 6, 4, 3, 2, 1]

The law: only hashes are computed here; nothing is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from hwsync.protocol.jsons import dumps

FACTS: Final = ("user", "epoch", "seq", "time", "command", "before", "state", "id", "late", "note",
                "topic")  # fmt: skip
HASHED: Final = (*FACTS, "payload_sha256")
"""What a row's hash covers, in this order; the payload by its own, so that it may be dropped."""

START: Final = bytes(32)  # what stands before the first row

Tops = tuple[tuple[int, bytes], ...]
"""The last row and what the next ones may cover, each with its hash; the last row stands last."""


def back(row: int) -> int:
    """Which earlier row it covers beside the one before; 0: what stands before the first."""
    return row & (row - 1)


def rows_of_tops(last: int) -> list[int]:
    """The rows of the tops of a log that ends with this one, in their order."""
    found = []
    while last:
        found.append(last)
        last = back(last)
    return found[::-1]


def digest_of(values: Sequence[Any]) -> bytes:
    """What a row says, as 32 bytes; ``values``: those of ``HASHED``."""
    *facts, payload = values
    return hashlib.sha256(bytes(payload) + dumps(facts).encode()).digest()


def link(row: int, previous: bytes, further: bytes, digest: bytes) -> bytes:
    """The hash of a row, by its number and the hashes that it covers."""
    return hashlib.sha256(row.to_bytes(8, "big") + previous + further + digest).digest()


def link_of_before(previous: bytes, values: Sequence[Any]) -> bytes:
    """The same of a row that an hwsync of before schema 8 has written."""
    *facts, payload = values
    return hashlib.sha256(previous + bytes(payload) + dumps(facts).encode()).digest()


def covered(tops: Tops) -> tuple[int, bytes, bytes]:
    """The number of the next row, and the two hashes that it covers."""
    row = (tops[-1][0] if tops else 0) + 1
    hashes = dict(tops)
    return row, hashes.get(row - 1, START), hashes.get(back(row), START)


def followed(tops: Tops, digest: bytes) -> Tops:
    """The tops with one more row."""
    if not tops:
        return ((1, link(1, START, START, digest)),)
    last, previous = tops[-1]
    at = last & (last + 1)
    kept = tops if at == last else tuple(one for one in tops if one[0] <= at)
    further = kept[-1][1] if at else START
    return (*kept, (last + 1, link(last + 1, previous, further, digest)))


def moved(tops: Tops, hash: bytes) -> Tops:
    """The same, of a row whose hash is known."""
    row = (tops[-1][0] if tops else 0) + 1
    return (*(one for one in tops if one[0] <= back(row)), (row, hash))


def path(first: int, last: int) -> list[int]:
    """The rows from the last down to the first, each covered by the one before it."""
    found = [last]
    while last > first:
        last = further if (further := back(last)) >= first else last - 1
        found.append(last)
    return found


def path_through(rows: Iterable[int], last: int) -> list[int]:
    """The same over each of these rows, from the last to the first of them."""
    found = [last]
    for row in sorted(rows, reverse=True):
        found += path(row, found[-1])[1:]
    return found
