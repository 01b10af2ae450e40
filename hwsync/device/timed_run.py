"""A run that is prepared before its grant, in a thread of its own, as each run has one.

The law: the thread prepares, waits for what is decided of it, and runs or drops what it has made.
The loop's thread alone decides, and what it says of the instant counts at once: it is written into
the page that the program's process looks at. Of one that was dropped nothing is left to the loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from hwsync.protocol.errors import HwsyncError
from hwsync.runner import Group, Instant, Job, Piece, Prepared, RunEnd, Runner, StopSwitch

log = logging.getLogger("hwsync.device")


class Told(Protocol):
    """What the loop is left to do."""

    def run_prepared(self, group: Group) -> None: ...

    def output(self, piece: Piece) -> None: ...

    def run_ended(self, end: RunEnd) -> None: ...

    def run_failed(self, reason: str) -> None: ...


class TimedRun:
    """``told``: asked for in the loop; ``former``: the thread of the run before, which has ended
    or will.
    """

    def __init__(
        self,
        runner: Runner,
        job: Job,
        leave: Callable[[Callable[[], None]], None],
        told: Callable[[], Told],
        former: threading.Thread | None,
    ) -> None:
        self._runner = runner
        self._job = job
        self._leave_call = leave
        self._told = told
        self._former = former
        self._stop = StopSwitch()
        self._decided = threading.Event()
        self._dropped = False
        self._prepared: Prepared | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    # -- in the loop ---------------------------------------------------------------------------

    def arm(self, instant: Instant) -> None:
        """Its grant has come, and is written down."""
        self.aim(instant)
        self._decided.set()

    def aim(self, instant: Instant) -> None:
        """When it is released, as far as is known now."""
        if self._prepared is not None:
            self._prepared.aim(instant)

    def disarm(self) -> None:
        """It is not released any more; if it was, it goes on."""
        if self._prepared is not None:
            self._prepared.disarm()

    def end(self) -> None:
        """Likewise, and if it was released it is told to end."""
        self.disarm()
        self._stop.set()

    def drop(self) -> None:
        """It never begins, and nothing is said of it."""
        self._dropped = True
        self.end()
        self._decided.set()

    # -- in its own thread ---------------------------------------------------------------------

    def _leave(self, call: Callable[[Told], None]) -> None:
        def made() -> None:
            if not self._dropped:
                call(self._told())

        self._leave_call(made)

    def _output(self, piece: Piece) -> None:
        self._leave(lambda told: told.output(piece))

    def _run(self) -> None:
        if self._former is not None:
            self._former.join()
        try:
            end = self._to_the_end()
        except HwsyncError as error:
            reason = str(error)
            self._leave(lambda told: told.run_failed(reason))
        except Exception as error:
            # A thread that died would leave the board busy for ever.
            log.exception("cannot run a program; this is a bug")
            failure = f"the device failed to run it: {error}"
            self._leave(lambda told: told.run_failed(failure))
        else:
            if end is not None:
                self._leave(lambda told: told.run_ended(end))

    def _to_the_end(self) -> RunEnd | None:
        prepared = self._runner.prepare(self._job, on_output=self._output, stop=self._stop)
        self._prepared = prepared
        self._leave(lambda told: told.run_prepared(prepared.group))
        self._decided.wait()
        if self._dropped:
            prepared.drop()
            return None
        return prepared.run()
