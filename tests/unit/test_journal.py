"""What the journal remembers, for how long, and for whom: on real files."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.device.journal import KEEP_S, KEEP_TEXTS, Journal, Stage, machine_id
from hwsync.device.sealed import VERSION
from hwsync.protocol.errors import JournalError
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.limits import DEFAULT_GRACE_S, DEFAULT_NAME
from hwsync.protocol.record import Outcome, Ran, RunReport
from hwsync.protocol.wire.envelope import Envelope
from hwsync.runner import Group
from tests.support.processes import CHECKOUT, python

ENVELOPE = Envelope(
    "a", "u", 0, 5, "print('ä\0')", 2.5, "in\n", ("x", "ü"), 99.5, name="blink.py", grace=3.5
)
GROUP = Group(4711, 99, "this-boot")
REPORT = RunReport(
    Outcome.ERROR, Ran.YES, "exit code 3", "out\0ü", "err", 3, 0.5, 1.5, truncated=True,
    sha256_stdout="a1", sha256_stderr="b2", order=(("stdout", 6), ("stderr", 3)),
)  # fmt: skip
CLOSING = RunReport(Outcome.REJECTED, Ran.NO, "not granted")

KILLED = """
import os, signal, sys
from pathlib import Path
from hwsync.device.journal import Journal
from tests.unit.test_journal import REPORT, CLOSING, ENVELOPE, GROUP
journal = Journal(Path(sys.argv[1]), machine="m")
{steps}
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    """Opens the journal of a board; what is still open is closed after the test."""
    journals: list[Journal] = []

    def open_one(machine: str = "m") -> Journal:
        while journals:
            journals.pop().close()
        journals.append(Journal(tmp_path, machine=machine))
        return journals[-1]

    yield open_one
    for journal in journals:
        journal.close()


@pytest.fixture
def journal(opened: Callable[..., Journal]) -> Journal:
    return opened()


# -- whose it is ----------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_told_why(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(JournalError) as raised:
        Journal(tmp_path, machine="m")
    assert str(raised.value) == (
        f"another hwsync-device uses {tmp_path} (stop it, or take another --state-dir)"
    )
    assert raised.value.exit_code == 1


def test_a_journal_that_was_closed_can_be_opened_again(opened: Callable[..., Journal]) -> None:
    opened()
    opened()


def test_a_refused_opening_leaves_the_journal_to_its_holder(
    journal: Journal, tmp_path: Path
) -> None:
    with pytest.raises(JournalError):
        Journal(tmp_path, machine="another")
    journal.received(ENVELOPE, 1.0)
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["journal.db"]


def test_the_boot_grows_with_each_start_and_the_name_stays(opened: Callable[..., Journal]) -> None:
    starts = [(one.name, one.boot) for one in (opened() for _ in range(3))]
    name = starts[0][0]
    assert starts == [(name, 1), (name, 2), (name, 3)]


def test_each_new_journal_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = set()
    for number in range(5):
        with closing(Journal(tmp_path / str(number), machine="m")) as one:
            names.add(one.name)
    assert len(names) == 5


def test_a_cloned_card_makes_a_new_journal_and_keeps_the_old_file_aside(
    opened: Callable[..., Journal], tmp_path: Path
) -> None:
    first = opened("m")
    first.received(ENVELOPE, 1.0)
    name = first.name
    second = opened("another")
    assert second.name != name
    assert second.boot == 1
    assert second.get("a") is None
    (aside,) = tmp_path.glob("journal-of-another-machine-*.db")
    with closing(sqlite3.connect(aside)) as db:
        assert db.execute("select id from entries").fetchall() == [("a",)]
        assert ("journal", name) in db.execute("select name, value from meta").fetchall()


def test_the_machine_is_known_by_its_id_where_it_has_one() -> None:
    file = Path("/etc/machine-id")
    expected = file.read_text().strip() if file.exists() else ""
    assert machine_id().split("/")[0] == expected


def test_the_folder_is_made_and_is_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    Journal(folder, machine="m").close()
    assert folder.stat().st_mode & 0o777 == 0o700


# -- what cannot be used --------------------------------------------------------------------------


def test_the_journal_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Journal(tmp_path, machine="m").close()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute(f"pragma user_version={VERSION + 1}")
        db.execute("update meta set value = ? where name = 'version'", (str(VERSION + 1),))
        db.commit()
    for _ in range(2):
        with pytest.raises(JournalError, match="a newer hwsync wrote it"):
            Journal(tmp_path, machine="m")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        assert db.execute("pragma user_version").fetchone() == (VERSION + 1,)
        assert db.execute("select value from meta where name = 'boot'").fetchone() == ("1",)


def test_a_folder_that_is_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=rf"{tmp_path}/file cannot be used"):
        Journal(tmp_path / "file", machine="m")


def test_what_sqlite_refuses_is_an_error_of_the_journal(journal: Journal, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute(
            "create trigger full before insert on entries begin select raise(abort, 'full'); end"
        )
    with pytest.raises(JournalError, match="the journal cannot be written: full"):
        journal.received(ENVELOPE, 1.0)
    assert journal.get("a") is None


# -- what it remembers ----------------------------------------------------------------------------


def test_an_unknown_id_has_no_entry(journal: Journal) -> None:
    assert journal.get("a") is None
    assert journal.open_entries() == []
    assert journal.unsettled() == []


def test_each_stage_of_a_command_is_remembered_whole(journal: Journal) -> None:
    journal.received(ENVELOPE, 1.0)
    entry = journal.get("a")
    assert entry is not None
    assert (entry.id, entry.stage, entry.envelope) == ("a", Stage.RECEIVED, ENVELOPE)
    assert (entry.order, entry.closing, entry.group, entry.report, entry.settled) == (
        (0, 5), None, None, None, False,
    )  # fmt: skip
    journal.started("a", GROUP, 2.0)
    started = replace(entry, stage=Stage.STARTED, group=GROUP)
    assert journal.get("a") == started
    journal.finished("a", REPORT, 3.0)
    finished = replace(started, stage=Stage.FINISHED, report=REPORT)
    assert journal.get("a") == finished
    journal.settle("a", 4.0)
    bare = replace(ENVELOPE, program="", stdin="", args=())
    assert journal.get("a") == replace(finished, envelope=bare, settled=True)


def test_open_are_the_received_and_the_started(journal: Journal) -> None:
    for id in "abcd":
        journal.received(replace(ENVELOPE, id=id), 1.0)
    journal.started("b", GROUP, 2.0)
    journal.finished("c", REPORT, 2.0)
    journal.closed("d", CLOSING, (0, 6), 2.0)
    assert [entry.id for entry in journal.open_entries()] == ["a", "b"]


def test_unsettled_are_the_results_that_nobody_is_known_to_have(journal: Journal) -> None:
    for id in "abc":
        journal.received(replace(ENVELOPE, id=id), 1.0)
    journal.finished("a", REPORT, 2.0)
    journal.closed("b", CLOSING, (0, 6), 2.0)
    assert [entry.id for entry in journal.unsettled()] == ["a", "b"]
    journal.settle("a", 3.0)
    assert [entry.id for entry in journal.unsettled()] == ["b"]


def test_a_new_result_is_unsettled_whatever_was_settled_before(journal: Journal) -> None:
    for id in "ab":
        journal.received(replace(ENVELOPE, id=id), 1.0)
        journal.settle(id, 2.0)
    journal.finished("a", REPORT, 3.0)
    journal.closed("b", CLOSING, (0, 6), 3.0)
    assert [entry.id for entry in journal.unsettled()] == ["a", "b"]


def test_a_closed_entry_that_is_received_again_begins_anew(journal: Journal) -> None:
    journal.received(ENVELOPE, 1.0)
    journal.closed("a", CLOSING, (0, 6), 2.0)
    journal.settle("a", 2.5)
    closed = journal.get("a")
    assert closed is not None
    assert (closed.stage, closed.closing, closed.report) == (Stage.CLOSED, (0, 6), CLOSING)
    journal.received(replace(ENVELOPE, seq=7), 3.0)
    entry = journal.get("a")
    assert entry is not None
    assert (entry.stage, entry.order, entry.closing) == (Stage.RECEIVED, (0, 7), None)
    assert (entry.report, entry.settled) == (None, False)


@pytest.mark.parametrize("stage", [Stage.STARTED, Stage.FINISHED])
def test_what_was_started_cannot_be_received_again(journal: Journal, stage: Stage) -> None:
    journal.received(ENVELOPE, 1.0)
    journal.started("a", GROUP, 2.0)
    if stage is Stage.FINISHED:
        journal.finished("a", REPORT, 3.0)
    before = journal.get("a")
    journal.received(replace(ENVELOPE, seq=99), 4.0)
    assert journal.get("a") == before


# -- how long -------------------------------------------------------------------------------------


def test_only_what_was_settled_more_than_a_day_ago_is_forgotten(journal: Journal) -> None:
    now = 1_700_000_000.0
    ages = {"old": KEEP_S + 1, "young": KEEP_S - 1, "unsettled": KEEP_S + 1}
    for id, age in ages.items():
        journal.received(replace(ENVELOPE, id=id), now - 9 * KEEP_S)
        journal.finished(id, REPORT, now - age)
        if id != "unsettled":
            journal.settle(id, now - age)
    journal.received(replace(ENVELOPE, id="open"), now - 9 * KEEP_S)
    journal.prune(now)
    assert [id for id in (*ages, "open") if journal.get(id)] == ["young", "unsettled", "open"]
    assert KEEP_S == 24 * 3_600


def test_the_day_counts_from_the_settling(journal: Journal) -> None:
    journal.received(ENVELOPE, 0.0)
    journal.finished("a", REPORT, 0.0)
    journal.settle("a", 9 * KEEP_S)
    journal.prune(9 * KEEP_S + 1)
    assert journal.get("a") is not None


# -- a kill ---------------------------------------------------------------------------------------

STEPS = {
    Stage.RECEIVED: "journal.received(ENVELOPE, 1.0)",
    Stage.STARTED: "journal.started('a', GROUP, 2.0)",
    Stage.FINISHED: "journal.finished('a', REPORT, 3.0)",
    Stage.CLOSED: "journal.closed('a', CLOSING, (0, 6), 4.0)",
}


@pytest.mark.parametrize(
    "stages",
    [
        [Stage.RECEIVED],
        [Stage.RECEIVED, Stage.STARTED],
        [Stage.RECEIVED, Stage.STARTED, Stage.FINISHED],
        [Stage.RECEIVED, Stage.CLOSED],
    ],
    ids=lambda stages: stages[-1],
)
def test_what_was_written_survives_a_kill(
    stages: list[Stage], opened: Callable[..., Journal], tmp_path: Path
) -> None:
    source = KILLED.format(steps="\n".join(STEPS[stage] for stage in stages))
    done = python(source, str(tmp_path), cwd=CHECKOUT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    journal = opened()
    entry = journal.get("a")
    assert journal.boot == 2
    assert entry is not None
    assert (entry.stage, entry.envelope) == (stages[-1], ENVELOPE)
    assert entry.group == (GROUP if Stage.STARTED in stages else None)
    expected = {Stage.FINISHED: REPORT, Stage.CLOSED: CLOSING}.get(stages[-1])
    assert entry.report == expected


def test_every_change_is_flushed_to_the_disk(journal: Journal) -> None:
    level = journal._db.execute("pragma synchronous").fetchone()
    assert level == (2,), "FULL: a power cut takes nothing back"


def test_an_entry_from_before_there_were_signatures_is_forgotten(journal: Journal) -> None:
    journal.received(ENVELOPE, 0.0)
    journal.finished("a", REPORT, 0.0)
    journal.settle("a", 0.0)
    with journal._changing():
        [row] = journal._rows("id = 'a'")
        before = {name: value for name, value in loads(row["envelope"]).items()
                  if name != "signed_by"}  # fmt: skip
        journal._put(row | {"envelope": dumps(before)})
    journal.prune(KEEP_S + 1.0)
    assert journal.get("a") is None


def test_an_entry_from_before_there_were_names_has_the_defaults(journal: Journal) -> None:
    journal.received(ENVELOPE, 0.0)
    journal.started("a", GROUP, 0.0)
    journal.finished("a", REPORT, 0.0)
    with journal._changing():
        [row] = journal._rows("id = 'a'")
        for column, later in (("envelope", {"name", "grace"}), ("account", {"order"})):
            before = {key: value for key, value in loads(row[column]).items() if key not in later}
            row[column] = dumps(before)
        journal._put(row)
    entry = journal.get("a")
    assert entry is not None
    assert entry.envelope == replace(ENVELOPE, name=DEFAULT_NAME, grace=DEFAULT_GRACE_S)
    assert entry.report == replace(REPORT, order=None)


def test_long_texts_of_settled_results_are_dropped_but_the_last(journal: Journal) -> None:
    long = replace(REPORT, response="x" * 3_000, truncated=False)
    ids = [f"c{number}" for number in range(KEEP_TEXTS + 5)]
    for number, id in enumerate([*ids, "open"]):
        journal.received(replace(ENVELOPE, id=id), 0.0)
        journal.started(id, GROUP, 0.0)
        journal.finished(id, long, 0.0)
        if id != "open":
            journal.settle(id, float(number))
    journal.prune(100.0)
    entries = [journal.get(id) for id in ids]
    kept = [entry is not None and entry.report == long for entry in entries]
    assert kept == [False] * 5 + [True] * KEEP_TEXTS
    first = entries[0]
    assert first is not None
    assert first.report == replace(long, response="", stderr="", truncated=True, order=None)
    unsettled = journal.get("open")
    assert unsettled is not None
    assert unsettled.report == long
    journal.prune(100.0)
    assert [journal.get(id) for id in ids] == entries
