"""The output of one command: live pieces as they come, then what is missing of the final texts.

The law: nothing is shown twice, nothing out of order where the order is known, and nothing is left
out that can be had. A piece says how many bytes of its stream came before it; what was shown of a
stream is such a number too, so that no text is ever compared with another.

Where a piece was lost on the way, there are two ways to go on. A person who looks on is told, and
sees what comes next. A file or pipe gets every byte of the final text and no other: its stream is
held back, until the end brings what is missing; but no more of it than a final text can have, so
that a run of thirty days does not stop for one lost message.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from hwsync.protocol import limits
from hwsync.protocol.jsons import size
from hwsync.protocol.output import Kept, read_kept
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.status import CommandFields

TEXTS: Final = ("stdout", "stderr")  # the streams
MOST_HELD: Final = limits.MAX_RESPONSE + limits.MAX_STDERR  # bytes; more is not kept of any run
CONTINUED: Final = frozenset(bytes([byte]) for byte in range(0x80, 0xC0))  # within a character
LEFT_OUT: Final = "left out"
LOST: Final = "were lost on the way"


def texts_of(end: CommandFields) -> dict[str, str]:
    """What is kept of each stream."""
    return {"stdout": end["hw_response"], "stderr": end["stderr"]}


class Sink(Protocol):
    """Where output goes."""

    def program(self, stream: str, text: str) -> None:
        """What the program wrote."""

    def note(self, stream: str, text: str) -> None:
        """A line of hwsync's own among it; without its newline."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A live piece; ``at``: bytes of its stream before it, ``skipped``: of these, unsent ones."""

    stream: str
    at: int
    skipped: int
    text: str

    @property
    def after(self) -> int:
        """The bytes of the stream up to its end."""
        return self.at + size(self.text)

    def between(self, low: int, high: int) -> str:
        """What it has of these places of the stream."""
        data = self.text.encode()
        return data[max(low - self.at, 0) : max(high - self.at, 0)].decode(errors="replace")


class Streams:
    """What was shown of both streams, and what is held back.

    ``exact``: the streams that get no other byte than the program's; ``together``: both are, and go
    to one place, so that neither can go on where a piece of the other may be missing.
    """

    def __init__(
        self, id: str, sink: Sink, exact: Collection[str] = (), *, together: bool = False
    ) -> None:
        self._id, self._sink = id, sink
        self._exact, self._together = exact, together
        self._next = 0  # the number of the next piece
        self._heard = dict.fromkeys(TEXTS, 0)  # bytes up to the end of the last piece
        self._shown = dict.fromkeys(TEXTS, 0)  # bytes of the whole stream that are dealt with
        self._stopped: frozenset[str] = frozenset()  # streams that are held back
        self._held: list[Piece] = []
        self._held_size = 0  # bytes
        self.missing = 0  # bytes that were not shown, and said to be missing

    def hear(self, kind: TopicKind, fields: Mapping[str, Any]) -> None:
        """Show a piece, if this is one that is new; ``fields``: as ``Received`` has them."""
        due = self._next
        piece = self._piece(fields) if kind is TopicKind.OUTPUT and fields else None
        if piece is None:
            return
        absent = piece.at > self._shown[piece.stream] and piece.stream in self._exact
        if self._together and (absent or self._next > due + 1):  # it may be the other one's
            self._stopped = frozenset(TEXTS)
        elif absent:
            self._stopped |= {piece.stream}
        if piece.stream not in self._stopped:
            self._show(piece)
            return
        self._held.append(piece)
        self._held_size += piece.after - piece.at
        if self._held_size > MOST_HELD:
            held, self._held, self._held_size = self._held, [], 0
            self._stopped = frozenset()
            for one in held:
                self._show(one)

    def finish(self, end: CommandFields) -> None:
        """Show what the final texts have beyond that, in the order in which it was written."""
        texts = texts_of(end).items()
        kept = {stream: read_kept(text, end["truncated"]) for stream, text in texts}
        data = {stream: text.text.encode() for stream, text in kept.items()}
        for stream, text in kept.items():
            if data[stream] and not text.truncated and self._shown[stream] > text.head:
                self._sink.note(stream, "[hwsync: that was not all of the program's; this is:]")
                self._shown[stream] = 0
        done = {stream: text.position(self._shown[stream]) for stream, text in kept.items()}
        for stream, until in _order(end.get("order"), kept, data):
            if until > done[stream]:
                self._finish(stream, kept[stream], data[stream], done[stream], until)
                done[stream] = until

    def _finish(self, stream: str, kept: Kept, data: bytes, done: int, until: int) -> None:
        """The kept text between two places, and for its gap what is better known here."""
        behind = kept.head + kept.line
        if kept.line and done <= kept.head and until >= behind:
            self._sink.program(stream, data[done : kept.head].decode())
            self._gap(stream, kept, data[kept.head : behind].decode())
            done = behind
        self._sink.program(stream, data[done:until].decode())

    def _gap(self, stream: str, kept: Kept, line: str) -> None:
        """What was held back of the bytes that are not kept; ``line`` where nothing was."""
        low, high = max(self._shown[stream], kept.head), kept.head + kept.left_out
        held = [one for one in self._held if one.stream == stream and one.after > low]
        if not held and low == kept.head:
            self.missing += kept.left_out
            self._sink.program(stream, line)
            return
        for piece in held:
            if low < (start := min(piece.at, high)):
                self._note(stream, start - low, LEFT_OUT)
                low = start
            self._sink.program(stream, piece.between(low, high))
            low = max(low, min(piece.after, high))
        self._note(stream, high - low, LEFT_OUT)

    def _piece(self, fields: Mapping[str, Any]) -> Piece | None:
        """The piece, where it is a new one of ours whose place is known."""
        n, stream = fields["n"], fields["stream"]
        if fields["id"] != self._id or n < self._next or stream not in TEXTS:
            return None
        at: int | None = fields.get("at")
        if at is None:  # an older device: it follows the last one, if none between was lost
            if n > self._next:
                return None
            at = self._heard[stream]
        piece = Piece(stream, at, fields.get("skipped") or 0, fields["text"])
        self._next, self._heard[stream] = n + 1, piece.after
        return piece

    def _show(self, piece: Piece) -> None:
        absent = piece.at - self._shown[piece.stream]
        if absent < 0:
            return  # no device says so: what was shown is not shown again
        thinned = min(piece.skipped, absent)
        self._note(piece.stream, absent - thinned, LOST)
        self._note(piece.stream, thinned, LEFT_OUT)
        self._shown[piece.stream] = piece.after
        self._sink.program(piece.stream, piece.text)

    def _note(self, stream: str, count: int, what: str) -> None:
        if count:
            self.missing += count
            self._sink.note(stream, f"[hwsync: {count:,} bytes {what}]")


def _order(
    said: Sequence[Sequence[Any]] | None, kept: Mapping[str, Kept], data: Mapping[str, bytes]
) -> list[tuple[str, int]]:
    """(stream, place in its kept text up to which it comes now); else standard output first.

    An order that parts a character, or the line for the gap, or is not all, is none.
    """
    default = [(stream, len(data[stream])) for stream in TEXTS]
    passed = dict.fromkeys(TEXTS, 0)
    order: list[tuple[str, int]] = []
    for stream, count in said or ():
        if stream not in TEXTS:
            return default
        at = passed[stream] = passed[stream] + count
        text = kept[stream]
        if text.head < at < text.head + text.line or data[stream][at : at + 1] in CONTINUED:
            return default
        order.append((stream, at))
    return order if all(passed[stream] == len(data[stream]) for stream in TEXTS) else default
