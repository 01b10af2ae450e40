"""The daemon of a board, which ends itself with SIGKILL at a named point: a power cut of a process.

    python killed_device.py "after journal started" 1 --user pi1 …

The law: production code knows nothing of this. A point is ``before`` or ``after`` one of ``CALLS``,
and the number says at which passing of it the process dies; everything else is ``hwsync-device``.
A call that production code no longer has is an error at the start.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hwsync.device import service
from hwsync.device.agent import Agent
from hwsync.device.board_environment import BoardEnvironment
from hwsync.device.journal import Journal
from hwsync.runner import Runner
from hwsync.runner.launcher import Launcher
from hwsync.runner.run import Run
from hwsync.runner.workplace import Workplace
from hwsync.transport import Connection, Delivery


@dataclass(frozen=True, slots=True)
class Call:
    """A method of production code; ``counts`` is asked with its arguments at each passing."""

    owner: type
    name: str
    counts: Callable[..., bool] = lambda *_, **__: True
    completed: Callable[[Any], object] = lambda _: None  # given the object, before it dies after it


def _write(environment: BoardEnvironment) -> None:
    """What was said has left the process."""
    if environment.connection is not None:
        environment.connection.write()


def _publish(kind: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True) -> Call:
    def counts(_: object, topic: str, payload: bytes, **__: object) -> bool:
        return topic.endswith(f"/{kind}") and fits(json.loads(payload))

    return Call(BoardEnvironment, "publish", counts, _write)


def _acknowledge(kind: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True) -> Call:
    def counts(_: object, delivery: Delivery) -> bool:
        return delivery.topic.endswith(f"/{kind}") and fits(json.loads(delivery.payload))

    return Call(Connection, "acknowledge", counts, Connection.write)


CALLS: Final = {
    **{
        f"journal {name}": Call(Journal, name)
        for name in (
            *("received", "started", "finished", "closed", "settle"),
            *("next_boot", "begin_epoch"),
        )
    },
    "publish first heartbeat": _publish("heartbeat"),
    "publish busy heartbeat": _publish("heartbeat", lambda said: said["busy"] is not None),
    "publish last heartbeat": _publish(
        "heartbeat", lambda said: said["busy"] is None and said["seen"] != [0, 0]
    ),
    "publish collected": _publish("collected"),
    "publish response": _publish("response"),
    "acknowledge envelope": _acknowledge("command"),
    "acknowledge grant": _acknowledge("status", lambda status: status["state"] == 2),
    "start of the process": Call(Launcher, "begin"),
    "handing over": Call(Run, "perform"),
    "first instruction": Call(Run, "_read_status", lambda run: run._began),
    "bringing back": Call(Workplace, "bring_back"),
    "run": Call(Runner, "run"),  # after: the result is about to be put to the loop
    "result in the loop": Call(Agent, "run_ended"),
}


def arm(point: str, passing: int) -> None:
    """Make the process die there. Raises ``KeyError``, ``AttributeError``: no such point, call."""
    when, _, what = point.partition(" ")
    call = CALLS[what]
    original = getattr(call.owner, call.name)
    assert when in ("before", "after"), point
    assert inspect.isfunction(original), f"{call.name} is no method any more"
    numbers = itertools.count(1)

    def pass_by(moment: str, *arguments: Any, **keys: Any) -> None:
        if moment == when and call.counts(*arguments, **keys) and next(numbers) == passing:
            os.kill(os.getpid(), signal.SIGKILL)

    def patched(*arguments: Any, **keys: Any) -> Any:
        pass_by("before", *arguments, **keys)
        result = original(*arguments, **keys)
        if when == "after" and call.counts(*arguments, **keys):
            call.completed(arguments[0])
        pass_by("after", *arguments, **keys)
        return result

    setattr(call.owner, call.name, patched)


def arm_handed_over() -> None:
    """``after handing over``: the pipe has taken the whole program, nobody has answered yet."""
    original = Run._send

    def patched(self: Run, descriptor: int, data: bytes, then: Callable[[], None]) -> None:
        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        original(self, descriptor, data, die if descriptor == self._program_pipe else then)

    Run._send = patched  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[1] == "after handing over":
        arm_handed_over()
    else:
        arm(sys.argv[1], int(sys.argv[2]))
    sys.exit(service.main(sys.argv[3:]))
