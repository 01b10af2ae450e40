"""The only way in which a test waits: for a condition, with a deadline, and saying what for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

Value = TypeVar("Value")

PATIENCE = (
    10.0  # seconds; far above what anything here takes, so that a loaded machine fails no test
)
# Seconds for what begins with the start of an interpreter: on a machine that is overrun (by a fork
# bomb of another test, say) its quarter of a second of computing takes ten.
START_PATIENCE = 30.0
POLL = 0.01  # seconds between two looks


def wait_until(
    condition: Callable[[], Value], timeout: float = PATIENCE, what: str | Callable[[], str] = ""
) -> Value:
    """Call ``condition`` until it returns something true, and return that.

    Fails the test after ``timeout`` seconds with ``what`` (a text, or a function that is called
    then and may show what was seen instead). The last look at the condition is after the deadline.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            said = what() if callable(what) else what
            pytest.fail(f"not within {timeout:g} s: {said or repr(condition)}")
        time.sleep(POLL)
