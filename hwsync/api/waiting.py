"""How a program waits for what it has asked for, and what Ctrl-C does then."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Any, Final

CANCEL_S: Final = 5.0  # for programs to end by themselves after Ctrl-C


def wait_for(runs: Iterable[Future[Any]]) -> None:
    """Until each has ended. Ctrl-C cancels those that have not, and is raised a moment later."""
    runs = list(runs)
    try:
        wait(runs)
    except BaseException:
        for run in runs:
            run.cancel()
        wait(runs, CANCEL_S)
        raise
