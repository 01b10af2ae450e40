"""Rows that come the newest first and are shown the newest last: in a file where they are many.

The law: what is in memory is ``IN_MEMORY`` rows and a page of each board, however many there are.
Each board's rows stay in their own order; between boards they go by the clock.
"""

from __future__ import annotations

import heapq
import json
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import BinaryIO, Final, cast

from hwsync.protocol.jsons import dumps
from hwsync.protocol.wire.history import Row

IN_MEMORY: Final = 2_000  # rows; more are in a file without a name


class Spool:
    """``add`` takes pages; what is iterated over, as often as one likes, is (board, row)."""

    def __init__(self, last: int | None = None) -> None:
        """``last``: only so many are shown, the newest; None: all."""
        self._last = last
        # By board: each page, or where in the file it begins.
        self._pages: dict[str, list[Sequence[Row] | int]] = defaultdict(list)
        self._count = 0

    @cached_property
    def _file(self) -> BinaryIO:
        file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, file.close)
        return file

    def add(self, user: str, rows: Sequence[Row]) -> None:
        """Further rows of a board, the newest first, all of them older than those before."""
        self._count += len(rows)
        if self._count <= IN_MEMORY:
            self._pages[user].append(rows)
        else:
            self._pages[user].append(self._file.seek(0, 2))
            self._file.write(dumps(rows).encode() + b"\n")

    def __len__(self) -> int:
        return self._count if self._last is None else min(self._count, self._last)

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        each = [self._of(user) for user in sorted(self._pages)]
        merged = heapq.merge(*each, key=lambda one: one[1]["issued"])
        return islice(merged, self._count - len(self), None)

    def _of(self, user: str) -> Iterator[tuple[str, Row]]:
        for page in reversed(self._pages[user]):
            for row in reversed(self._read(page) if isinstance(page, int) else page):
                yield user, row

    def _read(self, place: int) -> Sequence[Row]:
        self._file.seek(place)
        return cast(list[Row], json.loads(self._file.readline()))
