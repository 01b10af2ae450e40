"""One stream of a program's output: hashed whole, kept up to a limit, shown live in pieces.

``Capture`` never keeps more than its limit, whatever a program prints. ``Pieces`` decides when what
was kept is shown; all pieces of a stream, joined, are the kept text.
"""

from __future__ import annotations

import codecs
import hashlib
import logging
from collections.abc import Callable
from typing import Final

from hwsync.protocol.jsons import size
from hwsync.runner.job import Piece

PIECES_PER_SECOND: Final = 10  # of both streams: enough to look live, few enough for a broker
PIECE_INTERVAL_S: Final = 1 / PIECES_PER_SECOND

log = logging.getLogger("hwsync.runner")


class Capture:
    """Bytes in, text out: incrementally decoded UTF-8, bad bytes replaced, cut at a character.

    ``limit`` is in bytes of the kept text's own UTF-8 (a replaced byte counts as three).
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._parts: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._hash = hashlib.sha256()
        self.truncated = False
        self.total = 0  # bytes fed

    def feed(self, data: bytes) -> str:
        """Take the next bytes of the stream; returns the text that was newly kept."""
        self.total += len(data)
        self._hash.update(data)
        return self._keep(data, final=False)

    def finish(self) -> str:
        """The stream has ended; returns what an incomplete character at its end became."""
        return self._keep(b"", final=True)

    def _keep(self, data: bytes, *, final: bool) -> str:
        if self.truncated:
            return ""
        text = self._decoder.decode(data, final)
        encoded = text.encode("utf-8")
        if len(encoded) > self._room:
            self.truncated = True
            encoded = encoded[: self._room]
            text = encoded.decode("utf-8", "ignore")  # drops only the character that was cut
        self._room -= len(encoded)
        if text:
            self._parts.append(text)
        return text

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def sha256(self) -> str:
        """Hexadecimal, over every byte fed."""
        return self._hash.hexdigest()


class Pieces:
    """Live pieces of several streams, numbered from 0 over all of them.

    The first piece is due at once, each later one ``PIECE_INTERVAL_S`` after the one before, of
    whichever stream; where several wait, the one that has waited longest is shown.
    ``flush`` gives whatever is left at the end. Times are monotonic seconds, given by the caller.
    A failing ``on_output`` is logged once and never reaches the run.
    """

    def __init__(self, on_output: Callable[[Piece], None]) -> None:
        self._on_output = on_output
        self._waiting: dict[str, list[str]] = {}
        self._not_before = 0.0
        self._number = 0
        self._shown: dict[str, int] = {}  # bytes of each stream
        self._failed = False

    def add(self, stream: str, text: str) -> None:
        if text:
            self._waiting.setdefault(stream, []).append(text)

    @property
    def due(self) -> float | None:
        """When ``send`` has something to do; None: nothing is waiting."""
        return self._not_before if self._waiting else None

    def send(self, now: float) -> None:
        """Show what has waited longest, if its time has come."""
        if self._waiting and self._not_before <= now:
            self._show(next(iter(self._waiting)))
            self._not_before = now + PIECE_INTERVAL_S

    def flush(self) -> None:
        """Show what is left, whatever the time."""
        for stream in list(self._waiting):
            self._show(stream)

    def _show(self, stream: str) -> None:
        text = "".join(self._waiting.pop(stream))
        at = self._shown.get(stream, 0)
        piece = Piece(self._number, stream, text, at)
        self._shown[stream] = at + size(text)
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
