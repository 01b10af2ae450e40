"""What a device keeps of its commands: the journal, and in memory what the journal did not take.

The law: where both have a command, memory counts, since it is ahead. Two kinds are in memory.
A *refused* command was never written as received: it will not start, and at its grant it is
answered ``rejected``; once that is settled it is forgotten. A *result* belongs to an entry of the
journal that could not be written to its end: it may be said at once, since what stands in the
journal already decides what a later life may do, and it is written when the disk allows.

A crash forgets both. Of a refused one the coordinator then says ``lost``; a later life answers for
the other from what the journal has.

What the journal refuses here is logged and tried again, but for ``get`` and ``known``, which raise:
nobody knows then what became of a command.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from hwsync.device.entry_texts import without_files
from hwsync.device.journal import JournalEntry, Stage
from hwsync.device.no_journal import AnyJournal
from hwsync.protocol import limits
from hwsync.protocol.device import values
from hwsync.protocol.device.values import Known
from hwsync.protocol.errors import JournalError
from hwsync.protocol.record import RunReport
from hwsync.protocol.wire.envelope import Envelope
from hwsync.protocol.wire.status import StatusHead

log = logging.getLogger("hwsync.device")

STAGES = {
    Stage.RECEIVED: values.RECEIVED,
    Stage.STARTED: values.RUNNING,
    Stage.FINISHED: values.FINISHED,
    Stage.CLOSED: values.CLOSED,
}


@dataclass(slots=True)
class _Kept:
    """An entry as it really is."""

    entry: JournalEntry
    refusal: str  # why it will not start; empty: a result that must be written


class Unwritten:
    """Entries that are ahead of the journal, by id."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def get(self, id: str) -> JournalEntry | None:
        """The entry as it really is, where the journal's is not."""
        kept = self._kept.get(id)
        return kept.entry if kept else None

    def refusal(self, id: str) -> str:
        """Why that command will not start; empty where it may."""
        kept = self._kept.get(id)
        return kept.refusal if kept else ""

    def refuse(self, envelope: Envelope, reason: str) -> JournalEntry:
        """Keep a new command, which will not start."""
        envelope = replace(envelope, files=())
        entry = JournalEntry(envelope.id, Stage.RECEIVED, envelope, None, None, None, settled=False)
        self._kept[envelope.id] = _Kept(entry, reason[: limits.MAX_REASON])
        return entry

    def ended(self, entry: JournalEntry, report: RunReport, order: tuple[int, int] | None) -> None:
        """Keep a result; ``order`` is that of the status that closed it, None: it was granted."""
        stage = Stage.FINISHED if order is None else Stage.CLOSED
        bare = replace(entry.envelope, program="", stdin="", args=(), files=())
        now = replace(entry, stage=stage, envelope=bare, closing=order, report=report)
        self._kept[entry.id] = _Kept(now, self.refusal(entry.id))

    def forget(self, id: str) -> None:
        """The journal has it by now, or a newer envelope of it."""
        self._kept.pop(id, None)

    def settle(self, id: str) -> None:
        """The coordinator has its result."""
        kept = self._kept[id]
        if kept.refusal:
            del self._kept[id]
        else:
            kept.entry = replace(kept.entry, settled=True)

    def unsettled(self) -> list[JournalEntry]:
        """Results that nobody is known to have."""
        entries = [kept.entry for kept in self._kept.values()]
        return [entry for entry in entries if entry.report and not entry.settled]

    @property
    def refusals(self) -> int:
        """How many commands are kept that will not start."""
        return sum(bool(kept.refusal) for kept in self._kept.values())

    @property
    def waits(self) -> bool:
        """Whether a result must still be written."""
        return any(not kept.refusal for kept in self._kept.values())

    def write(self, journal: AnyJournal, now: float) -> None:
        """Write the results. Raises ``JournalError``: the rest waits."""
        for id, kept in list(self._kept.items()):
            entry = kept.entry
            if kept.refusal or entry.report is None:
                continue
            if entry.stage is Stage.CLOSED and entry.closing is not None:
                journal.closed(id, entry.report, entry.closing, now)
            else:
                journal.finished(id, entry.report, now)
            if entry.settled:
                journal.settle(id, now)
            del self._kept[id]


class Keeping:
    """What is kept of the commands of one journal. ``monotonic``: the clock, in seconds."""

    def __init__(self, journal: AnyJournal, monotonic: Callable[[], float]) -> None:
        self._journal = journal
        self._monotonic = monotonic
        self.unwritten = Unwritten()

    def get(self, id: str) -> JournalEntry | None:
        """The entry of that id. Raises ``JournalError``."""
        return self.unwritten.get(id) or self._journal.get(id)

    def known(self, id: str, user: str) -> Known | None:
        """What is known of a command; ``user``: whose they are here. Raises ``JournalError``."""
        entry = self.get(id)
        if entry is None:
            return None
        try:
            below = self._journal.get(id)
        except JournalError:
            below = None  # nothing can be written over it either
        return _known(entry, user, closed=below is not None and below.stage is Stage.CLOSED)

    def settled(self, status: StatusHead, user: str) -> tuple[Known, ...]:
        """What is known of the ids of that user that a status settles for this journal."""
        found = []
        for id, journal in status.settled:
            if journal == self._journal.name:
                try:
                    entry = self.get(id)
                except JournalError as error:
                    log.error("%s; the result is sent again until that can be read", error)
                else:
                    if entry is not None and entry.envelope.user == user:
                        found.append(_known(entry, user))
        return tuple(found)

    def end(self, entry: JournalEntry, report: RunReport, order: tuple[int, int] | None) -> None:
        """Keep a result; ``order`` is that of the status that closed it, None: it was granted.

        Where the disk has no room for its files, it is written without them. Where it has none for
        that either, the whole is kept in memory, and may be told.
        """
        self.unwritten.ended(entry, report, order)
        self.write()
        if report.files and self.unwritten.get(entry.id) is not None:
            reason = self._journal.refusal[: limits.MAX_NOT_KEPT_REASON]
            self.unwritten.ended(entry, without_files(report, reason), order)
            self.write()
            if self.unwritten.get(entry.id) is not None:
                self.unwritten.ended(entry, report, order)

    def write(self) -> None:
        """Write the results that an earlier attempt could not write; what fails is tried again."""
        if self.unwritten.waits:
            try:
                self.unwritten.write(self._journal, self._monotonic())
            except JournalError as error:
                log.error("%s; the result is kept in memory and written again", error)

    def settle(self, id: str) -> None:
        """The coordinator has the result of that command."""
        try:
            entry = self.get(id)
            if entry is None or entry.settled:
                return  # the journal could not be told of a new epoch
            if self.unwritten.get(id):
                self.unwritten.settle(id)
            else:
                self._journal.settle(id, self._monotonic())
        except JournalError as error:
            log.error("%s; the result is sent again until that can be written", error)

    def unsettled(self) -> list[JournalEntry]:
        """Results that nobody is known to have, as far as the journal can be read."""
        entries = {entry.id: entry for entry in self.unwritten.unsettled()}
        try:
            for entry in self._journal.unsettled():
                if self.unwritten.get(entry.id) is None:
                    entries[entry.id] = entry
        except JournalError as error:
            log.error("%s; its results are told when it can be read", error)
        return list(entries.values())


def _known(entry: JournalEntry, user: str, *, closed: bool = False) -> Known:
    of = entry.envelope.user
    return Known(
        entry.id,
        values.SETTLED if entry.settled else STAGES[entry.stage],
        entry.closing,
        another="" if of == user else of,
        was_closed=closed or entry.stage is Stage.CLOSED,
    )
