"""A journal whose files are not what was written: it holds exactly what it held, or is set aside.

Every byte that is not zero is damaged in one bit, and those that SQLite reads first in all of them,
in a database whose log was taken in and in one whose log was not; logs are cut off at each length.
Of a log's damages ``HWSYNC_DAMAGES=all`` tries all, which takes a minute; else every eighth.
What else may be wrong with a journal is in tests/unit/test_journal_damage.py.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest

from hwsync.device.journal import Journal, JournalEntry
from tests.unit.test_journal import CLOSING, ENVELOPE, GROUP, REPORT

IDS = ("started", "finished", "settled", "closed")
ALL_BITS = 100  # the first bytes of a database, and those of a log, in every bit
PARTS = 2  # of a log's 27,000 damages, so that several cores may share them
OF_LOG = PARTS if os.environ.get("HWSYNC_DAMAGES") == "all" else 8 * PARTS

State = tuple[str, int, int, tuple[JournalEntry | None, ...]]


@dataclass(frozen=True, slots=True)
class Files:
    """What a board's folder holds, and what a journal reads there."""

    content: dict[str, bytes]
    state: State

    def write(self, folder: Path, **changes: bytes) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, data in (self.content | changes).items():
            (folder / name).write_bytes(data)
        return folder


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "hwsync")


def state(journal: Journal) -> State:
    return journal.name, journal.boot, journal.epoch, tuple(journal.get(id) for id in IDS)


def fill(journal: Journal) -> None:
    journal.begin_epoch(7)
    for number, id in enumerate(IDS):
        journal.received(replace(ENVELOPE, id=id, seq=number), 1.0)
    for id in ("finished", "settled", "started"):
        journal.started(id, GROUP, 2.0)
    for id in ("finished", "settled"):
        journal.finished(id, REPORT, 3.0)
    journal.settle("settled", 4.0)
    journal.closed("closed", CLOSING, (0, 9), 5.0)


def files(folder: Path, *, log: bool) -> Files:
    """A filled journal, as a kill leaves it (``log``) or as it was closed."""
    journal = Journal(folder, machine="m")
    fill(journal)
    held = state(journal)
    if not log:
        journal.close()
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    content.pop("journal.db-shm", None)
    journal.close()
    assert ("journal.db-wal" in content) == log
    return Files(content, held)


def bits(name: str, data: bytes) -> Iterator[tuple[int, int]]:
    """Byte and bit of each damage."""
    dice = random.Random(name)
    for at, byte in enumerate(data):
        frame = (at - 32) % 4_120  # of a log: its own header is 24 bytes long
        first = at < ALL_BITS or (name.endswith("-wal") and frame < 24)
        if first:
            yield from ((at, bit) for bit in range(8))
        elif byte or dice.random() < 0.01:
            yield at, dice.randrange(8)


def verdict(folder: Path, before: Files) -> str:
    """What an opening makes of it: "same", "aside", or what is wrong."""
    name, boot, epoch, entries = before.state
    with closing(Journal(folder, machine="m")) as journal:
        found = state(journal)
    if found == (name, boot + 1, epoch, entries):
        return "same"
    aside = list(folder.glob("journal-damaged-*.db"))
    new = found[0] != name and found[1:] == (1, 0, (None,) * len(IDS))
    return "aside" if new and aside else f"{found}, {aside}"


@pytest.mark.parametrize(
    ("file", "log", "first", "step"),
    [
        ("journal.db", False, 0, 1),
        ("journal.db", True, 0, 1),
        *[("journal.db-wal", True, part, OF_LOG) for part in range(PARTS)],
        ("journal.mark", True, 0, 1),
    ],
)
def test_a_flipped_bit_changes_nothing_or_sets_it_aside(
    file: str, log: bool, first: int, step: int, memory: Path
) -> None:
    before = files(memory / "whole", log=log)
    seen: dict[str, int] = {}
    for at, bit in islice(bits(file, before.content[file]), first, None, step):
        damaged = bytearray(before.content[file])
        damaged[at] ^= 1 << bit
        folder = before.write(memory / "damaged", **{file: bytes(damaged)})
        said = verdict(folder, before)
        assert said in ("same", "aside"), f"byte {at}, bit {bit} of {file}: {said}"
        seen[said] = seen.get(said, 0) + 1
    print(f"{file}: {seen}")
    assert sum(seen.values()) >= (500 if file != "journal.mark" else 100)


@pytest.mark.parametrize("marked", [True, False])
def test_a_log_that_was_cut_off_is_what_was_or_is_set_aside(marked: bool, memory: Path) -> None:
    """Without its mark it may be an earlier state, as after a power cut: nothing was said since."""
    before = files(memory / "whole", log=True)
    log = before.content["journal.db-wal"]
    if not marked:
        before.content.pop("journal.mark")
    earlier, names = 0, set()
    for length in [*range(0, len(log), 61), len(log)]:
        folder = before.write(memory / "cut", **{"journal.db-wal": log[:length]})
        said = verdict(folder, before)
        if marked:
            assert said == ("same" if length == len(log) else "aside"), f"{length} bytes: {said}"
            continue
        with closing(Journal(folder, machine="m")) as journal:
            earlier += journal.name == before.state[0]
            names.add(journal.name)
        assert not list(folder.glob("journal-damaged-*")), f"{length} bytes"
    if not marked:
        assert earlier > 50, "the same journal at earlier times"
        assert len(names) > 1, "none at all"


def test_a_transaction_that_never_returned_does_no_harm(memory: Path) -> None:
    """The log ends within it, whole or torn; the mark is of the one before."""
    folder = memory / "whole"
    with closing(Journal(folder, machine="m")) as journal:
        fill(journal)
        held = state(journal)
        mark = (folder / "journal.mark").read_bytes()
        whole = (folder / "journal.db-wal").stat().st_size
        journal.received(replace(ENVELOPE, id="new"), 9.0)
        names = ("journal.db", "journal.db-wal")
        content = {name: (folder / name).read_bytes() for name in names}
    before = Files(content | {"journal.mark": mark}, held)
    log = content["journal.db-wal"]
    for length in [*range(whole, len(log), 61), len(log)]:
        torn = before.write(memory / "torn", **{"journal.db-wal": log[:length]})
        assert verdict(torn, before) == "same", f"{length - whole} bytes of it"
