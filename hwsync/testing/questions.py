"""Questions about the past in a pretended world: the coordinator's real answers, without a thread.

The law: a page is read some time after its question came, as by another thread, and between two
turns of the loop.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

from hwsync.coordinator.histories import Histories
from hwsync.coordinator.loop import Coordinator
from hwsync.testing.processes import Process

READ_S: Final = 0.2  # at most, until a page is read


class WatchedHistories(Histories):
    """Those of one life of that process; ``dice``: of its own."""

    def __init__(
        self, process: Process, coordinator: Coordinator, path: Path, dice: Random
    ) -> None:
        super().__init__(coordinator, path, process, lambda: process.plan(0.0))
        self._process, self._dice, self._life = process, dice, process.life

    def _have_read(self) -> None:
        self._process.context.schedule.after(READ_S * self._dice.random(), self._reads)

    def _reads(self) -> None:
        process = self._process
        if process.alive and process.life == self._life:
            question = self._asked.get_nowait()
            assert question is not None
            self._found.put(self._read_one(question))
            self._wake()

    def close(self) -> None:
        self._close_file()
