"""The programs of a soak, which write down themselves that they began and ended.

The law: a program is told by its ``tag``, which is in its text and its output. It appends a line
``WORD BOARD TAG PROCESS MONOTONIC RAW`` to the *witness*, a file outside hwsync: when that was by
the clock of the history in seconds, and by the machine's raw clock, of which lab time is made, in
nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

LINE: Final = "=" * 99 + "\n"
LARGE_LINES: Final = 2_400  # below what a device keeps, and above what a small broker takes
LARGE_EACH: Final = 5  # every so many-eth program prints them

# A board's folder is ``device-NAME``, and its programs run below it.
PROGRAM: Final = """import os, time
witness = os.open({witness!r}, os.O_WRONLY | os.O_APPEND)
board = os.getcwd().rpartition("/device-")[2].partition("/")[0]
def say(word):
    raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    line = f"{{word}} {{board}} {tag} {{os.getpid()}} {{time.monotonic()}} {{raw}}\\n"
    os.write(witness, line.encode())
say("began")
time.sleep({sleep:.3f})
print("{tag} was here", flush=True)
print({line!r} * {lines}, end="")
say("ended")
"""


class Programs:
    """Every program that was sent: what it prints, and whether it was ``by_hand``.

    Its tag is its command's id too, unless it was sent by hand.
    """

    def __init__(self, witness: str, *, large: bool = False) -> None:
        self._witness = witness
        self._large = large  # whether some print more than a broker may take at once
        self.text: dict[str, str] = {}  # by tag
        self.by_hand: set[str] = set()
        self._printed: dict[str, str] = {}  # by text

    def make(self, tag: str, sleep: float, *, by_hand: bool = False) -> str:
        """Another program, which sleeps so many seconds."""
        lines = LARGE_LINES if self._large and len(self.text) % LARGE_EACH == 0 else 0
        program = PROGRAM.format(
            witness=self._witness, tag=tag, sleep=sleep, line=LINE, lines=lines
        )
        self.text[tag] = program
        self._printed[program] = f"{tag} was here\n" + LINE * lines
        if by_hand:
            self.by_hand.add(tag)
        return program

    def output(self, program: str) -> str:
        """What it prints; nothing where it is none of these."""
        return self._printed.get(program, "")


@dataclass(frozen=True, slots=True)
class Line:
    """What a program wrote down. ``at``: monotonic seconds; ``raw_us``: of the raw clock."""

    word: str
    user: str
    tag: str
    process: str
    at: float
    raw_us: float


def read_lines(lines: Iterable[str]) -> Iterator[Line]:
    """The lines of a witness."""
    for line in lines:
        word, user, tag, process, at, raw_ns = line.split()
        yield Line(word, user, tag, process, float(at), int(raw_ns) / 1_000)
