"""What an agent finds outside: the network, the clocks, the dice, and a runner for one program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hwsync.runner import Group, Instant, Job
from hwsync.transport.outbox import Publisher


class Environment(Publisher, Protocol):
    """What a device cannot do itself. Times are seconds."""

    def start_run(self, job: Job, id: str) -> None:
        """Returns at once; ``run_started`` and then ``run_ended`` or ``run_failed`` follow."""

    def stop_run(self) -> None:
        """End the run under way; returns at once, and ``run_ended`` still follows."""

    def prepare_run(self, job: Job, id: str) -> None:
        """Returns at once; ``run_prepared`` or ``run_failed`` follows. What was prepared before is
        dropped.
        """

    def drop_run(self) -> None:
        """What is prepared never begins, and nothing more is said of it; there may be nothing."""

    def arm_run(self, instant: Instant) -> None:
        """Release what is prepared at its instant; ``run_ended`` or ``run_failed`` follows."""

    def aim_run(self, instant: Instant) -> None:
        """The same instant, as it is known now."""

    def disarm_run(self) -> None:
        """It is not released any more; if it was, it goes on."""

    def end_leftovers(self, group: Group) -> int:
        """End what an earlier life left running; how many processes."""

    def refusal(self) -> str:
        """Why no program can be run, whatever it is; empty where one can."""

    def presence(self) -> Mapping[str, Any]:
        """What the heartbeat says of the board."""

    def ran_on(self) -> Mapping[str, Any]:
        """What a run that has just ended ran on."""

    def wall(self) -> float: ...

    def monotonic(self) -> float: ...

    def raw_us(self) -> int:
        """Microseconds of a clock that nobody sets or slews."""

    def asleep_us(self) -> int:
        """Microseconds that this boot was suspended."""

    def is_slewed(self) -> bool:
        """Whether the raw clock may be slewed after all."""

    def random(self) -> float:
        """A number from 0 to 1: by how much a pause is shortened."""
