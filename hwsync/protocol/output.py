"""What is kept of a long text, and where: its beginning and its end, and one line between them.

The law: a text within its limit is kept whole. Of a longer one the first three quarters and the
last quarter of the limit stay, cut at line ends where that costs less than half of a part, and the
line between them, which counts within the limit, says how many bytes are left out. Sizes are bytes
of UTF-8 (docs/protocol.md, section 5).

    >>> keep_ends("a\\n" * 500, 200)[0].splitlines()[50:53]
    ['a', '[hwsync: 866 bytes left out]', 'a']
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hwsync.protocol.jsons import cut, dumps, size
from hwsync.protocol.limits import MAX_ORDER

GAP_ROOM: Final = 64  # bytes that the line between may take
GAP: Final = re.compile(r"^\[hwsync: ([0-9,]{1,24}) bytes left out(, within a line)?\]\n", re.M)

Order = tuple[tuple[str, int], ...]
"""(stream, bytes) in the order received; a stream's own bytes follow each other."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A text as it is kept. Without a gap ``head`` is all of it."""

    text: str
    truncated: bool
    head: int  # bytes of the whole that come before the gap
    left_out: int = 0  # bytes that are not kept, all in one place
    line: int = 0  # bytes of the line that says so

    def position(self, before: int) -> int:
        """Where in the kept text a place of the whole stands; both in bytes.

        The line is passed where all that it speaks of is.
        """
        if not self.line or before <= self.head:
            return before
        after = before - self.head - self.left_out
        return self.head if after < 0 else self.head + self.line + after


class Ends:
    """A text that grows, of which at most about twice ``limit`` bytes are ever held."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._first = max(0, limit - GAP_ROOM) * 3 // 4
        self._last = max(0, limit - GAP_ROOM) - self._first
        self._head = bytearray()
        self._rest = bytearray()  # what follows the head, its end if it is too long
        self.total = 0

    def add(self, text: str) -> None:
        """The next part of the text."""
        data = text.encode()
        self.total += len(data)
        room = self._first - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._rest += data
        most = self._limit - self._first
        if len(self._rest) > 2 * most:
            del self._rest[:-most]

    def kept(self) -> Kept:
        """The text as it is kept, up to now."""
        if self.total <= self._limit:
            return Kept((self._head + self._rest).decode(), False, self.total)
        head, last = bytes(self._head), bytes(self._rest[len(self._rest) - self._last :])
        end = head.rfind(b"\n") + 1
        within = end < len(head) // 2
        head = _start(head) if within else head[:end]
        start = last.find(b"\n") + 1
        tail = last[start:] if 0 < start <= len(last) // 2 else _end(last)
        left_out = self.total - len(head) - len(tail)
        line = ("\n" if within else "") + _line(left_out, within)
        return Kept(head.decode() + line + tail.decode(), True, len(head), left_out, len(line))


def _line(left_out: int, within: bool) -> str:
    """What stands in the gap; a newline comes before it where the line before is cut."""
    return f"[hwsync: {left_out:,} bytes left out{', within a line' if within else ''}]\n"


def _start(data: bytes) -> bytes:
    """Without a character that is cut at its end."""
    return data.decode(errors="ignore").encode()


def _end(data: bytes) -> bytes:
    """Without what is left of a character at its start."""
    return data.lstrip(bytes(range(0x80, 0xC0)))


def keep_ends(text: str, limit: int) -> tuple[str, bool]:
    """(the text as it is kept, whether something is left out)."""
    if size(text) <= limit:
        return text, False
    ends = Ends(limit)
    ends.add(text)
    return ends.kept().text, True


def keep_again(text: str, limit: int, truncated: bool) -> str:
    """A text that may have been cut before (``truncated``), cut to a smaller limit.

    Its line counts what was left out before, where that lay in the part that is left out now.
    Below ``GAP_ROOM`` nothing but a beginning fits.
    """
    if limit < GAP_ROOM:
        return cut(text, limit)
    ends = Ends(limit)
    ends.add(text)
    before, now = read_kept(text, truncated), ends.kept()
    covers = now.head <= before.head and before.head + before.line <= now.head + now.left_out
    if not (before.line and now.line and covers):
        return now.text
    count = now.left_out - before.line + before.left_out
    return GAP.sub(lambda match: _line(count, bool(match[2])), now.text, count=1)


def read_kept(text: str, truncated: bool) -> Kept:
    """What a reader sees in a text that was kept: where its gap is.

    A text that was cut by somebody who says nothing of it has all of its bytes before the gap. A
    program that prints such a line itself misleads whoever reads its own output, and nobody else.
    """
    match = GAP.search(text) if truncated else None
    if match is None:
        return Kept(text, truncated, size(text))
    within = bool(match[2])  # then the line begins with a newline that is not the text's own
    line = len(match[0]) + within
    head = size(text[: match.start()]) - within
    return Kept(text, True, head, int(match[1].replace(",", "")), line)


def order_kept(order: Iterable[tuple[str, int]], kept: dict[str, Kept]) -> Order | None:
    """The order in which the parts of the kept texts came; None where it would be too long.

    ``order``: of the whole texts, as they were received.
    """
    found: list[tuple[str, int]] = []
    passed = dict.fromkeys(kept, 0)
    said = dict.fromkeys(kept, 0)
    for stream, count in order:
        passed[stream] += count
        here = kept[stream].position(passed[stream])
        new, said[stream] = here - said[stream], here
        if new and found and found[-1][0] == stream:
            found[-1] = (stream, found[-1][1] + new)
        elif new:
            found.append((stream, new))
    return tuple(found) if len(dumps(found)) <= MAX_ORDER else None
