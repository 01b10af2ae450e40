"""What goes into a run, what comes out of it, and the switch that ends it early."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from hwsync.protocol.files import Files, NotKeptFiles
from hwsync.protocol.limits import DEFAULT_GRACE_S, DEFAULT_NAME
from hwsync.protocol.output import Order


@dataclass(frozen=True, slots=True)
class Job:
    """One program to run (docs/protocol.md, sections 4 and 5)."""

    program: str  # Python source; a coding line in it is honoured
    stdin: str  # the whole standard input, as UTF-8; "" is end of file at once
    args: tuple[str, ...]  # sys.argv[1:]
    timeout: float  # seconds from the handing over of the program until its end begins
    name: str = DEFAULT_NAME  # of the file that is run (``limits.is_name``)
    grace: float = DEFAULT_GRACE_S  # seconds; its end and all that follows take at most half of it
    files: Files = ()  # with their bytes, written into its folder before it begins
    collect: tuple[str, ...] = ()  # patterns of the files that come back (``files.means``)


@dataclass(frozen=True, slots=True)
class Known:
    """Lab time at a reading of the raw clock, give or take a bound, which grows from there on."""

    lab_us: int = 0
    raw_ns: int = 0
    bound_us: int = 0
    grows_ppb: int = 0


@dataclass(frozen=True, slots=True)
class Instant:
    """When a program is to be released, as far as is known now (docs/protocol.md, section 6).

    ``ns`` are those of CLOCK_MONOTONIC_RAW, ``us`` microseconds of lab time.
    """

    start_at_us: int
    raw_ns: int  # when that is
    fresh_until_ns: int = 0  # from then on the coordinator has been silent for too long
    heard: bool = False  # whether all was heard that it had said when it was last asked
    bound_us: int = 0  # how far lab time may be from what is known of it
    within_us: int = 0  # how far it may be, and how late the release
    drift_ppb: int = 0  # of lab time against the raw clock, in parts per thousand million
    known: Known = Known()  # for a program that goes on asking
    asleep_us: int = 0  # how long this boot had been suspended when all this was known


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a program's output, as it comes (docs/protocol.md, section 3, "Live output")."""

    number: int  # from 0, over both streams
    stream: str  # "stdout" or "stderr"
    text: str
    at: int  # bytes of the stream that came before; bytes of the text's UTF-8, as all here
    skipped: int = 0  # bytes right before this piece that no piece has


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended; ``outcome`` and ``ran`` as in docs/protocol.md, section 1, "Outcomes"."""

    outcome: str  # "ok", "error", "timeout", "killed", "cancelled" or "interrupted" (nobody knows)
    reason: str  # one line for people; empty for "ok"
    response: str  # standard output, at most limits.MAX_RESPONSE bytes of UTF-8
    stderr: str  # at most limits.MAX_STDERR bytes of UTF-8
    exit_code: int | None  # 128 + signal when a signal ended it; None when hwsync or nobody knows
    duration: float  # seconds from the handing over to the end, on the monotonic clock
    started: float  # Unix seconds of the handing over; of the cancelling where that came first
    truncated: bool  # whether response or stderr is only the beginning and the end
    sha256_stdout: str  # hexadecimal, over every byte that was written
    sha256_stderr: str
    order: Order | None = None  # of response and stderr; None: not known, or too long
    began: bool = True  # False: cancelled before its first instruction, so surely nothing ran
    raw_us: int | None = None  # of ``started``, on CLOCK_MONOTONIC_RAW
    lab_us: int | None = None  # of ``started``, in lab time; None: it had no instant
    bound_us: int | None = None  # how far lab time may have been from that
    files: Files = ()  # that came back, with their bytes
    not_kept: NotKeptFiles = ()  # that did not


class StopSwitch:
    """Ends a run from any thread, from a signal handler, and also before the run has begun.

    It stays set: one switch belongs to one run.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may set the switch in the middle of the same thread's set().
        self._lock = threading.RLock()
        self._is_set = False
        self._wake: Callable[[], object] | None = None

    @property
    def is_set(self) -> bool:
        """Whether somebody wants the run to end; it may have ended by itself since."""
        return self._is_set

    def set(self) -> None:
        """End the run, as at its time limit; does not wait for that. Again: nothing more."""
        with self._lock:
            self._is_set = True
            if self._wake is not None:
                self._wake()

    def attach(self, wake: Callable[[], object]) -> None:
        """For the runner: call ``wake`` (short, harmless when repeated) at, or after, ``set``."""
        with self._lock:
            self._wake = wake
            if self._is_set:
                wake()

    def detach(self) -> None:
        """For the runner: afterwards ``wake`` is never called again."""
        with self._lock:
            self._wake = None
