"""An analyst that ends itself with SIGKILL at a named point: a power cut of a process.

    python killed_analyst.py "after publish analysis" analyst --dir …

The law: production code knows nothing of this. A point is ``before`` or ``after`` the first call of
one of ``CALLS`` that concerns a board; everything else is ``hwsync``. A call that production code
no longer has is an error at the start.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hwsync.analysers.engine import Engine
from hwsync.analyst.work import Work
from hwsync.cli import main
from hwsync.transport import Connection


@dataclass(frozen=True, slots=True)
class Call:
    """A method of production code; ``counts`` is asked with its arguments."""

    owner: type
    name: str
    counts: Callable[..., bool] = lambda *_, **__: True
    completed: Callable[[Any], object] = lambda _: None  # given the object, before it dies after it


def _publish(kind: str) -> Call:
    def counts(_: object, topic: str, *__: object, **___: object) -> bool:
        return topic.endswith(f"/{kind}") and "@" not in topic

    return Call(Connection, "publish", counts, Connection.write)


CALLS: Final = {
    "publish query": _publish("query"),
    "publish analysis": _publish("analysis"),
    "judging": Call(Engine, "judge"),
    "answer": Call(Work, "done"),
}
POINTS: Final = (
    *("after publish query", "before judging", "after judging", "before publish analysis"),
    *("after publish analysis", "before answer", "after answer"),
)
"""In the order in which one command passes them."""


def arm(point: str) -> None:
    """Make the process die there. Raises ``KeyError``, ``AttributeError``: no such point, call."""
    when, _, what = point.partition(" ")
    call = CALLS[what]
    original = getattr(call.owner, call.name)
    assert when in ("before", "after"), point
    assert inspect.isfunction(original), f"{call.name} is no method any more"

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def patched(*arguments: Any, **keys: Any) -> Any:
        counts = call.counts(*arguments, **keys)
        if when == "before" and counts:
            die()
        result = original(*arguments, **keys)
        if counts:
            call.completed(arguments[0])
            die()
        return result

    setattr(call.owner, call.name, patched)


if __name__ == "__main__":
    arm(sys.argv[1])
    del sys.argv[1]
    main()
