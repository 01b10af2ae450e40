"""How a batch looks while it goes on: one live line a board on a terminal, else its output.

The law: on a terminal only hwsync's own lines stand, redrawn in place; what programs write is shown
in them as far as a line has room, with control characters as escapes. In a file or a pipe every
line of a program's output stands whole, with its board's name before it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from hwsync.cli import say
from hwsync.cli.members import Members
from hwsync.logs import escape

DRAW_S: Final = 0.1  # between two pictures
KEPT_ROWS: Final = 3  # of the terminal, for what is typed and said below
MAX_LINE: Final = 65_536  # characters without a newline, until they are a line by themselves


class Rows:
    """The live lines, on standard error; nothing where no terminal shows it.

    ``monotonic``: the clock of the members.
    """

    def __init__(
        self, members: Members, *, wanted: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        terminals = all(one is not None and one.isatty() for one in (sys.stdout, sys.stderr))
        self.live = wanted and terminals and os.environ.get("TERM", "dumb") != "dumb"
        self._members, self._monotonic = members, monotonic
        self._drawn = 0  # lines on the screen
        self._at = 0.0

    def tick(self) -> None:
        """Draw, where it is time to."""
        if self.live and self._monotonic() - self._at >= DRAW_S:
            self.draw()

    def draw(self) -> None:
        """Now."""
        if not self.live:
            return
        self._at = self._monotonic()
        size = shutil.get_terminal_size()
        lines = self._lines(max(size.lines - KEPT_ROWS, 1), size.columns)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "".join(f"\r\x1b[K{line}\n" for line in lines)
        left = "\x1b[J" if len(lines) < self._drawn else ""
        say.program(f"{up}{text}{left}", sys.stderr, as_it_is=False)
        self._drawn = len(lines)

    def tell(self, text: str) -> None:
        """A line of hwsync's own, above the live ones."""
        self.clear()
        say.line(text, err=True)
        self.draw()

    def remark(self, text: str) -> None:
        """The same; not with ``--quiet``."""
        if not say.quiet:
            self.tell(text)

    def leave(self) -> None:
        """The lines as they are now stay on the screen."""
        self.draw()
        self.live, self._drawn = False, 0

    def clear(self) -> None:
        """Take the live lines away."""
        if self._drawn:
            say.program(f"\r\x1b[{self._drawn}A\x1b[J", sys.stderr, as_it_is=False)
            self._drawn = 0

    def _lines(self, rows: int, columns: int) -> list[str]:
        now = self._monotonic()
        members = list(self._members.by_user.values())
        width = min(max((len(one.user) for one in members), default=0), 24)
        shown = members
        if len(members) > rows:  # who is still busy is what one looks for
            busy = sorted(members, key=lambda one: (one.is_over, one.began is None))
            shown = busy[: rows - 1]
        lines = []
        for one in shown:
            word, more = one.words(now)
            lines.append(f"{one.user:{width}}  {word:13} {escape(more)}")
        if len(shown) < len(members):
            counts = self._members.counts
            said = ", ".join(f"{number} {kind}" for kind, number in counts.items())
            lines.append(f"… of {len(members)}: {said}")
        return [line[: columns - 1] for line in lines]


class Lines:
    """A program's output with its board's name before each line; a ``Sink`` (``operator.streams``).

    ``show`` False: only ``last`` is kept of it.
    """

    def __init__(self, user: str, *, show: bool, on_line: Callable[[str], None]) -> None:
        self._user, self._show, self._on_line = user, show, on_line
        self._begun = {"stdout": "", "stderr": ""}

    def program(self, stream: str, text: str) -> None:
        """What the program wrote."""
        *lines, left = (self._begun[stream] + text).split("\n")
        while len(left) > MAX_LINE:
            lines, left = [*lines, left[:MAX_LINE]], left[MAX_LINE:]
        self._begun[stream] = left
        for line in lines:
            self._put(stream, line)
        last = left.strip() or next((line for line in reversed(lines) if line.strip()), "")
        if last:
            self._on_line(last.strip())

    def note(self, stream: str, text: str) -> None:
        """A line of hwsync's own among it."""
        self.end(stream)
        self._put(stream, text)

    def end(self, *streams: str) -> None:
        """What is begun is a line too."""
        for stream in streams or self._begun:
            if left := self._begun[stream]:
                self._begun[stream] = ""
                self._put(stream, left)

    def _put(self, stream: str, line: str) -> None:
        target: TextIO | None = getattr(sys, stream)
        if not self._show or target is None:
            return
        plain = not target.isatty()
        text = f"{self._user}: {line if plain else escape(line)}\n"
        say.program(text, target, as_it_is=plain)
