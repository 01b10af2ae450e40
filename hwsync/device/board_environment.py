"""What the agent cannot do itself, with the real things: network, clocks, dice, runner.

The law: a run has a thread of its own, since it blocks in the runner. That thread touches neither
agent nor journal nor connection: it leaves calls to the loop (``Calls``), and waits for the one
that must be on disk before the program begins.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hwsync import raw_clock
from hwsync.device.agent import Agent
from hwsync.device.presence import presence
from hwsync.device.ran_on import RanOn
from hwsync.device.timed_run import TimedRun, Told
from hwsync.protocol.errors import HwsyncError
from hwsync.runner import Group, Instant, Job, Piece, Runner, Settings, StopSwitch, end_group
from hwsync.transport import Connection

CLOSE_S: Final = 5.0  # for what was prepared to be gone, at the end of a life

Call = Callable[[], None]

log = logging.getLogger("hwsync.device")


class Calls:
    """What runs' threads leave to the loop; ``wake`` tells it that there is something."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._left: deque[Call] = deque()
        self._wake = wake

    def leave(self, call: Call) -> None:
        """In a run's thread; returns at once."""
        self._left.append(call)
        self._wake()

    def take(self) -> list[Call]:
        """In the loop: what was left, in order."""
        return [self._left.popleft() for _ in range(len(self._left))]


class Handover:
    """One call that a run's thread leaves to the loop, and waits for.

    The run's thread leaves it and calls ``wait``; the loop calls the object.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._done = threading.Event()
        self._error: HwsyncError | None = None

    def __call__(self) -> None:
        """In the loop: make the call. Raises nothing."""
        try:
            self._call()
        except HwsyncError as error:
            self._error = error
        except Exception as error:
            log.exception("cannot write the journal; this is a bug")
            self._error = HwsyncError(f"the journal cannot be written: {error}")
        self._done.set()

    def wait(self) -> None:
        """In the run's thread: until the call was made. Raises its ``HwsyncError``."""
        self._done.wait()
        if self._error is not None:
            raise self._error


class BoardEnvironment:
    """What the agent cannot do itself (``environment.Environment``)."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    raw_us = staticmethod(raw_clock.raw_us)
    asleep_us = staticmethod(raw_clock.asleep_us)
    is_slewed = staticmethod(raw_clock.is_slewed)
    random = staticmethod(random.random)
    end_leftovers = staticmethod(end_group)

    def __init__(self, settings: Settings, state: Path, calls: Calls) -> None:
        self.connection: Connection | None = None
        self.agent: Agent | None = None
        self.runner: Final = Runner(settings, alone=True)
        self._ran_on = RanOn(self.runner)
        self._calls = calls
        self._state = state
        self._stop = StopSwitch()
        self._thread: threading.Thread | None = None  # of the last run
        self._timed: TimedRun | None = None  # what is prepared, or waits for its instant, or runs

    @property
    def all_acknowledged(self) -> bool:
        return self.connection is not None and self.connection.all_acknowledged

    def under_way(self, topic: str) -> bool:
        return self.connection is not None and self.connection.under_way(topic)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        connection = self.connection
        return connection is not None and connection.publish(
            topic, payload, qos=qos, retain=retain, correlation=correlation
        )

    def refusal(self) -> str:
        return self.runner.refusal

    def presence(self) -> dict[str, Any]:
        return presence(self._state, self.runner.version)

    def ran_on(self) -> dict[str, Any]:
        return self._ran_on.now()

    def start_run(self, job: Job, id: str) -> None:
        self._stop = StopSwitch()
        arguments = job, self._stop, self._thread
        self._timed = None
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def stop_run(self) -> None:
        if self._timed is not None:
            self._timed.end()
        self._stop.set()

    def prepare_run(self, job: Job, id: str) -> None:
        self.drop_run()

        def told() -> Told:
            assert self.agent is not None
            return self.agent

        self._timed = TimedRun(self.runner, job, self._calls.leave, told, self._thread)
        self._thread = self._timed.thread

    def drop_run(self) -> None:
        timed, self._timed = self._timed, None
        if timed is not None:
            timed.drop()

    def arm_run(self, instant: Instant) -> None:
        if self._timed is not None:
            self._timed.arm(instant)

    def aim_run(self, instant: Instant) -> None:
        if self._timed is not None:
            self._timed.aim(instant)

    def disarm_run(self) -> None:
        if self._timed is not None:
            self._timed.disarm()

    def close(self) -> None:
        """End what was prepared, and the runner; nothing that was granted is under way."""
        self.drop_run()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self.runner.close()

    def _run(self, job: Job, stop: StopSwitch, former: threading.Thread | None) -> None:
        if former is not None:
            former.join()  # what was prepared and dropped has left nothing
        agent, leave = self.agent, self._calls.leave
        assert agent is not None

        def started(group: Group) -> None:
            handover = Handover(lambda: agent.run_started(group))
            leave(handover)
            handover.wait()

        def output(piece: Piece) -> None:
            leave(lambda: agent.output(piece))

        try:
            end = self.runner.run(job, on_started=started, on_output=output, stop=stop)
        except HwsyncError as error:
            reason = str(error)
            leave(lambda: agent.run_failed(reason))
            return
        except Exception as error:
            # A thread that died would leave the board busy for ever.
            log.exception("cannot run a program; this is a bug")
            failure = f"the device failed to run it: {error}"
            leave(lambda: agent.run_failed(failure))
            return
        leave(lambda: agent.run_ended(end))
