"""What is said while nobody answers.

The law: a person who waits longer than a moment is told for what, once; the error comes later.
Where no terminal shows it, nobody waits.
"""

from __future__ import annotations

import sys
from typing import Final

from hwsync.cli import say
from hwsync.operator.conversation import ANSWER_S

SLOW: Final = (
    f"hwsync: no coordinator has answered yet; it is asked again, {ANSWER_S:.0f} s in all at most"
)


def say_slow() -> None:
    """Nobody answers for a while."""
    if somebody_waits():
        say.remark(SLOW)


def somebody_waits() -> bool:
    """Whether a terminal shows what is said."""
    return sys.stderr is not None and sys.stderr.isatty()
