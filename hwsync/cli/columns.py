"""Tables for people: a line of headings, columns as wide as they must be; one that is redrawn."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Final

from hwsync.cli import say
from hwsync.logs import escape

GAP: Final = "  "


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines; a column in which nothing stands is left out, the last one is not filled up."""
    cells = [list(map(escape, row)) for row in rows]
    kept = [n for n in range(len(heads)) if any(row[n] for row in cells)]
    lines = [[heads[n] for n in kept], *([row[n] for n in kept] for row in cells)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(kept))]
    return [
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


class Redrawn:
    """Lines on a terminal that the next ones replace."""

    def __init__(self) -> None:
        self.wanted = (
            sys.stdout is not None
            and sys.stdout.isatty()
            and os.environ.get("TERM", "dumb") != "dumb"
        )
        self._drawn = 0

    def draw(self, lines: Sequence[str]) -> None:
        """These, as far as the terminal has room."""
        size = shutil.get_terminal_size()
        shown = [line[: size.columns - 1] for line in lines[: max(size.lines - 1, 1)]]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "".join(f"\r\x1b[K{line}\n" for line in shown)
        say.program(f"{up}{text}\x1b[J", sys.stdout, as_it_is=False)
        self._drawn = len(shown)
