"""The programs of a soak, which write down themselves that they began and ended.

The law: a program is told by its ``tag``, which is in its text and its output. It appends a line
``WORD BOARD TAG PROCESS MONOTONIC RAW`` to the *witness*, a file outside hwsync: when that was by
the clock of the history in seconds, and by the machine's raw clock, of which lab time is made, in
nanoseconds.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from hwsync.protocol.files import File
from hwsync.testing.history import FileList
from hwsync.testing.programs import listed

LINE: Final = "=" * 99 + "\n"
LARGE_LINES: Final = 2_400  # below what a device keeps, and above what a small broker takes
LARGE_EACH: Final = 5  # every so many-eth program prints them
FILE_EACH: Final = 2  # every so many-eth of a board's own takes a file along, and brings one back
FILE_BYTES: Final = 40_000  # of it; more than a page of any disk
SENT, BACK = "in/sent.bin", "out/back.bin"  # what comes back is what was sent, backwards

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
{turn}print("{tag} was here", flush=True)
print({line!r} * {lines}, end="")
say("ended")
"""


READ: Final = "read-"  # begins the word that has the hash of what was read
TURN: Final = f"""import hashlib
data = open({SENT!r}, "rb").read()
os.mkdir("out")
with open({BACK!r}, "wb") as file:
    file.write(data[::-1])
say(f"{READ}{{hashlib.sha256(data).hexdigest()}}")
"""
"""It says what it has read once all is written."""


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
        self.sent: dict[str, File] = {}  # by tag
        self.back: dict[str, File] = {}

    def make(self, tag: str, sleep: float, *, by_hand: bool = False, turn: str = "") -> str:
        """Another program, which sleeps so many seconds. ``turn``: what it does then."""
        lines = LARGE_LINES if self._large and len(self.text) % LARGE_EACH == 0 else 0
        program = PROGRAM.format(
            witness=self._witness, tag=tag, sleep=sleep, line=LINE, lines=lines, turn=turn
        )
        self.text[tag] = program
        self._printed[program] = f"{tag} was here\n" + LINE * lines
        if by_hand:
            self.by_hand.add(tag)
        return program

    def make_with_a_file(self, tag: str, sleep: float) -> tuple[str, dict[str, Any]]:
        """Another one, and keys of its request: it turns a file round that nobody else is sent."""
        data = f"{tag} ".encode() * (FILE_BYTES // (len(tag) + 1))
        self.sent[tag], self.back[tag] = File.of(SENT, data), File.of(BACK, data[::-1])
        keys = {"files": {SENT: b64encode(data).decode()}, "collect": ["out/*"]}
        return self.make(tag, sleep, turn=TURN), keys

    def files(self, tag: str) -> FileList:
        """What goes with it."""
        return listed((self.sent[tag],)) if tag in self.sent else ()

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
