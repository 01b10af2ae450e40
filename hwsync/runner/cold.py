"""Run one program in a fresh interpreter, with the meaning of ``python3 -``, and end all of it.

The law, in the order of a run: the program's session exists before ``on_started`` is called; the
program is handed over only after ``on_started`` has returned; a program that did not arrive whole
never runs; it has begun when its process says so, right before its first instruction; the time
limit counts from the handing over; when the program has ended, by itself or not, so has everything
in its session, and the answer waits for nobody who still holds its pipes.

Standard input is the job's ``stdin``, the program comes through a pipe of its own. What differs
from ``python3 -`` nevertheless (tests/integration/test_runner_conformance.py holds the rest equal):

- No ``__file__`` and ``__cached__`` (CPython sets them to ``"<stdin>"`` and None for its run).
- Two frames lie below the module's: ``inspect.stack()``, ``traceback.print_stack()``, faulthandler,
  a debugger and ``warnings.warn`` with a ``stacklevel`` above the module's see them, and
  ``RecursionError`` comes two calls earlier. Tracebacks of uncaught exceptions do not show them.
- The source is compiled from memory: the messages for an unknown coding line, bytes that its coding
  cannot mean, and NUL characters are those of ``compile``.
- /proc/self/cmdline shows ``-c``; the parent is the keeper (``bootstrap``).
- Signals that the daemon ignores or blocks are not ignored or blocked in the program.

Where a program kills its parent, nobody is left who can say how it ended: it is ended and reported
as killed, without an exit code.
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
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.protocol.limits import MAX_RESPONSE, MAX_STDERR
from hwsync.runner.job import Job, RunEnd, StopSwitch
from hwsync.runner.output import Capture, Pieces
from hwsync.runner.processes import Group, boot_id, end_session, read_process

START_LIMIT_S: Final = 60.0  # for an interpreter to start: a cold SD card under load takes seconds
KEEPER_LIMIT_S: Final = 1.0  # for the keeper to leave, which takes a millisecond unless stopped
LONGEST_WAIT_S: Final = 60.0  # one wait of the loop; any number that a selector accepts
CHUNK: Final = 65536  # bytes: the capacity of a pipe
SHOWN: Final = 300  # characters of an interpreter's own complaint in an error's message

BOOTSTRAP: Final = Path(__file__).with_name("bootstrap.py").read_text(encoding="utf-8")
STATUS_LINE: Final = re.compile(r"pid (\d+)|end (\d+) (\d+)|run")

log = logging.getLogger("hwsync.runner")


class ColdRunner:
    """Starts ``interpreter`` anew for each job. May be used by several threads at once.

    ``directory`` is the programs' working directory (None: the daemon's own), ``environment`` their
    whole environment (None: the daemon's own, as it is at the start of each run).
    """

    def __init__(
        self,
        *,
        interpreter: str = sys.executable,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._interpreter = interpreter
        self._directory = directory
        self._environment = environment

    def run(
        self,
        job: Job,
        *,
        on_started: Callable[[Group], None],
        on_output: Callable[[int, str, str], None],
        stop: StopSwitch,
    ) -> RunEnd:
        """Run the job to its end; blocks.

        ``on_started`` is called once, before the program can do anything; what it raises comes out
        of here, and nothing has run then. It is not called when ``stop`` is set before.
        ``on_output(n, "stdout" or "stderr", text)`` gets live pieces, n counting from 0; it is
        called in this thread and must not block: the time limit would wait for it. Raises
        ``CannotRun`` when the program could not be started or did not begin; nothing has run then.
        Once it has begun nothing is raised: what fails then makes the outcome ``interrupted``.
        """
        boot = boot_id()
        source = _encoded(job.program, "the program")
        given = _encoded(job.stdin, "the standard input")
        for number, argument in enumerate(job.args, 1):
            _encoded(argument, f"argument {number}")
            if "\0" in argument:
                raise CannotRun(f"argument {number} holds a NUL character")
        with contextlib.closing(_Run(given, on_output, stop)) as run:
            group = None
            if not stop.is_set:
                run.start(self._interpreter, job.args, self._directory, self._environment)
                group = run.wait_for_session(boot)
            if group is not None:
                on_started(group)
            if group is None or stop.is_set:
                return run.account("cancelled", "cancelled before it began", None)
            try:
                return run.perform(source, job.timeout)
            except CannotRun:
                raise
            except Exception as error:
                # It may have begun, and may have ended in any way: to say more would be a guess.
                log.exception("lost sight of a program that had been handed over")
                return run.lost(f"the device lost sight of it: {error}")


class _Run:
    """One run under way: its descriptors, what came through them, the loop that serves them.

    ``close`` ends whatever there is, at any point, and leaves neither process nor descriptor.
    """

    def __init__(
        self, stdin: bytes, on_output: Callable[[int, str, str], None], stop: StopSwitch
    ) -> None:
        self._stdin = stdin
        self._stop = stop
        self._pieces = Pieces(on_output)
        self._captures = {"stdout": Capture(MAX_RESPONSE), "stderr": Capture(MAX_STDERR)}
        self._descriptors: set[int] = set()
        self._outputs: dict[str, int] = {}  # the streams that are still open
        self._program_pipe = -1
        self._status_pipe = -1
        self._selector = selectors.DefaultSelector()
        self._process: subprocess.Popen[bytes] | None = None
        self._group: Group | None = None

        self._heard = ""  # of the status pipe, up to an incomplete line
        self._pid: int | None = None
        self._end: tuple[int, int] | None = None  # waitid's code and status
        self._keeper_left = False

        self._began = False
        self._started = 0.0  # wall clock
        self._started_monotonic = 0.0
        self._duration = 0.0

    # -- start ---------------------------------------------------------------------------------

    def start(
        self,
        interpreter: str,
        arguments: tuple[str, ...],
        directory: Path | None,
        environment: Mapping[str, str] | None,
    ) -> None:
        """Start the interpreter. Raises ``CannotRun``."""
        if directory is not None and not directory.is_dir():
            raise CannotRun(
                f"the working directory {directory} does not exist", "create it, or name another"
            )
        try:
            theirs_in, ours_in = self._pipe()
            ours_out, theirs_out = self._pipe()
            ours_err, theirs_err = self._pipe()
            their_program, self._program_pipe = self._pipe()
            self._status_pipe, their_status = self._pipe()
            wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._descriptors.add(wake)
            code = f"{BOOTSTRAP}\n\nbootstrap({their_program}, {their_status})\n"
            self._process = subprocess.Popen(
                [interpreter, "-c", code, *arguments],
                stdin=theirs_in,
                stdout=theirs_out,
                stderr=theirs_err,
                pass_fds=(their_program, their_status),
                cwd=directory,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise CannotRun(
                f"{interpreter} cannot be started: {why}", "check the interpreter's path"
            ) from error
        for theirs in (theirs_in, theirs_out, theirs_err, their_program, their_status):
            self._close_descriptor(theirs)
        for ours in (ours_in, ours_out, ours_err, self._program_pipe):
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

    def wait_for_session(self, boot: str) -> Group | None:
        """The session that waits for its program; None: stopped before. Raises ``CannotRun``."""
        deadline = time.monotonic() + START_LIMIT_S
        if not self._serve(lambda: self._pid is not None or self._keeper_left, deadline):
            if self._stop.is_set:
                return None
            raise CannotRun(f"the interpreter did not start within {START_LIMIT_S:g} s")
        process = read_process(self._pid) if self._pid is not None else None
        if process is None or not process.alive or process.session != process.pid:
            self._drain()
            said = self._captures["stderr"].text.strip()[-SHOWN:] or "it said nothing"
            raise CannotRun(
                f"the interpreter ended before the program: {' '.join(said.split())}",
                "it must be Python 3.11 or later",
            )
        self._group = Group(process.pid, process.start_time, boot)
        return self._group

    # -- run -----------------------------------------------------------------------------------

    def perform(self, source: bytes, timeout: float) -> RunEnd:
        """Hand the program over and serve it to its end, or ``timeout`` seconds.

        Raises ``CannotRun`` when its process ended, or the time was over, before it began.
        """
        # The pipe stays open to the end of the session: its closing releases the keeper.
        framed = struct.pack(">Q", len(source)) + source
        self._send(self._program_pipe, framed, lambda: None)
        self._started = time.time()
        self._started_monotonic = time.monotonic()
        ended = self._serve(
            lambda: self._end is not None or self._keeper_left, self._started_monotonic + timeout
        )
        self._duration = time.monotonic() - self._started_monotonic
        self._end_session()
        self._hear_status()
        if not ended and self._stop.is_set:
            when = "while it ran" if self._began else "before it began"
            return self.account("cancelled", f"cancelled {when}", None)
        # What cannot be compiled never begins, and ends by itself with its own complaint.
        if not self._began and (self._end is None or self._end[0] != os.CLD_EXITED):
            why = f"time limit of {timeout:g} s"
            if ended:
                why = f"killed by {_signal_name(self._end[1])}" if self._end else "it was ended"
            raise CannotRun(f"the program did not begin: {why}")
        if not ended:
            return self.account("timeout", f"time limit of {timeout:g} s", None)
        if self._end is None:
            return self.account("killed", "its parent process was ended, and so it was", None)
        code, status = self._end
        if code != os.CLD_EXITED:
            return self.account("killed", f"killed by {_signal_name(status)}", 128 + status)
        if status:
            return self.account("error", f"exit code {status}", status)
        return self.account("ok", "", status)

    def lost(self, reason: str) -> RunEnd:
        """What is to be said where the runner itself failed: what was read until then."""
        self._duration = time.monotonic() - self._started_monotonic
        with contextlib.suppress(Exception):
            self._drain()
        return self._end_of("interrupted", reason, None)

    def account(self, outcome: str, reason: str, exit_code: int | None) -> RunEnd:
        """What is to be said of the run, with everything that is in its pipes now."""
        self._drain()
        return self._end_of(outcome, reason, exit_code)

    def _end_of(self, outcome: str, reason: str, exit_code: int | None) -> RunEnd:
        stdout, stderr = self._captures["stdout"], self._captures["stderr"]
        self._pieces.add("stdout", stdout.finish())
        self._pieces.add("stderr", stderr.finish())
        self._pieces.flush()
        return RunEnd(
            outcome=outcome,
            reason=reason,
            response=stdout.text,
            stderr=stderr.text,
            exit_code=exit_code,
            duration=self._duration,
            started=self._started or time.time(),
            truncated=stdout.truncated or stderr.truncated,
            sha256_stdout=stdout.sha256,
            sha256_stderr=stderr.sha256,
            began=self._began,
        )

    def close(self) -> None:
        """End and release everything; may be called at any point."""
        self._stop.detach()
        try:
            self._end_session()
        except Exception:
            log.exception("cannot look for what is left of a program")
        try:
            if self._process is not None:
                self._release_keeper(self._process)
        finally:
            self._selector.close()
            for descriptor in list(self._descriptors):
                self._close_descriptor(descriptor)

    def _end_session(self) -> None:
        if self._group is not None:
            end_session(self._group.session, self._group.start_time)
            self._group = None

    def _release_keeper(self, process: subprocess.Popen[bytes]) -> None:
        """Let the keeper collect its child and leave; end it if something holds it."""
        self._close_descriptor(self._program_pipe)
        deadline = time.monotonic() + KEEPER_LIMIT_S
        poll = select.poll()
        poll.register(self._status_pipe, select.POLLIN)
        while not self._keeper_left:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                break
            self._read_status()
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # -- the loop ------------------------------------------------------------------------------

    def _serve(self, finished: Callable[[], bool], deadline: float) -> bool:
        """Serve every descriptor until ``finished``; False: stopped, or past the deadline."""
        while not finished():
            now = time.monotonic()
            if self._stop.is_set or now >= deadline:
                return False
            due = self._pieces.due
            until = min(now + LONGEST_WAIT_S, deadline, deadline if due is None else due)
            for key, _ in self._selector.select(max(0.0, until - now)):
                key.data()
            self._pieces.send(time.monotonic())
        return True

    def _read(self, stream: str) -> None:
        descriptor = self._outputs[stream]
        data = os.read(descriptor, CHUNK)
        if data:
            self._pieces.add(stream, self._captures[stream].feed(data))
        else:
            del self._outputs[stream]
            self._close_descriptor(descriptor)

    def _drain(self) -> None:
        """Take what is in the output pipes at this moment, whoever may go on writing to them."""
        for stream, descriptor in list(self._outputs.items()):
            waiting = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
            left = int.from_bytes(waiting, sys.byteorder)
            while left > 0:
                data = os.read(descriptor, min(left, CHUNK))
                left -= len(data)
                self._pieces.add(stream, self._captures[stream].feed(data))

    def _hear_status(self) -> None:
        """What was said before the session's end, and not read yet."""
        poll = select.poll()
        poll.register(self._status_pipe, select.POLLIN)
        while not self._keeper_left and poll.poll(0):
            self._read_status()

    def _read_status(self) -> None:
        data = os.read(self._status_pipe, CHUNK)
        if not data:
            self._keeper_left = True
            self._close_descriptor(self._status_pipe)
            return
        *lines, self._heard = (self._heard + data.decode("ascii", "replace")).split("\n")
        for line in lines:
            match = STATUS_LINE.fullmatch(line)
            if match is None:
                log.warning("passed over on the status pipe: %.100r", line)
            elif match[1]:
                self._pid = int(match[1])
            elif line == "run":
                self._began = True
            else:
                self._end = int(match[2]), int(match[3])

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


def _encoded(text: str, what: str) -> bytes:
    """``text`` as UTF-8. Raises ``CannotRun`` for half a surrogate pair, which JSON can spell."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CannotRun(f"{what} is no valid Unicode text (position {error.start})") from error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
