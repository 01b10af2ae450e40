"""Rows that come the newest first and are shown the newest last: in a file where they are many.

The law: what is in memory is a page of each board, however many rows there are. Each board's rows
stay in their own order; between boards they go by the clock.
"""

from __future__ import annotations

import heapq
import json
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from hwsync.protocol.jsons import dumps
from hwsync.protocol.wire.history import Row

IN_MEMORY: Final = 4_194_304  # bytes; more are in a file without a name


class Spool:
    """``add`` takes pages; what is iterated over, as often as one likes, is (board, row)."""

    def __init__(self, last: int | None = None) -> None:
        """``last``: only so many are shown, the newest; None: all."""
        self._last = last
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._pages: dict[str, list[int]] = defaultdict(list)  # where each begins, by board
        self._count = 0

    def add(self, user: str, rows: Sequence[Row]) -> None:
        """Further rows of a board, the newest first, all of them older than those before."""
        if rows:
            self._pages[user].append(self._file.seek(0, 2))
            self._file.write(dumps(rows).encode() + b"\n")
            self._count += len(rows)

    def __len__(self) -> int:
        return self._count if self._last is None else min(self._count, self._last)

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        each = [self._of(user) for user in self._pages]
        merged = heapq.merge(*each, key=lambda one: one[1]["issued"])
        return islice(merged, self._count - len(self), None)

    def _of(self, user: str) -> Iterator[tuple[str, Row]]:
        for place in reversed(self._pages[user]):
            self._file.seek(place)
            for row in reversed(json.loads(self._file.readline())):
                yield user, row
