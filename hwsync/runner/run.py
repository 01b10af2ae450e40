"""One run under way: its descriptors, what came through them, the loop that serves them.

The law, in the order of a run: the program's session exists before anybody is told of it; the
program is handed over only afterwards; it has begun when its process says so, right before its
first instruction; the time limit counts from the handing over. At the limit, or when it is
cancelled, it is first asked to end (SIGINT, then SIGTERM), and then ended. When the program has
ended, so has everything below it, and only then it is said how. A program with an instant is handed
over before, and waits in its process: it has begun when its process has given its mark
(``page.py``), and its time counts from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import select
import selectors
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.protocol.limits import COLLECT_S, MAX_RESPONSE, MAX_STDERR
from hwsync.runner.job import Job, Piece, RunEnd, StopSwitch
from hwsync.runner.launcher import PATIENCE_S, SHOWN, START_LIMIT_S, Launcher
from hwsync.runner.output import Capture, Pieces, Received
from hwsync.runner.page import Page, raw_ns
from hwsync.runner.processes import SWEEP_LIMIT_S, Group, end_session, read_process
from hwsync.runner.settings import MEGABYTE, Isolation, Settings
from hwsync.runner.verdict import Seen, verdict

LONGEST_WAIT_S: Final = 60.0  # one wait of the loop; any number that a selector accepts
ANSWER_LIMIT_S: Final = SWEEP_LIMIT_S + 5.0  # for a server that works to end everything
STOPPED_LOOK_S: Final = 0.1  # between two looks whether the program has stopped its server
CHUNK: Final = 65536  # bytes: the capacity of a pipe
TERM_S: Final = 0.5  # between SIGTERM and the end of everything
LEAST_S: Final = 0.05  # for a look at the files that it leaves, however long its end took
LOOK_S: Final = 0.25  # after an instant, or half of the time limit: whether it was released
UNRELEASED_S: Final = 5.0  # past `within`: for the program's process to say why it is not released
SWEEP_S: Final = 1.0  # past what helpers get; a server that takes longer is asked to end them

STATUS_LINE: Final = re.compile(
    r"pid (?P<pid>\d{1,9})|(?P<who>exit|inner) (?P<status>\d{1,9}) (?P<used>\d{1,9}\.\d{3})"
    r"|end (?P<why>[a-z-]+)|failed (?P<failure>.*)|ready|prepared|run|left"
)

log = logging.getLogger("hwsync.runner")


class Run:
    """``close`` ends whatever there is, at any point, and leaves neither process nor descriptor."""

    def __init__(
        self,
        settings: Settings,
        stdin: bytes,
        on_output: Callable[[Piece], None],
        stop: StopSwitch,
        page: Page | None = None,
    ) -> None:
        self._page = page
        self._settings = settings
        self._stdin = stdin
        self._stop = stop
        most = {"stdout": MAX_RESPONSE, "stderr": MAX_STDERR}
        self._pieces = Pieces(on_output, most)
        self._captures = {stream: Capture(limit) for stream, limit in most.items()}
        self._received = Received()
        self._descriptors: set[int] = set()
        self._outputs: dict[str, int] = {}  # the streams that are still open
        self._program_pipe = -1
        self._status_pipe = -1
        self._selector = selectors.DefaultSelector()
        self._launcher: Launcher | None = None
        self._launcher_failed = False
        self._group: Group | None = None

        self._heard = ""  # of the status pipe, up to an incomplete line
        self._heard_nonsense = False
        self._pid: int | None = None
        self._ready = False
        self._prepared = False
        self._failure: str | None = None
        self._over = False  # the status pipe has closed: nothing is left, or the server is gone
        # Of whom it was said how it ended ("inner": the program in bubblewrap, "exit": the server's
        # own child); wait status, processor time in s.
        self._exits: dict[str, tuple[int, float]] = {}
        self._end = ""  # the limit that the server ended it for; "-" or "asked": none

        self._said_run = False
        self._until: float | None = None  # where it was asked to end: all is over by then
        self._started = 0.0  # wall clock
        self._started_monotonic = 0.0
        self._started_ns = 0  # on CLOCK_MONOTONIC_RAW
        self._duration = 0.0

    # -- start ---------------------------------------------------------------------------------

    def start(self, launcher: Launcher, job: Job) -> bool:
        """Have the program's process made; False: the server has died, take another."""
        theirs_in, ours_in = self._pipe()
        ours_out, theirs_out = self._pipe()
        ours_err, theirs_err = self._pipe()
        their_program, self._program_pipe = self._pipe()
        # A socket, since nobody can open one by its path in /proc, as who shares the account may a
        # pipe, to read or write in our place.
        self._status_pipe, their_status = (one.detach() for one in socket.socketpair())
        self._descriptors.update((self._status_pipe, their_status))
        theirs = (theirs_in, theirs_out, theirs_err, their_program, their_status)
        pages = () if self._page is None else self._page.theirs
        begun = launcher.begin(job.name, job.args, (*theirs, *pages))
        for descriptor in theirs:
            self._close_descriptor(descriptor)
        if not begun:
            for descriptor in list(self._descriptors):
                self._close_descriptor(descriptor)
            return False
        self._launcher = launcher
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._descriptors.add(wake)
        for ours in (ours_in, ours_out, ours_err, self._program_pipe, self._status_pipe):
            os.set_blocking(ours, False)
        self._outputs = {"stdout": ours_out, "stderr": ours_err}
        self._serve_with(ours_out, selectors.EVENT_READ, lambda: self._read("stdout"))
        self._serve_with(ours_err, selectors.EVENT_READ, lambda: self._read("stderr"))
        self._serve_with(self._status_pipe, selectors.EVENT_READ, self._read_status)
        self._serve_with(wake, selectors.EVENT_READ, lambda: os.eventfd_read(wake))
        self._stop.attach(lambda: os.eventfd_write(wake, 1))
        if self._stdin:
            self._send(ours_in, self._stdin, lambda: self._close_descriptor(ours_in))
        else:
            self._close_descriptor(ours_in)
        return True

    def wait_for_session(self, boot: str) -> Group | None:
        """The session that waits for its program; None: stopped before. Raises ``CannotRun``."""
        deadline = time.monotonic() + START_LIMIT_S
        if not self._serve(lambda: self._ready or self._over, deadline):
            if self._stop.is_set:
                return None
            raise CannotRun(f"the interpreter did not start within {START_LIMIT_S:g} s")
        if self._over and self._pid is None:
            raise CannotRun("the fork server was ended before the program", "send it again")
        process = read_process(self._pid) if self._pid is not None else None
        if self._over or process is None or process.session != process.pid:
            self._drain()
            said = self._failure or self._captures["stderr"].kept().text.strip()[-SHOWN:]
            said = " ".join(said.split()) or "it said nothing"
            hint = "" if self._failure else "it must be Python 3.11 or later"
            if self._settings.isolation is Isolation.BWRAP:
                hint = "hwsync-device --check tells whether isolation works here"
            raise CannotRun(f"the interpreter ended before the program: {said}", hint)
        self._group = Group(process.pid, process.start_time, boot)
        return self._group

    def prepare(self, job: Job, source: bytes) -> bool:
        """Hand the program over, to wait in its process; False: stopped before.

        Raises ``CannotRun`` where it cannot be put there.
        """
        self._hand_over(job, source)
        deadline = time.monotonic() + START_LIMIT_S
        if not self._serve(lambda: self._prepared or self._has_ended, deadline):
            if self._stop.is_set:
                return False
            raise CannotRun(f"the program was not prepared within {START_LIMIT_S:g} s")
        if not self._prepared:
            self._serve(lambda: self._over, time.monotonic() + PATIENCE_S, heed_stop=False)
            why = self._failure or "its process ended"
            raise CannotRun(f"the program cannot be prepared: {why}")
        return True

    # -- run -----------------------------------------------------------------------------------

    def _hand_over(self, job: Job, source: bytes) -> None:
        """As ``execute.py`` reads it."""
        texts = [source]
        for file in job.files:
            assert file.data is not None
            texts += file.path.encode(), file.data
        parts = [part for text in texts for part in (struct.pack(">Q", len(text)), text)]
        parts.insert(2, struct.pack(">Q", len(job.files)))
        self._send(self._program_pipe, b"".join(parts), lambda: None)

    def perform(self, job: Job, source: bytes) -> RunEnd:
        """Hand the program over and serve it to its end, or the time limit.

        Raises ``CannotRun`` when its process ended, or the time was over, before it began.
        """
        self._hand_over(job, source)
        self._started = time.time()
        self._started_ns = raw_ns()
        self._started_monotonic = time.monotonic()
        return self._to_the_end(job)

    def release(self, job: Job) -> RunEnd:
        """Let a program that is prepared begin at its instant; serve it as ``perform`` does.

        Raises ``CannotRun`` where it was not released, and nobody has stopped it.
        """
        assert self._page is not None
        self._page.arm()
        with contextlib.suppress(BrokenPipeError):
            os.write(self._program_pipe, b"!")
        return self._to_the_end(job)

    def _to_the_end(self, job: Job) -> RunEnd:
        allowed = self._settings.limits.output_mb
        most = allowed * MEGABYTE if allowed else None

        def too_much() -> bool:
            return most is not None and sum(c.total for c in self._captures.values()) > most

        def finished() -> bool:
            return self._has_ended or too_much()

        if self._page is None:
            ended = self._serve(finished, self._started_monotonic + job.timeout)
        else:
            ended = self._serve_from_instant(finished, job.timeout, self._page)
        why = "output" if ended and not self._has_ended else "" if ended else "time"
        if why == "time" and self._stop.is_set:
            why = "cancelled"
        forced = None
        if why in ("time", "cancelled") and self._began:
            forced = self._ask_to_end(job, finished)
        self._note_duration()
        self.end_all()
        self._drain()
        if self._page is not None and not (self._began or why == "cancelled"):
            self._say_why_not_released(self._page, why)
        stderr = self._captures["stderr"].kept().text
        end = self._exits.get("inner", self._exits.get("exit"))
        seen = Seen(why, self._began, end, self._end, self._failure, stderr, forced)
        outcome, reason, exit_code = verdict(seen, job, self._settings)
        return self._account(outcome, reason, exit_code)

    def _serve_from_instant(self, finished: Callable[[], bool], timeout: float, page: Page) -> bool:
        """As ``_serve``, with a time limit that counts from the release.

        The process says nothing when it begins: whoever woke up then would disturb it.
        """
        while True:
            now, raw = time.monotonic(), raw_ns()
            released = page.released
            if released is not None:
                since = released.raw_ns or page.instant.raw_ns
                return self._serve(finished, now + (since - raw) / 1e9 + timeout)
            left = (page.instant.raw_ns - raw) / 1e9
            if left < -(page.instant.within_us / 1e6 + UNRELEASED_S):
                return False
            look = now + max(left, 0.0) + min(LOOK_S, timeout / 2)
            if self._serve(finished, look):
                return True
            if self._stop.is_set:
                page.disarm()
                return False

    def _say_why_not_released(self, page: Page, why: str) -> None:
        """Raises ``CannotRun`` where its process has said so, or did nothing at its instant."""
        if reason := page.refusal:
            raise CannotRun(f"not released: {reason}")
        if why == "time":
            raise CannotRun("not released: its process did nothing at its instant")

    @property
    def _began(self) -> bool:
        """Whether anything of the program may have run."""
        if self._page is None:
            return self._said_run
        return self._page.released is not None and self._failure is None

    @property
    def _has_ended(self) -> bool:
        """The program itself; what it leaves may go on for a moment."""
        return self._over or bool(self._exits)

    def _note_duration(self) -> None:
        if not self._duration:
            if self._page is not None:
                released = self._page.released
                if released is not None:
                    self._started_ns = released.raw_ns or self._page.instant.raw_ns
                    self._duration = (raw_ns() - self._started_ns) / 1e9
                    self._started = time.time() - self._duration
                return
            self._duration = time.monotonic() - self._started_monotonic

    def left_for_files(self, job: Job) -> float:
        """Seconds to look for what it leaves, once it has ended."""
        until = self._until
        left = job.grace / 2 if until is None else until - time.monotonic()
        return max(left, LEAST_S)

    def _ask_to_end(self, job: Job, finished: Callable[[], bool]) -> float | None:
        """SIGINT and then SIGTERM, so that it may put back what it holds.

        All of it takes as long as configured, and with what follows at most half of the request's
        grace (docs/protocol.md, section 5). The seconds that were not enough; None where they were.
        """
        wanted = self._settings.end_grace_s
        self._until = time.monotonic() + job.grace / 2
        if not wanted or self._launcher is None or not self._launcher.is_working:
            return None
        bringing = COLLECT_S if job.collect else 0.0
        share = min(1.0, job.grace / 2 / (wanted + TERM_S + bringing))
        for number, seconds in ((signal.SIGINT, wanted), (signal.SIGTERM, TERM_S)):
            self._launcher.signal(number)
            if self._serve(finished, time.monotonic() + seconds * share, heed_stop=False):
                return None
        return (wanted + TERM_S) * share

    def lost(self, reason: str) -> RunEnd:
        """What is to be said where the runner itself failed: what was read until then."""
        self._note_duration()
        with contextlib.suppress(Exception):
            self._drain()
        return self._account("interrupted", reason, None)

    def cancelled(self) -> RunEnd:
        """What is to be said where it was stopped before it was handed over."""
        self._drain()
        return self._account("cancelled", "cancelled before it began", None)

    def _account(self, outcome: str, reason: str, exit_code: int | None) -> RunEnd:
        for stream, capture in self._captures.items():
            self._show(stream, capture.finish())
        self._pieces.flush()
        kept = {stream: capture.kept() for stream, capture in self._captures.items()}
        cut = [
            f"{stream} cut: {self._captures[stream].total:,} bytes"
            for stream, text in kept.items()
            if text.truncated
        ]
        released = None if self._page is None else self._page.released
        return RunEnd(
            outcome=outcome,
            reason="; ".join(filter(None, [reason, *cut])),
            response=kept["stdout"].text,
            stderr=kept["stderr"].text,
            exit_code=exit_code,
            duration=self._duration,
            started=self._started or time.time(),
            truncated=bool(cut),
            sha256_stdout=self._captures["stdout"].sha256,
            sha256_stderr=self._captures["stderr"].sha256,
            order=self._received.order(kept),
            began=self._began,
            raw_us=self._started_ns // 1000 if self._started_ns else None,
            lab_us=released.lab_us if released and released.raw_ns else None,
            bound_us=released.bound_us if released and released.raw_ns else None,
        )

    # -- end -----------------------------------------------------------------------------------

    def end_all(self) -> None:
        """End the program and everything below it; a server that fails in it is ended too."""
        if self._launcher is None:
            return
        launcher, self._launcher = self._launcher, None
        self._close_descriptor(self._program_pipe)  # what was not handed over by now never is
        if self._exits:
            patience = time.monotonic() + PATIENCE_S + SWEEP_S
            self._serve(lambda: self._over, patience, heed_stop=False)
        if not self._over:
            launcher.end()
        now = time.monotonic()
        deadline, look = now + ANSWER_LIMIT_S, now + STOPPED_LOOK_S
        while not self._over and now < deadline:
            for key, _ in self._selector.select(STOPPED_LOOK_S):
                key.data()
            now = time.monotonic()
            if now >= look:  # also where somebody fills a pipe all the time
                if not launcher.is_working:
                    break
                look = now + STOPPED_LOOK_S
        if self._over and self._end:
            return
        self._launcher_failed = True
        launcher.kill()
        if self._group is not None:
            end_session(self._group.session, self._group.start_time)
        # The status alone: whoever escaped may fill the others for ever.
        # And once: it may fill this too, where it took the descriptor.
        poll = select.poll()
        poll.register(self._status_pipe, select.POLLIN)
        if not self._over and poll.poll(0):
            self._read_status()

    @property
    def server_failed(self) -> bool:
        """Whether it was ended, stopped or could not end everything."""
        return self._launcher_failed

    def close(self) -> bool:
        """End and release everything; False: the server is worth nothing any more."""
        self._stop.detach()
        self.end_all()
        self._selector.close()
        for descriptor in list(self._descriptors):
            self._close_descriptor(descriptor)
        if self._page is not None:
            self._page.close()
        return not self.server_failed

    # -- the loop ------------------------------------------------------------------------------

    def _serve(
        self, finished: Callable[[], bool], deadline: float, *, heed_stop: bool = True
    ) -> bool:
        """Serve every descriptor until ``finished``; False: stopped, or past the deadline."""
        while not finished():
            now = time.monotonic()
            if (heed_stop and self._stop.is_set) or now >= deadline:
                self._read_status()  # it may have ended while nobody looked
                return finished()
            due = self._pieces.due
            until = min(now + LONGEST_WAIT_S, deadline, deadline if due is None else due)
            for key, _ in self._selector.select(max(0.0, until - now)):
                key.data()
            self._pieces.send(time.monotonic())
        return True

    def _read(self, stream: str) -> None:
        descriptor = self._outputs[stream]
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return  # the program itself has read it
        if data:
            self._show(stream, self._captures[stream].feed(data))
        else:
            del self._outputs[stream]
            self._close_descriptor(descriptor)

    def _drain(self) -> None:
        """Take what is in the output pipes at this moment, whoever may go on writing to them."""
        for stream, descriptor in list(self._outputs.items()):
            waiting = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
            left = int.from_bytes(waiting, sys.byteorder)
            while left > 0:
                try:
                    data = os.read(descriptor, min(left, CHUNK))
                except BlockingIOError:
                    break
                left -= len(data) or left
                self._show(stream, self._captures[stream].feed(data))

    def _show(self, stream: str, text: str) -> None:
        self._received.add(stream, text)
        self._pieces.add(stream, text)

    def _read_status(self) -> None:
        if self._over:
            return
        try:
            data = os.read(self._status_pipe, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._over = True
            self._close_descriptor(self._status_pipe)
            return
        *lines, self._heard = (self._heard + data.decode("utf-8", "replace")).split("\n")
        # Whoever gets hold of this socket may write to it for as long as it runs.
        self._heard = self._heard[-CHUNK:]
        for line in lines:
            match = STATUS_LINE.fullmatch(line)
            if match is None:
                if not self._heard_nonsense:
                    log.warning("passed over on the status pipe: %.100r", line)
                self._heard_nonsense = True
            elif match["pid"]:
                self._pid = int(match["pid"])
            elif match["status"]:
                self._exits[match["who"]] = int(match["status"]), float(match["used"])
                self._note_duration()
            elif match["why"]:
                self._end = match["why"]
            elif match["failure"] is not None:
                # After ``run`` only another interpreter that cannot be executed says so.
                if self._began and not self._settings.interpreter:
                    continue
                self._failure = match["failure"]
                self._said_run = False
            elif line == "ready":
                self._ready = True
            elif line == "prepared":
                self._prepared = True
            elif line == "left":
                if not self._launcher_failed:
                    log.error("the fork server could not end what a program left")
                self._launcher_failed = True
            else:
                self._said_run = True

    def _send(self, descriptor: int, data: bytes, then: Callable[[], None]) -> None:
        """Write ``data`` as the other side takes it; ``then`` follows, also if it never will."""
        left = memoryview(data)

        def write() -> None:
            nonlocal left
            try:
                left = left[os.write(descriptor, left[:CHUNK]) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                left = left[:0]
            if not left:
                self._selector.unregister(descriptor)
                then()

        self._serve_with(descriptor, selectors.EVENT_WRITE, write)

    def _serve_with(self, descriptor: int, events: int, action: Callable[[], object]) -> None:
        self._selector.register(descriptor, events, action)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._descriptors.update(ends)
        return ends

    def _close_descriptor(self, descriptor: int) -> None:
        if descriptor in self._descriptors:
            self._descriptors.discard(descriptor)
            with contextlib.suppress(KeyError, ValueError, RuntimeError):
                self._selector.unregister(descriptor)
            os.close(descriptor)
