"""What a program writes: hashed whole, kept with its beginning and its end, shown live in pieces.

``Capture`` never holds more than about twice its limit, whatever a program prints; ``Received``
notes which stream came when, as long as that is worth noting; ``Pieces`` shows them live.
"""

from __future__ import annotations

import codecs
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hwsync.protocol.jsons import size
from hwsync.protocol.output import Ends, Kept, Order, order_kept
from hwsync.runner.job import Piece

TIMES_PER_SECOND: Final = 10  # enough to look live, few enough for a broker
PIECE_INTERVAL_S: Final = 1 / TIMES_PER_SECOND
PIECES_AT_ONCE: Final = 8  # of streams that take turns; what is more is joined
THIN_BYTES: Final = 32 * 1024  # of one stream at once, where it is past what is kept
MOST_TURNS: Final = 1000  # of one stream after the other; no result has room for more

log = logging.getLogger("hwsync.runner")


class Capture:
    """Bytes in, text out: incrementally decoded UTF-8, bad bytes replaced.

    ``limit`` is in bytes of the kept text's own UTF-8 (a replaced byte counts as three).
    """

    def __init__(self, limit: int) -> None:
        self._ends = Ends(limit)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._hash = hashlib.sha256()
        self.total = 0  # bytes fed

    def feed(self, data: bytes) -> str:
        """Take the next bytes of the stream; returns the text that they are."""
        self.total += len(data)
        self._hash.update(data)
        return self._decode(data, final=False)

    def finish(self) -> str:
        """The stream has ended; returns what an incomplete character at its end became."""
        return self._decode(b"", final=True)

    def _decode(self, data: bytes, *, final: bool) -> str:
        text = self._decoder.decode(data, final)
        self._ends.add(text)
        return text

    def kept(self) -> Kept:
        """What is kept of the text."""
        return self._ends.kept()

    @property
    def sha256(self) -> str:
        """Hexadecimal, over every byte fed."""
        return self._hash.hexdigest()


class Received:
    """In which order the parts of several streams came."""

    def __init__(self) -> None:
        self._turns: list[tuple[str, int]] = []
        self._is_known = True

    def add(self, stream: str, text: str) -> None:
        """The next text of that stream, as it was received."""
        if not text or not self._is_known:
            return
        if self._turns and self._turns[-1][0] == stream:
            self._turns[-1] = (stream, self._turns[-1][1] + size(text))
        else:
            self._turns.append((stream, size(text)))
            self._is_known = len(self._turns) <= MOST_TURNS

    def order(self, kept: dict[str, Kept]) -> Order | None:
        """That of the kept texts; None where it is not known, or too long."""
        return order_kept(self._turns, kept) if self._is_known else None


@dataclass(slots=True)
class _Waiting:
    """Text of one stream that is to be shown next."""

    stream: str
    is_past: bool  # the limit of what is kept
    parts: list[str] = field(default_factory=list)
    skipped: int = 0  # bytes that came before it and are not shown


class Pieces:
    """Live pieces of several streams, numbered from 0 over all of them, in the order they came.

    What waits is shown ``TIMES_PER_SECOND`` times at most, the first of it at once; ``flush`` shows
    what is left at the end. Of a stream that is past its limit (``limits``: bytes) only the last
    lines of what waits are shown. Times are monotonic seconds, given by the caller. A failing
    ``on_output`` is logged once and never reaches the run.
    """

    def __init__(self, on_output: Callable[[Piece], None], limits: dict[str, int]) -> None:
        self._on_output = on_output
        self._left = dict(limits)  # bytes of each stream until it may be thinned
        self._shown = dict.fromkeys(limits, 0)  # bytes of each stream, with those that were skipped
        self._waiting: list[_Waiting] = []
        self._not_before = 0.0
        self._number = 0
        self._failed = False

    def add(self, stream: str, text: str) -> None:
        """Text that came: it waits to be shown, behind what came before."""
        if not text:
            return
        last = self._place(stream, self._left[stream] <= 0)
        last.parts.append(text)
        self._left[stream] -= size(text)
        if last.is_past:
            _thin(last, 2 * THIN_BYTES)  # not each time, since it joins all

    def _place(self, stream: str, is_past: bool) -> _Waiting:
        # Where streams take many turns, what is more goes to their last ones.
        candidates = self._waiting[-1:] if len(self._waiting) < PIECES_AT_ONCE else self._waiting
        for one in reversed(candidates):
            if (one.stream, one.is_past) == (stream, is_past):
                return one
        self._waiting.append(_Waiting(stream, is_past))
        return self._waiting[-1]

    @property
    def due(self) -> float | None:
        """When ``send`` has something to do; None: nothing is waiting."""
        return self._not_before if self._waiting else None

    def send(self, now: float) -> None:
        """Show what waits, if its time has come."""
        if self._waiting and self._not_before <= now:
            self.flush()
            self._not_before = now + PIECE_INTERVAL_S

    def flush(self) -> None:
        """Show what is left, whatever the time."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._show(one)

    def _show(self, one: _Waiting) -> None:
        if one.is_past:
            _thin(one, THIN_BYTES)
        text = "".join(one.parts)
        at = self._shown[one.stream] + one.skipped
        piece = Piece(self._number, one.stream, text, at, one.skipped)
        self._shown[one.stream] = at + size(text)
        self._number += 1
        try:
            self._on_output(piece)
        except Exception as error:
            if not self._failed:
                log.warning(
                    "live output failed (%s: %s); the run goes on, further failures are not logged",
                    type(error).__name__,
                    error,
                )
            self._failed = True


def _thin(one: _Waiting, most: int) -> None:
    """Where it has more than ``most`` bytes: only its last lines, of ``THIN_BYTES``."""
    if sum(map(len, one.parts)) <= most // 4:  # a character has four bytes at most
        return
    data = "".join(one.parts).encode()
    if len(data) <= most:
        return
    end = data[-THIN_BYTES:]
    line = end.find(b"\n", 0, THIN_BYTES // 2) + 1
    text = end[line:].decode(errors="ignore")
    one.parts = [text]
    one.skipped += len(data) - size(text)
