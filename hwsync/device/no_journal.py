"""A device whose journal cannot be opened: it is there, and refuses everything, with the reason.

The law: nothing runs without a journal. ``NoJournal`` stands in its place with a fresh name that is
nowhere on a disk, so no grant of another life moves to it, and it takes nothing: whoever uses it
refuses, as where a disk is full. What the journal on the disk holds is told once it can be opened.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from hwsync.device.journal import Journal, JournalEntry
from hwsync.protocol.errors import JournalUnavailable
from hwsync.protocol.record import RunReport
from hwsync.protocol.wire.envelope import Envelope
from hwsync.runner import Group

log = logging.getLogger("hwsync.device")

AGAIN_S: Final = 10.0  # between two attempts to open a journal that is over


class NoJournal:
    """What has the methods of ``Journal``, and keeps nothing; ``refusal`` says why.

    Whatever is looked for is not there. What would have to be written raises
    ``JournalUnavailable``, but for ``begin_epoch`` and ``prune``, which have nothing to write.
    """

    needs_reopening = True

    def __init__(
        self, refusal: str, *, nonce: Callable[[], str] = lambda: secrets.token_hex(8)
    ) -> None:
        self.refusal = refusal
        self.name = f"j-{nonce()}"
        self.boot = 1
        self.epoch = 0
        self.newest = (0, 0)

    def close(self) -> None:
        pass

    def get(self, id: str) -> JournalEntry | None:
        return None

    def open_entries(self) -> list[JournalEntry]:
        return []

    def unsettled(self) -> list[JournalEntry]:
        return []

    def users(self) -> list[str]:
        return []

    def _refuse(self) -> NoReturn:
        raise JournalUnavailable(self.refusal)

    def received(self, envelope: Envelope, now: float) -> None:
        self._refuse()

    def next_boot(self) -> None:
        self._refuse()

    def started(self, id: str, group: Group, now: float) -> None:
        self._refuse()

    def finished(self, id: str, report: RunReport, now: float) -> None:
        self._refuse()

    def closed(self, id: str, report: RunReport, order: tuple[int, int], now: float) -> None:
        self._refuse()

    def settle(self, id: str, now: float) -> None:
        self._refuse()

    def probe(self) -> None:
        self._refuse()

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def prune(self, now: float) -> None:
        pass


AnyJournal = Journal | NoJournal


def open_journal(
    folder: Path,
    opener: Callable[[Path], Journal] = Journal,
    nonce: Callable[[], str] = lambda: secrets.token_hex(8),
) -> AnyJournal:
    """The journal in that folder, or what stands in its place while its disk refuses.

    Raises ``JournalError`` where only a person can help: in use, of a newer version.
    """
    try:
        return opener(folder)
    except JournalUnavailable as error:
        return NoJournal(str(error), nonce=nonce)


def reopen(
    journal: AnyJournal, folder: Path, opener: Callable[[Path], Journal] = Journal
) -> AnyJournal | None:
    """The journal of the next life, where ``journal`` is over; None: go on without one.

    Name and boot are others than before, so agent, will and connection must be new ones. Raises
    ``JournalError`` as ``open_journal`` does.
    """
    journal.close()
    opened = open_journal(folder, opener)
    if isinstance(journal, NoJournal) and isinstance(opened, NoJournal):
        journal.refusal = opened.refusal
        return None
    return opened
