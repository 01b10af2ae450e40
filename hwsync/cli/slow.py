"""What is said while nobody answers.

The law: a person who waits longer than a moment is told for what, once; the error comes later.
Where no terminal shows it, nobody waits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from hwsync.cli import say
from hwsync.operator.conversation import ANSWER_S, SLOW_S
from hwsync.protocol.limits import UNOFFERED_S
from hwsync.protocol.record import State
from hwsync.protocol.wire.status import CommandFields

SLOW: Final = (
    f"hwsync: no coordinator has answered yet; it is asked again, {ANSWER_S:.0f} s in all at most"
)


def say_slow() -> None:
    """Nobody answers for a while."""
    if somebody_waits():
        say.remark(SLOW)


class AwaitedVerdict:
    """That a program has ended and its verdict is waited for; ``tell`` says a line of it.

    ``returned``: its end, which nobody has judged yet; None: it has not come so far.
    """

    def __init__(
        self, tell: Callable[[str], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._monotonic = tell, monotonic
        self._since = 0.0
        self._said = ""
        self.returned: CommandFields | None = None

    def hear(self, fields: CommandFields) -> None:
        """What came of the command."""
        is_returned = fields["state"] == State.RETURNED and fields["outcome"] is not None
        if is_returned and self.returned is None:
            self._since = self._monotonic()
        self.returned = fields if is_returned else None

    def tick(self) -> None:
        """Say for what it waits, where that takes longer than a moment."""
        if self.returned is None or self._monotonic() - self._since < SLOW_S:
            return
        why = self.returned.get("no_analysis")
        waits = f"{why} now; that is waited for {UNOFFERED_S:.0f} s at most" if why else (
            f"waiting for the verdict of {self.returned.get('analyser')}"
        )  # fmt: skip
        line = f"hwsync: the program has ended: {self.returned['outcome']}; {waits} (Ctrl-C leaves)"
        if line != self._said and somebody_waits():
            self._said = line
            self._tell(line)


def somebody_waits() -> bool:
    """Whether a terminal shows what is said."""
    return sys.stderr is not None and sys.stderr.isatty()
