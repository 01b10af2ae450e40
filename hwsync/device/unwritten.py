"""What the journal could not take, kept in memory until it can, or until nobody needs it.

Two kinds. A *refused* command was never written as received: it will not start, and at its grant
it is answered ``rejected``; once that is settled it is forgotten. A *result* belongs to an entry
of the journal that could not be written to its end: it may be said at once, since what stands in
the journal already decides what a later life may do, and it is written when the disk allows.

A crash forgets both. Of a refused one the coordinator then says ``lost``; a later life answers for
the other from what the journal has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwsync.device.journal import Entry, Stage
from hwsync.device.no_journal import AnyJournal
from hwsync.protocol import limits
from hwsync.protocol.record import Account
from hwsync.protocol.wire import Envelope


@dataclass(slots=True)
class _Kept:
    """An entry as it really is."""

    entry: Entry
    refusal: str  # why it will not start; empty: a result that must be written


class Unwritten:
    """Entries that are ahead of the journal, by id."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def get(self, id: str) -> Entry | None:
        """The entry as it really is, where the journal's is not."""
        kept = self._kept.get(id)
        return kept.entry if kept else None

    def refusal(self, id: str) -> str:
        """Why that command will not start; empty where it may."""
        kept = self._kept.get(id)
        return kept.refusal if kept else ""

    def refuse(self, envelope: Envelope, reason: str) -> Entry:
        """Keep a new command, which will not start."""
        entry = Entry(envelope.id, Stage.RECEIVED, envelope, None, None, None, settled=False)
        self._kept[envelope.id] = _Kept(entry, reason[: limits.MAX_REASON])
        return entry

    def ended(self, entry: Entry, account: Account, order: tuple[int, int] | None) -> None:
        """Keep a result; ``order`` is that of the status that closed it, None: it was granted."""
        stage = Stage.FINISHED if order is None else Stage.CLOSED
        bare = replace(entry.envelope, program="", stdin="", args=())
        now = replace(entry, stage=stage, envelope=bare, closing=order, account=account)
        self._kept[entry.id] = _Kept(now, self.refusal(entry.id))

    def forget(self, id: str) -> None:
        """The journal has it."""
        self._kept.pop(id, None)

    def settle(self, id: str) -> None:
        """The coordinator has its result."""
        kept = self._kept[id]
        if kept.refusal:
            del self._kept[id]
        else:
            kept.entry = replace(kept.entry, settled=True)

    def unsettled(self) -> list[Entry]:
        """Results that nobody is known to have."""
        entries = [kept.entry for kept in self._kept.values()]
        return [entry for entry in entries if entry.account and not entry.settled]

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
            if kept.refusal or entry.account is None:
                continue
            if entry.stage is Stage.CLOSED and entry.closing is not None:
                journal.closed(id, entry.account, entry.closing, now)
            else:
                journal.finished(id, entry.account, now)
            if entry.settled:
                journal.settle(id, now)
            del self._kept[id]
