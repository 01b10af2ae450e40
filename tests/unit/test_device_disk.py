"""A device whose journal cannot be written: it refuses with the reason, and tells what it knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwsync.device.agent import PROBE_S, Agent
from hwsync.device.journal import Journal, Stage
from hwsync.device.no_journal import NoJournal, open_journal, reopen
from hwsync.protocol.errors import JournalError, JournalUnavailable
from hwsync.protocol.topics import Topics
from tests.support.board import END, GROUP, Board, NoLabClock

REJECTED = ("a", "rejected", "no")
RESULT = ("a", "ok", "yes")
REASON = "the journal cannot be written: database or disk is full"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path)
    yield one
    one.journal.close()


def refused(board: Board) -> None:
    """``a`` is collected, and not on the disk."""
    with board.full_disk(Stage.RECEIVED):
        assert board.envelope() == [""]


# -- received -------------------------------------------------------------------------------------


def test_what_cannot_be_written_as_received_is_collected_and_rejected_at_its_grant(
    board: Board,
) -> None:
    refused(board)
    assert board.said("collected") == [{"id": "a", "journal": board.journal.name, "boot": 1}]
    assert board.told() == []
    board.status(2, 2)
    assert board.told() == [REJECTED]
    assert board.said("response")[0]["reason"] == REASON
    assert (board.ran(), board.agent.busy, board.journal.get("a")) == ([], None, None)


def test_a_closed_command_is_opened_with_another_boot_also_after_that_was_refused(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the ``rejected`` that is still under way could pass for the answer to the new grant."""

    def refuse() -> None:
        raise JournalUnavailable(REASON)

    board.envelope(seq=1)
    board.status(3, 0, "")
    first = board.said("response")[-1]
    assert (first["outcome"], first["boot"]) == ("rejected", 1)
    with monkeypatch.context() as patch:
        patch.setattr(board.journal, "next_boot", refuse)
        board.envelope(seq=5)
    board.envelope(seq=6)
    assert board.said("collected")[-1]["boot"] == 2
    board.status(8, 2)
    assert board.ran() == ["a"]


def test_a_refusal_is_repeated_until_it_is_settled_and_then_forgotten(board: Board) -> None:
    refused(board)
    board.status(2, 2)
    board.pass_time(10.0)
    board.agent.connected()
    board.envelope()
    assert set(board.told()) == {REJECTED}
    assert len(board.told()) >= 5
    assert not board.agent.idle
    board.settle(3)
    said = len(board.told())
    board.pass_time(100.0)
    assert len(board.told()) == said
    assert board.agent.idle
    assert board.agent._unwritten.get("a") is None


def test_a_refused_command_whose_wait_ends_is_rejected_too(board: Board) -> None:
    refused(board)
    board.status(2, 0)
    assert board.told() == [REJECTED]


def test_a_refused_command_that_is_offered_again_may_run(board: Board) -> None:
    refused(board)
    board.status(2, 2)
    board.run(seq=12)
    board.agent.run_ended(END)
    assert board.told() == [REJECTED, RESULT]
    assert board.journal.boot == 2, "the first answer must not pass for the second"
    board.settle(13)
    assert board.agent.idle


def test_a_crash_forgets_what_was_refused(board: Board) -> None:
    refused(board)
    board.begin()
    board.agent.connected()
    board.status(2, 2, boot=1)
    assert (board.said("collected"), board.told(), board.ran()) == ([], [], [])


def test_an_id_that_the_journal_cannot_be_asked_for_is_not_answered(board: Board) -> None:
    """It may have run: no is more than anybody knows."""
    board.run()
    board.agent.run_ended(END)
    board.world.sent.clear()
    board.journal._damaged("a test")
    board.envelope()
    assert (board.said("collected"), board.told()) == ([], [])


# -- started and finished -------------------------------------------------------------------------


def test_a_start_that_cannot_be_written_is_rejected_though_that_cannot_be_saved(
    board: Board,
) -> None:
    board.grant()
    with board.full_disk(Stage.STARTED, Stage.FINISHED):
        with pytest.raises(JournalError):
            board.agent.run_started(GROUP)
        board.agent.run_failed(REASON)
        assert board.told() == [REJECTED]
        assert board.stage() is Stage.RECEIVED
        board.settle(3)
        assert board.agent.idle
    board.pass_time(40.0)
    entry = board.journal.get("a")
    assert entry is not None
    assert (entry.stage, entry.settled) == (Stage.FINISHED, True)


def test_a_result_that_cannot_be_saved_is_told_at_once_and_saved_later(board: Board) -> None:
    board.agent.connected()
    board.run()
    with board.full_disk(Stage.FINISHED):
        board.agent.run_ended(END)
        assert board.told() == [RESULT]
        board.pass_time(20.0)
        board.agent.connected()
        assert set(board.told()) == {RESULT}
        assert (board.stage(), board.agent.busy) == (Stage.STARTED, None)
        assert board.agent.running, "a stop waits for it"
        board.envelope("b", 3)
        board.status(4, 2, "b")
        assert board.ran() == ["a", "b"]
    board.agent.run_started(GROUP)
    board.agent.run_ended(END)
    board.pass_time(30.0)
    assert (board.stage(), board.stage("b")) == (Stage.FINISHED, Stage.FINISHED)
    assert not board.agent.running
    assert [entry.id for entry in board.journal.unsettled()] == ["a", "b"]


def test_a_result_that_is_settled_before_it_is_saved_is_saved_as_settled(board: Board) -> None:
    board.run()
    with board.full_disk(Stage.FINISHED):
        board.agent.run_ended(END)
        board.settle(3)
        said = len(board.told())
        board.pass_time(60.0)
        assert len(board.told()) == said
        assert board.agent.idle
    board.pass_time(60.0)
    entry = board.journal.get("a")
    assert entry is not None
    assert (entry.stage, entry.settled) == (Stage.FINISHED, True)


def test_an_end_of_the_wait_that_cannot_be_saved_is_told_and_saved_later(board: Board) -> None:
    board.envelope()
    with board.full_disk(Stage.CLOSED):
        board.status(2, 0)
        assert board.told() == [REJECTED]
        assert board.stage() is Stage.RECEIVED
    board.pass_time(40.0)
    entry = board.journal.get("a")
    assert entry is not None
    assert (entry.stage, entry.closing) == (Stage.CLOSED, (0, 2))


def test_an_interruption_that_cannot_be_saved_is_told(board: Board) -> None:
    board.run()
    with board.full_disk(Stage.FINISHED):
        board.begin()
        board.agent.connected()
        assert board.told() == [("a", "interrupted", "maybe")]


def test_an_epoch_that_cannot_be_written_does_not_hide_the_rest_of_its_status(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(epoch: int) -> None:
        raise JournalUnavailable(REASON)

    refused(board)
    with monkeypatch.context() as patch:
        patch.setattr(board.journal, "begin_epoch", refuse)
        board.status(2, 2, epoch=5)
    assert board.told() == [REJECTED]
    board.status(3, 3, epoch=5)
    assert board.journal.epoch == 5


# -- what the heartbeat says ----------------------------------------------------------------------


def test_the_heartbeat_says_that_it_refuses_until_the_disk_is_seen_to_be_well(
    board: Board,
) -> None:
    board.agent.connected()
    assert board.said("heartbeat")[-1]["refusing"] is None
    refused(board)
    assert board.said("heartbeat")[-1]["refusing"] == REASON
    board.pass_time(PROBE_S - 0.5)
    assert board.said("heartbeat")[-1]["refusing"] == REASON
    board.pass_time(1.0)
    assert board.said("heartbeat")[-1]["refusing"] is None


def test_damage_is_said_at_once(board: Board) -> None:
    board.agent.connected()
    board.journal._damaged("a test")
    board.agent.tick()
    assert board.said("heartbeat")[-1]["refusing"].endswith("is damaged: a test")
    assert board.agent.needs_reopening
    assert board.agent.idle


# -- without a journal ----------------------------------------------------------------------------


def unavailable(folder: Path) -> Journal:
    raise JournalUnavailable(REASON)


def test_a_device_without_a_journal_refuses_everything_under_a_name_of_its_own(
    board: Board,
) -> None:
    names = {open_journal(board.folder, unavailable).name for _ in range(3)}
    assert len(names) == 3
    nothing = open_journal(board.folder, unavailable)
    assert isinstance(nothing, NoJournal)
    board.journal.close()
    board.agent = Agent("u", Topics(), nothing, board.world, clock=NoLabClock())
    board.journal = nothing  # type: ignore[assignment]
    board.agent.connected()
    assert board.said("heartbeat")[-1]["refusing"] == REASON
    board.envelope()
    board.status(2, 2, epoch=3)
    assert board.told() == [REJECTED]
    assert board.said("response")[0]["reason"] == REASON
    assert not board.agent.idle
    board.status(3, 3, epoch=3, settled=[["a", nothing.name]])
    board.pass_time(200.0)
    assert len(board.told()) == 1
    assert (board.agent.idle, board.agent.needs_reopening) == (True, True)


def test_a_journal_is_opened_again_once_its_disk_is_well(tmp_path: Path) -> None:
    nothing = open_journal(tmp_path, unavailable)
    assert reopen(nothing, tmp_path, unavailable) is None
    opened = reopen(nothing, tmp_path)
    assert isinstance(opened, Journal)
    opened._damaged("a test")
    another = reopen(opened, tmp_path)
    assert isinstance(another, Journal)
    assert another.name == opened.name, "the files were well"
    stand_in = reopen(another, tmp_path, unavailable)
    assert isinstance(stand_in, NoJournal)


def test_a_journal_that_is_in_use_is_no_disk_that_refuses(board: Board) -> None:
    with pytest.raises(JournalError, match="another hwsync-device uses"):
        open_journal(board.folder)
