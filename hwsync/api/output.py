"""What a run has written so far, for whoever reads it while more comes.

The law: one writes, any number read; each reads all of it from its beginning, as long as that is
kept. What is kept has a limit, so that a program that nobody reads fills no memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

KEPT: Final = 1024 * 1024  # characters of a stream, at least; a final text has a quarter of it


class Text:
    """One stream."""

    def __init__(self) -> None:
        self._pieces: deque[str] = deque()
        self._first = self._end = 0  # characters of the stream before the first piece, and in all
        self._is_over = False
        self._news = threading.Condition()

    def add(self, piece: str) -> None:
        """More of it."""
        with self._news:
            self._pieces.append(piece)
            self._end += len(piece)
            while self._end - self._first - len(self._pieces[0]) >= KEPT:
                self._first += len(self._pieces.popleft())
            self._news.notify_all()

    def finish(self) -> None:
        """That was all."""
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def __str__(self) -> str:
        with self._news:
            return "".join(self._pieces)

    def lines(self) -> Iterator[str]:
        """Each line without its end, as soon as it is whole; one that does not end in parts."""
        rest = ""
        for piece in self._read():
            *whole, rest = (rest + piece).split("\n")
            yield from whole
            if len(rest) >= KEPT:
                yield rest
                rest = ""
        if rest:
            yield rest

    def _read(self) -> Iterator[str]:
        place = 0
        while True:
            with self._news:
                while place == self._end and not self._is_over:
                    self._news.wait()
                if place == self._end:
                    return
                lost = max(self._first - place, 0)
                piece = self._since(place + lost)
                place = self._end
            yield f"[hwsync: {lost:,} characters are not kept]\n" if lost else ""
            yield piece

    def _since(self, place: int) -> str:
        at, pieces = self._end, list[str]()
        for piece in reversed(self._pieces):
            at -= len(piece)
            pieces.append(piece[max(place - at, 0) :])
            if at <= place:
                break
        return "".join(reversed(pieces))
