"""Power cuts at every operation of a device's disk: what it said is so, and nothing runs twice.

One recording (``tests.support.power``) of the real agent on the real journal serves all cuts. After
each, the image is opened by the real journal on Python's own SQLite; then a coordinator that has
forgotten everything sends all commands again, each with a grant, which no real one would do. What
is settled, and in which epoch, is compared with what was committed (``torn``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.device import journal as journals
from hwsync.device.journal import KEEP_S, Journal, JournalEntry, Stage
from hwsync.device.journal_files import JournalFiles
from hwsync.protocol.errors import JournalError
from hwsync.protocol.jsons import loads
from hwsync.protocol.wire.response import encode_response
from tests.support.board import CANCELLED, END, GROUP, Board, Sent
from tests.support.power import Disk, Image
from tests.support.power_sqlite import Commit, mounted, torn

SEED: Final = 1
NAME: Final = "journal.db"
IDS: Final = ("a", "b", "c", "d", "e", "f")
ENDS: Final = [
    ("a", "ok"),
    ("b", "rejected"),
    ("c", "interrupted"),
    ("d", "cancelled"),
    ("e", "ok"),
    ("f", "ok"),
]
END_OF_A_RUN: Final = ("outcome", "ran", "exit_code", "sha256")  # what stays of a long one
LONG: Final = "x" * (journals.LONG + 1_000)


@dataclass(frozen=True, slots=True)
class Received:
    """The envelope was acknowledged."""

    id: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The program may run: ``run_started`` has returned."""

    id: str


@dataclass(frozen=True, slots=True)
class Forgets:
    """From here on nothing need be known of these, and of others no long texts."""

    ids: tuple[str, ...] = ()


Fact = Sent | Received | HandedOver | Forgets


@dataclass(slots=True)
class Recording:
    """What was done, each with the number of the disk's operations until then."""

    disk: Disk
    commits: list[Commit] = field(default_factory=list)
    facts: list[tuple[int, Fact]] = field(default_factory=list)

    def note(self, fact: Fact) -> None:
        self.facts.append((self.disk.count, fact))

    def known_by(self, cut: int) -> list[Fact]:
        return [fact for at, fact in self.facts if at <= cut]


class Life:
    """A board whose words are noted."""

    def __init__(self, folder: Path, recording: Recording) -> None:
        self.recording = recording
        self.board = Board(folder)
        self.listen()

    def listen(self) -> None:
        world, publish = self.board.world, self.board.world.publish

        def noted(topic: str, payload: bytes, **options: Any) -> bool:
            published = publish(topic, payload, **options)
            self.recording.note(world.sent[-1])
            return published

        world.publish = noted  # type: ignore[method-assign]
        self.board.agent.connected()

    def again(self) -> None:
        time = self.board.world.time
        self.board.begin()
        self.board.world.time = time
        self.listen()

    def receive(self, id: str, seq: int, **changes: object) -> None:
        self.board.envelope(id, seq, **changes)
        self.recording.note(Received(id))

    def run(self, id: str, seq: int, **changes: object) -> None:
        self.receive(id, seq, **changes)
        self.board.status(seq + 1, 2, id, **changes)
        self.board.agent.run_started(GROUP)
        self.recording.note(HandedOver(id))

    def end(self, **changes: Any) -> None:
        self.board.agent.run_ended(replace(END, **changes))

    def settle(self, seq: int, *ids: str, **changes: object) -> None:
        name = self.board.journal.name
        self.board.status(seq, 3, ids[-1], settled=[[id, name] for id in ids], **changes)


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Long texts are dropped after the first result; what a device logs would hide what failed."""
    monkeypatch.setattr(journals, "KEEP_TEXTS", 1)
    caplog.set_level(logging.CRITICAL, "hwsync")


def record(folder: Path, synchronous: str | None = None) -> Recording:
    """Six commands: whole, closed, interrupted, cancelled over a restart, shortened; an epoch."""
    recording = Recording(Disk())
    with mounted(recording.disk, synchronous=synchronous) as recording.commits:
        life = Life(folder, recording)
        life.run("a", 1)
        life.end()
        life.settle(3, "a")
        life.receive("b", 4)
        life.board.status(5, 0, "b")  # somebody took it back
        life.run("c", 6)
        life.again()
        life.settle(8, "a", "b", "c", epoch=1)
        life.receive("d", 9, epoch=1)
        life.again()
        life.board.status(10, 1, "d", epoch=1)
        life.board.status(11, 2, "d", epoch=1)
        life.board.agent.run_started(GROUP)
        recording.note(HandedOver("d"))
        life.board.agent.run_ended(CANCELLED)
        recording.note(Forgets(("a", "b", "c")))
        life.board.world.time += KEEP_S + 1.0
        life.board.agent.tick()
        life.settle(12, "d", epoch=1)
        for seq, id in ((13, "e"), (16, "f")):
            life.run(id, seq, epoch=1)
            life.end(response=LONG)
            life.settle(seq + 2, id, epoch=1)
        recording.note(Forgets())
        life.board.pass_time(100.0)
        life.board.journal.close()
    return recording


def untrue(journal: Journal, facts: list[Fact]) -> Iterator[str]:
    """What was said or done, and is not in the journal."""
    forgets = [fact for fact in facts if isinstance(fact, Forgets)]
    forgotten = {id for fact in forgets for id in fact.ids}
    for fact in facts:
        if isinstance(fact, Forgets):
            continue
        if isinstance(fact, Sent):
            said = fact.fields
            if said["journal"] != journal.name or said["boot"] >= journal.boot:
                yield f"not of this journal's past, {journal.name} {journal.boot}: {fact}"
        id = fact.fields.get("id") if isinstance(fact, Sent) else fact.id
        if id is not None and id not in forgotten:
            entry = journal.get(id)
            if entry is None or not holds(entry, fact, shortened=len(forgets) > 1):
                yield f"not so, the journal has {entry}: {fact}"


def holds(entry: JournalEntry, fact: Fact, shortened: bool) -> bool:
    if isinstance(fact, HandedOver):
        return entry.stage in (Stage.STARTED, Stage.FINISHED)
    if isinstance(fact, Sent) and fact.kind == "response":
        if entry.report is None:
            return False
        said = fact.fields
        stored = result_of(entry, said["journal"], said["boot"])
        if shortened and stored["truncated"]:
            return {name: stored[name] for name in END_OF_A_RUN} == {
                name: said[name] for name in END_OF_A_RUN
            }
        return stored == said
    return True


def result_of(entry: JournalEntry, name: str, boot: int) -> dict[str, Any]:
    """The entry's result as it is published."""
    assert entry.report is not None
    fields: dict[str, Any] = loads(encode_response(entry.id, name, boot, entry.report).decode())
    return fields


def go_on(folder: Path, facts: list[Fact]) -> None:
    """The device after the cut: what was handed over is answered, everything else runs once."""
    forgotten = {id for fact in facts if isinstance(fact, Forgets) for id in fact.ids}
    handed = {fact.id for fact in facts if isinstance(fact, HandedOver)} - forgotten
    told = {
        fact.fields["id"]: (fact.fields["outcome"], fact.fields["ran"])
        for fact in facts
        if isinstance(fact, Sent) and fact.kind == "response"
    }
    board = Board(folder)
    with closing(board.journal):
        final = {id for id in IDS if board.stage(id) is Stage.FINISHED}
        assert handed <= final, "handed over, and open after the restart"
        board.agent.connected()
        waiting = board.agent.busy
        rest = [id for id in IDS if id not in forgotten]
        rest.sort(key=lambda id: id != waiting)  # one at a time
        for number, id in enumerate(rest):
            seq = 100 + 10 * number
            board.envelope(id, seq, epoch=1)
            board.status(seq + 1, 2, id, epoch=1)
            if id in final:
                assert id not in board.ran(), f"{id} ran twice"
            else:
                board.agent.run_started(GROUP)
                board.agent.run_ended(END)
                assert board.ran().count(id) == 1
            name = board.journal.name
            board.status(seq + 2, 3, id, epoch=1, settled=[[id, name]])
            entry = board.journal.get(id)
            assert entry is not None
            assert entry.settled
            answers = {(outcome, ran) for said, outcome, ran in board.told() if said == id}
            if id in handed and id in told:
                assert answers == {told[id]}, "another result than before the cut"
            elif id in handed:
                assert answers <= {("interrupted", "maybe"), ("ok", "yes"), ("cancelled", "yes")}
                assert answers
        assert board.journal.unsettled() == []


def mark(image: Image, commits: list[Commit]) -> None:
    """Beside every second image the newest mark that there can be: that of the last commit."""
    returned = [commit.content.get("meta", []) for commit in commits if commit.at <= image.cut]
    meta = dict(returned[-1]) if returned else {}
    if image.number == 0 and "journal" in meta:
        files = JournalFiles(image.folder)
        files.set_mark(meta["journal"], int(meta["changes"]))
        files.close()


def test_a_device_outlives_a_power_cut_at_every_operation(memory: Path) -> None:
    recording = record(memory / "uncut")
    assert ends(recording) == ENDS
    cuts = 0
    for image in recording.disk.images(memory / "cut", SEED):
        facts = recording.known_by(image.cut)
        assert list(torn(image.look_at(NAME), recording.commits, image.cut)) == [], image
        mark(image, recording.commits)
        with closing(Journal(image.folder, machine="m")) as journal:
            assert list(untrue(journal, facts)) == [], image
        assert not list(image.folder.glob("journal-damaged-*")), image
        try:
            go_on(image.folder, facts)
        except AssertionError as error:
            error.add_note(str(image))
            raise
        cuts += 1
    print(f"{cuts} cuts at {recording.disk.count} operations")
    assert cuts >= 200


def ends(recording: Recording) -> list[tuple[str, str]]:
    """Id and outcome of each result, in the order of their first publishes."""
    said = [fact.fields for _, fact in recording.facts if isinstance(fact, Sent)]
    return list(dict.fromkeys((one["id"], one["outcome"]) for one in said if "outcome" in one))


@pytest.mark.parametrize("synchronous", ["off", "normal"])
def test_a_disk_that_is_not_told_to_sync_loses_what_a_device_said(
    memory: Path, synchronous: str
) -> None:
    recording = record(memory / "uncut", synchronous)
    lost = 0
    for image in recording.disk.images(memory / "cut", SEED):
        try:
            with closing(Journal(image.folder, machine="m")) as journal:
                lost += any(untrue(journal, recording.known_by(image.cut)))
        except JournalError:
            lost += any(recording.known_by(image.cut))
    print(f"{lost} cuts lose something with {synchronous}")
    assert lost > 0
