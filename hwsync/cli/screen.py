"""What a program's output does to the terminal on which a person looks on.

The law: a terminal is given text, newlines, tabs, carriage returns (a progress bar is drawn with
them) and colours (SGR: ``ESC [ digits ; : m``); whatever else could steer it is shown as an escape.
With NO_COLOR in the environment no colours pass.
Before a line of hwsync's own, and at the end, colours are as they were and a line begins. A file or
pipe gets the program's bytes as they are, and so does a terminal with ``raw``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Final, TextIO

from hwsync.cli import say
from hwsync.logs import escape

LAYOUT: Final = "\n\t\r"  # what a program may do to a terminal beside colours
MAX_SGR: Final = 32  # characters between ESC [ and m; the longest of use has some twenty
SGR: Final = re.compile(rf"\x1b\[[0-9:;]{{0,{MAX_SGR}}}m")
BEGUN: Final = re.compile(rf"\x1b(\[[0-9:;]{{0,{MAX_SGR}}})?\Z")  # what may become one
RESET: Final = "\x1b[0m"


class Filter:
    """A stream of pieces, and what a terminal is given of them.

    ``coloured``: colours are not as they were; ``escaped``: something was shown as an escape.
    """

    def __init__(self) -> None:
        self.coloured = self.escaped = False
        self._plain = bool(os.environ.get("NO_COLOR"))  # https://no-color.org
        self._begun = ""  # the end of the last piece, where the next may make a colour of it

    def feed(self, text: str) -> str:
        """The next piece, without an end that may become a colour."""
        text = self._begun + text
        begun = BEGUN.search(text)
        self._begun = text[begun.start() :] if begun else ""
        return self._harmless(text[: begun.start()] if begun else text)

    def end(self) -> str:
        """What is left: it became none."""
        left, self._begun = self._begun, ""
        return self._harmless(left)

    def _harmless(self, text: str) -> str:
        parts, at = list[str](), 0
        for colour in SGR.finditer(text):
            parts.append(self._shown(text[at : colour.start()]))
            at = colour.end()
            if not self._plain:
                parts.append(colour[0])
                self.coloured = bool(colour[0].strip("\x1b[0:;m"))  # else it is a reset
        return "".join([*parts, self._shown(text[at:])])

    def _shown(self, text: str) -> str:
        shown = escape(text, keep=LAYOUT)
        self.escaped |= shown != text
        return shown


class Screen:
    """Standard output and standard error, as a program's output and hwsync's lines meet there.

    ``begin`` is called before anything is shown.
    """

    def __init__(
        self, *, raw: bool = False, silent: bool = False, begin: Callable[[], None] = lambda: None
    ) -> None:
        self._raw, self._silent, self._begin = raw, silent, begin
        self._streams: dict[str, TextIO | None] = {"stdout": sys.stdout, "stderr": sys.stderr}
        self._filters = {name: Filter() for name in self._streams}
        self._terminals = {name for name, one in self._streams.items() if one and one.isatty()}
        self._open = dict.fromkeys(self._streams, False)  # whether a line is begun there

    @property
    def files(self) -> set[str]:
        """The streams that are no terminal."""
        return self._streams.keys() - self._terminals

    @property
    def together(self) -> bool:
        """Whether both are one file or pipe."""
        try:
            out, err = (os.fstat(one.fileno()) for one in self._streams.values() if one)
        except (OSError, ValueError):  # closed, or not there
            return False
        return not self._terminals and os.path.samestat(out, err)

    def program(self, stream: str, text: str) -> None:
        """What the program wrote."""
        if text and not self._silent:
            self._begin()
            plain = stream in self.files or self._raw
            self._put(stream, text if plain else self._filters[stream].feed(text), plain)

    def note(self, stream: str, text: str) -> None:
        """A line of hwsync's own among what the program wrote on that stream."""
        if not self._silent:
            self._begin()
            self._settle()
            newline = "\n" if self._open[stream] else ""
            self._put(stream, f"{newline}{escape(text)}\n", stream in self.files)

    def tell(self, text: str) -> None:
        """A line of hwsync's own on standard error."""
        self._begin()
        self._settle()
        if self._open["stderr"] and "stderr" in self._terminals:
            self._put("stderr", "\n", False)
        say.line(text, err=True)

    def remark(self, text: str) -> None:
        """The same, beside what was asked for; not with ``--quiet``."""
        if not say.quiet:
            self.tell(text)

    def begin_line(self) -> None:
        """Somebody else wrote to the terminal: what comes next begins a line."""
        self._open.update(dict.fromkeys(self._terminals, True))

    def end(self) -> None:
        """The program's output is over: what was held back is shown, and colours are as before."""
        for name in self._terminals - (set(self._streams) if self._raw else set()):
            self._put(name, self._filters[name].end(), False)
        self._settle()
        if any(one.escaped for one in self._filters.values()):
            self.tell("hwsync: the escapes are the program's control characters; "
                      "--raw lets them steer this terminal")  # fmt: skip
            for one in self._filters.values():
                one.escaped = False

    def _settle(self) -> None:
        for name, one in self._filters.items():
            if one.coloured:
                one.coloured = False
                self._put(name, RESET, False)

    def _put(self, name: str, text: str, as_it_is: bool) -> None:
        stream = self._streams[name]
        if not text or stream is None:
            return
        say.program(text, stream, as_it_is=as_it_is)
        if seen := SGR.sub("", text):
            for one in self._terminals if name in self._terminals else {name}:
                self._open[one] = not seen.endswith("\n")
