"""What a device must not forget: ids, how far each came, and results until they are settled.

The law: a method that changes something returns only after it is flushed to disk, and one process
holds the journal. Its name is bound to the machine: a cloned card makes a new one
(docs/protocol.md, section 5).

History never goes back unnoticed (``sealed``): a database that is not what was written is set aside
by the opening, and a new journal with another name begins. A grant is bound to the name, so nothing
runs twice. Damage that is found later is ``JournalDamaged`` to every call until the next opening.

Its size: files that go in are dropped when the program has started or will not; those that came
back, programs and input when a result is settled; long texts of all but the last ``KEEP_TEXTS``
settled results soon after; and the rest of a settled entry (under 5 KB) when the device has run for
``KEEP_S`` more. Of a signed command that may have run its end stays for ever, without any text
(0.7 KB): the coordinator may sign it again, and whoever keeps the answers from it could wait until
its id was forgotten. What is dropped makes room in the file, which is as large as it ever had to
be; SQLite's log is cut to 4 MiB.

``now`` is in seconds, of a clock that counts evenly while the process lives (monotonic). The
journal adds up those of all its lives, so that no jump of a wall clock makes anything old.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from hwsync.device.entry_texts import (
    bare_envelope,
    bare_report,
    envelope_text,
    read_envelope_text,
    read_report_text,
    report_text,
    settled_envelope,
    without_files,
)
from hwsync.device.journal_files import JournalFiles
from hwsync.device.sealed import COLUMNS, Row, Sealed
from hwsync.protocol.errors import JournalDamaged
from hwsync.protocol.files import counted
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.record import RunReport
from hwsync.protocol.wire.envelope import Envelope
from hwsync.runner import Group

log = logging.getLogger("hwsync.device")

KEEP_S: Final = 24 * 3_600.0  # of running time: a settled id is known for at least so long
KEEP_TEXTS: Final = 100  # settled results that keep long texts: for a database that was put back
LONG: Final = 2_000  # characters of a result in the journal
DROPPED: Final = "the board keeps files until the coordinator has them"
KEPT: Final = 2  # in the column ``settled``: for ever
MACHINE: Final = (Path("/etc/machine-id"), Path("/proc/device-tree/serial-number"))


class Stage(StrEnum):
    """How far a command came on this device."""

    RECEIVED = "received"  # not started, waits for its grant
    STARTED = "started"  # final: never run again
    FINISHED = "finished"  # ran, has a result
    CLOSED = "closed"  # provably not run; a newer envelope opens it again


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One command of this device, as far as it came."""

    id: str
    stage: Stage
    envelope: Envelope
    closing: tuple[int, int] | None  # (epoch, seq) of the status that closed it
    group: Group | None
    report: RunReport | None
    settled: bool

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, seq) of the newest envelope."""
        return (self.envelope.epoch, self.envelope.seq)

    @property
    def may_come_again(self) -> bool:
        """Signed, and may have run: for as long as it waits it may be signed once more."""
        return bool(self.envelope.signed_by) and self.stage in (Stage.STARTED, Stage.FINISHED)


def machine_id() -> str:
    """What tells this machine from another; empty where nothing does."""
    found = []
    for path in MACHINE:
        try:
            found.append(path.read_text(encoding="utf-8", errors="replace").strip("\0\n "))
        except OSError:
            found.append("")
    return "/".join(found)


class Journal(Sealed):
    """The journal in ``folder``; ``machine`` tells this machine from another (``machine_id``).

    Every method raises ``JournalError``, and has changed nothing then. ``JournalUnavailable``: the
    disk is full, read-only or failing; the same call may succeed later. ``JournalDamaged``: no call
    does any more (``needs_reopening``); ``close``, and open it anew, which sets the damaged one
    aside. The construction raises it of a journal that another process has, or a newer version
    wrote. ``nonce``: what a new journal's name is made of; no name may ever come twice.
    """

    def __init__(
        self,
        folder: Path,
        *,
        machine: str | None = None,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        super().__init__(JournalFiles(folder))
        self._nonce = nonce
        self._origin: float | None = None  # ``now`` when it was first heard in this life
        machine = machine_id() if machine is None else machine
        try:
            try:
                self._begin(machine)
            except JournalDamaged as damage:
                self._close_database()
                aside = self._files.set_aside("damaged")
                log.error("%s: moved to %s, a new one made; what was open is lost", damage, aside)
                self._begin(machine)
        except BaseException:
            self.close()
            raise

    def _begin(self, machine: str) -> None:
        self._open()
        bound = self._meta().get("machine")
        if bound is not None and bound != machine:
            self._close_database()
            aside = self._files.set_aside("of-another-machine")
            log.warning("the journal is another machine's: moved to %s, a new one made", aside)
            self._open()
        for row in self._rows("true"):  # what cannot be read now could never be
            self._entry(row)
        meta = self._meta()
        self.name = meta.get("journal") or f"j-{self._nonce()}"
        self.boot = int(meta.get("boot", 0)) + 1
        self.epoch = int(meta.get("epoch", 0))
        epoch, seq = meta.get("newest", "0 0").split()
        # (epoch, seq) of the newest signed envelope, pruned or not; others may be forged.
        self.newest = (int(epoch), int(seq))
        self._base = self._age = float(meta.get("age", 0.0))
        with self._changing():
            self._head |= {"journal": self.name, "machine": machine, "boot": str(self.boot)}

    def close(self) -> None:
        """Close the database and let another process have the folder."""
        self._close_database()
        self._files.close()

    # -- what is in it -------------------------------------------------------------------------

    def get(self, id: str) -> JournalEntry | None:
        """The entry of that id; None: it never came here, or was forgotten (``prune``)."""
        row = self._row(id)
        return None if row is None else self._entry(row)

    def open_entries(self) -> list[JournalEntry]:
        """Received or started ones: at most one, but a crash may have left any."""
        return self._entries("state in ('received', 'started') order by rowid")

    def unsettled(self) -> list[JournalEntry]:
        """Those whose result is not known to be stored."""
        return self._entries("account is not null and settled = 0 order by rowid")

    def users(self) -> list[str]:
        """Under which names it has results, the latest first."""
        entries = self._entries("account is not null order by changed desc, rowid desc")
        return list(dict.fromkeys(entry.envelope.user for entry in entries))

    # -- what changes it -----------------------------------------------------------------------

    def received(self, envelope: Envelope, now: float) -> None:
        """Write a new command, or open a closed one again; nothing where it was started before."""
        new = dict.fromkeys(COLUMNS) | {
            "id": envelope.id, "state": "received", "envelope": envelope_text(envelope),
            "epoch": envelope.epoch, "seq": envelope.seq, "settled": 0, "changed": self._at(now),
        }  # fmt: skip
        order = (envelope.epoch, envelope.seq)
        newest = max(self.newest, order) if envelope.signed_by else self.newest
        with self._changing():
            self._head["newest"] = f"{newest[0]} {newest[1]}"
            row = self._row(envelope.id)
            if row is None or row["state"] in ("received", "closed"):
                self._put((row or {}) | new)
        self._ids.add(envelope.id)
        self.newest = newest

    def next_boot(self) -> None:
        """Increase the boot number, so that the coordinator knows answers of before as outdated.

        docs/protocol.md, section 2, "An outdated ``no``".
        """
        with self._changing():
            self._head["boot"] = str(self.boot + 1)
        self.boot += 1

    def started(self, id: str, group: Group, now: float) -> None:
        """From here on it is never run again; ``group``: what a later life ends of it."""
        self._change(id, now, state="started", run_group=dumps(asdict(group)))

    def finished(self, id: str, report: RunReport, now: float) -> None:
        """The whole result of a run."""
        self._change(id, now, state="finished", account=report_text(report), settled=0)

    def closed(self, id: str, report: RunReport, order: tuple[int, int], now: float) -> None:
        """Not run; ``order`` is that of the status that says so."""
        closing = {"closing_epoch": order[0], "closing_seq": order[1]}
        self._change(id, now, state="closed", account=report_text(report), settled=0, **closing)

    def settle(self, id: str, now: float) -> None:
        """The coordinator has its result; nobody needs its program any more, nor its files."""
        with self._changing():
            row = self._row(id)
            if row is not None:
                if row["account"] is not None:
                    row["envelope"] = settled_envelope(row["envelope"])
                    row["account"] = bare_report(row["account"], DROPPED)
                self._put(row | {"settled": 1, "changed": self._at(now)})

    def begin_epoch(self, epoch: int) -> None:
        """An older database was put back: nothing is settled any more that is still held."""
        with self._changing():
            self._head["epoch"] = str(epoch)
            for row in self._rows("account is not null and settled = 1"):
                self._put(row | {"settled": 0})
        self.epoch = epoch

    def prune(self, now: float) -> None:
        """Forget settled ones after ``KEEP_S``, and long texts of all but the last ``KEEP_TEXTS``.

        How each ended, and its hashes, stay till then; of signed ones that may have run for ever.
        """
        long = (
            f"settled = 1 and length(account) > {LONG} "
            f"order by changed desc, rowid desc limit -1 offset {KEEP_TEXTS}"
        )
        old = {
            row["id"]: row
            for row in self._rows("settled = 1 and changed < ?", self._at(now) - KEEP_S)
        }
        forgotten = {id for id, row in old.items() if not self._entry(row).may_come_again}
        shorten = [row for row in self._rows(long) if row["id"] not in old]
        if not old and not shorten:
            return
        with self._changing():
            for id, row in old.items():
                if id in forgotten:
                    self._delete(id, row["checksum"])
                else:
                    self._put(_without_texts(row) | {"settled": KEPT})
            for row in shorten:
                self._put(_without_texts(row))
        self._ids -= forgotten

    def probe(self) -> None:
        """Try to write: where that succeeds, ``refusal`` is empty again."""
        with self._changing():
            pass

    def _change(self, id: str, now: float, **values: object) -> None:
        with self._changing():
            row = self._row(id)
            if row is not None:
                row["envelope"] = bare_envelope(row["envelope"])
                self._put(row | values | {"changed": self._at(now)})

    def _at(self, now: float) -> float:
        """Seconds that this journal was in use, in all its lives."""
        if self._origin is None:
            self._origin = now
        self._age = self._base + (now - self._origin)
        return self._age

    def _entries(self, where: str) -> list[JournalEntry]:
        return [self._entry(row) for row in self._rows(where)]

    def _entry(self, row: Row) -> JournalEntry:
        try:
            return _entry(row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._damaged(f"an entry cannot be read: {error}") from None


def _without_texts(row: Row) -> Row:
    report = without_files(read_report_text(row["account"]), DROPPED)
    left = counted(report.not_kept)
    bare = replace(report, response="", stderr="", truncated=True, order=None, not_kept=left)
    return row | {"account": report_text(bare)}


def _entry(row: Row) -> JournalEntry:
    return JournalEntry(
        row["id"],
        Stage(row["state"]),
        read_envelope_text(row["envelope"]),
        None if row["closing_epoch"] is None else (row["closing_epoch"], row["closing_seq"]),
        None if row["run_group"] is None else Group(**loads(row["run_group"])),
        None if row["account"] is None else read_report_text(row["account"]),
        bool(row["settled"]),
    )
