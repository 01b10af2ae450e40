"""Files at the device: from the envelope to the run, from the run to the journal and the wire."""

from __future__ import annotations

import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.device.journal import DROPPED, KEEP_TEXTS, Stage
from hwsync.protocol.files import NO_ROOM, NOT_ASKED, File, NotKept
from hwsync.protocol.limits import KIB
from hwsync.protocol.record import Outcome, Ran, RunReport
from hwsync.protocol.wire.envelope import Envelope
from tests.support.board import END, GROUP, Board

DATA = bytes(range(256))
GIVEN = {"data/a.csv": b64encode(DATA).decode(), "lib.py": b64encode(b"x = 1\n").decode()}
FILES = (File.of("data/a.csv", DATA), File.of("lib.py", b"x = 1\n"))
BACK = (File.of("plot.png", DATA), File.of("z", b""))
LEFT = (NotKept("other.png", 31_000, NOT_ASKED),)
ENVELOPE = Envelope("a", "u", 0, 1, "pass", 5.0, "", ())
REPORT = RunReport(Outcome.OK, Ran.YES)
ENDED = replace(END, files=BACK, not_kept=LEFT)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path)
    yield one
    one.journal.close()


def offer(board: Board, id: str = "a", seq: int = 1, **changes: object) -> None:
    board.envelope(id, seq, **{"v": 2, "files": GIVEN, "collect": ["*.png"], **changes})


def finish(board: Board, id: str = "a", seq: int = 1) -> None:
    offer(board, id, seq)
    board.status(seq + 1, 2, id)
    board.agent.run_started(GROUP)
    board.agent.run_ended(ENDED)


def row(board: Board, id: str = "a") -> str:
    """What the file has of it."""
    with closing(sqlite3.connect(board.world.file)) as db:
        (found,) = db.execute("select envelope || account from entries where id = ?", (id,))
    return str(found[0])


def report(board: Board, id: str = "a") -> RunReport:
    entry = board.journal.get(id)
    assert entry is not None
    assert entry.report is not None
    return entry.report


@contextmanager
def small_disk(board: Board, most: int) -> Iterator[None]:
    """SQLite refuses each entry that is longer."""
    with closing(sqlite3.connect(board.world.file)) as db:
        for verb in ("insert", "update"):
            db.execute(
                f"create trigger small_{verb} before {verb} on entries "
                f"when length(new.envelope) + length(coalesce(new.account, '')) > {most} "
                "begin select raise(abort, 'database or disk is full'); end"
            )
        yield
        for verb in ("insert", "update"):
            db.execute(f"drop trigger small_{verb}")


# -- in --------------------------------------------------------------------------------------------


def test_a_run_gets_its_files_also_after_a_restart(board: Board) -> None:
    offer(board)
    board.begin()
    board.agent.connected()
    board.status(2, 2)
    ((_, job),) = board.world.jobs
    assert (job.files, job.collect) == (FILES, ("*.png",))


def test_a_start_is_prepared_with_its_files_also_after_a_restart(board: Board) -> None:
    start = {"within": 0.1, "together": False, "start_at": None, "start_life": None}
    offer(board, start=start)
    assert board.world.timed == ["prepare a"]
    assert board.world.jobs[0][1].files == FILES
    board.begin()
    assert board.world.timed == ["prepare a"]
    assert board.world.jobs[0][1].files == FILES


@pytest.mark.parametrize("how", ["started", "closed"])
def test_files_of_what_has_begun_or_will_not_are_no_more_in_the_journal(
    board: Board, how: str
) -> None:
    offer(board)
    if how == "started":
        board.status(2, 2)
        board.agent.run_started(GROUP)
    else:
        board.status(2, 0, "")
    assert board.stage() == how
    with closing(sqlite3.connect(board.world.file)) as db:
        (text,) = db.execute("select envelope from entries").fetchone()
    assert GIVEN["data/a.csv"] not in text
    assert "print(6*7)" in text


def test_files_for_which_the_disk_has_no_room_are_refused_and_nobody_keeps_them(
    board: Board,
) -> None:
    with small_disk(board, 500):
        offer(board)
        held = board.agent._deeds.hand
        assert held is not None
        assert held.envelope.files == ()
        board.status(2, 2)
    assert board.told() == [("a", "rejected", "no")]
    assert "disk is full" in board.said("response")[0]["reason"]
    assert board.ran() == []


# -- out -------------------------------------------------------------------------------------------


def test_a_result_has_its_files_also_after_a_restart(board: Board) -> None:
    finish(board)
    board.begin()
    board.agent.connected()
    first, second = {}, board.said("response")[0]
    assert report(board).files == BACK
    assert b64decode(second["files"]["plot.png"].pop("data")) == DATA
    first = {"size": 256, "sha256": BACK[0].sha256}
    assert second["files"]["plot.png"] == first
    assert second["not_kept"] == [{"path": "other.png", "size": 31_000, "reason": NOT_ASKED}]


def test_a_result_is_fitted_before_it_is_written(board: Board) -> None:
    """To what the broker is known to take: first the files, then the texts."""
    offer(board, max_message=16 * KIB)
    board.status(2, 2)
    board.agent.run_started(GROUP)
    files = (File.of("a", b"x" * 20_000), File.of("b", b"y" * 1_000))
    board.agent.run_ended(replace(END, files=files, response="o" * 1_000))
    kept = report(board)
    assert kept.files == ()
    assert kept.not_kept == (NotKept("a", 20_000, NO_ROOM), NotKept("b", 1_000, NO_ROOM))
    assert (kept.response, kept.truncated) == ("o" * 1_000, False)


def test_a_disk_without_room_for_the_files_has_the_result(board: Board) -> None:
    offer(board)
    board.status(2, 2)
    board.agent.run_started(GROUP)
    with small_disk(board, 1_000):
        board.agent.run_ended(ENDED)
    assert board.stage() is Stage.FINISHED
    reason = "the journal cannot be written: database or disk is full"
    left = (NotKept("plot.png", 256, reason), NotKept("z", 0, reason), *LEFT)
    assert (report(board).files, report(board).not_kept) == ((), left)
    (said,) = board.said("response")
    assert (said["outcome"], "files" in said, len(said["not_kept"])) == ("ok", False, 3)


def test_a_disk_without_any_room_the_whole_is_told_from_memory(board: Board) -> None:
    offer(board)
    board.status(2, 2)
    board.agent.run_started(GROUP)
    with board.full_disk(Stage.FINISHED):
        board.agent.run_ended(ENDED)
        assert set(board.said("response")[0]["files"]) == {"plot.png", "z"}
    assert board.stage() is Stage.STARTED
    board.pass_time(60.0)
    assert report(board).files == BACK


def test_files_are_no_more_in_the_journal_once_the_coordinator_has_them(board: Board) -> None:
    finish(board)
    assert b64encode(DATA).decode() in row(board)
    board.settle(5)
    assert b64encode(DATA).decode() not in row(board)
    assert "*.png" not in row(board)  # nor what was asked for
    left = (NotKept("plot.png", 256, DROPPED), NotKept("z", 0, DROPPED), *LEFT)
    board.begin()
    assert (report(board).files, report(board).not_kept) == ((), left)
    assert report(board).response == "42\n"
    board.agent.connected()
    assert board.said("response") == []
    board.status(1, 0, "", epoch=9)  # an older database was put back
    assert board.said("response")[0]["not_kept"][0]["reason"] == DROPPED


def test_a_list_of_what_was_not_kept_does_not_stay_in_the_journal(board: Board) -> None:
    many = tuple(NotKept(f"{number:0250}", 1, NOT_ASKED) for number in range(20))
    for number in range(KEEP_TEXTS + 1):
        board.journal.received(replace(ENVELOPE, id=f"c{number}"), 0.0)
        board.journal.finished(f"c{number}", replace(REPORT, not_kept=many), 0.0)
        board.journal.settle(f"c{number}", float(number))
    board.journal.prune(200.0)
    assert report(board, "c0").not_kept == (NotKept("", 0, "", 20),)
    assert report(board, "c1").not_kept == many
    changes = board.journal._meta()["changes"]
    board.journal.prune(201.0)
    assert board.journal._meta()["changes"] == changes  # nothing is written again and again


# -- what it says of itself ------------------------------------------------------------------------


def test_a_board_that_refuses_everything_takes_no_files(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.agent.connected()
    monkeypatch.setattr(board.world, "refusal", lambda: "no folder")
    board.agent.connected()
    said = [one["can"] for one in board.said("heartbeat")]
    assert said == [["start", "files"], ["start"]]
