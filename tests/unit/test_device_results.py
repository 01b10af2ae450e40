"""What becomes of a result: written, repeated until it is settled, and honest after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwsync.device.journal import Stage
from hwsync.protocol.errors import JournalError
from hwsync.protocol.limits import HEARTBEAT_S
from tests.support.board import CANCELLED, END, GROUP, NEVER_BEGAN, Board

BACKOFF = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
RESULT = ("a", "ok", "yes")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path)
    yield one
    one.journal.close()


def finish(board: Board) -> None:
    board.run()
    board.agent.run_ended(END)


# -- written and said -----------------------------------------------------------------------------


def test_a_result_is_the_whole_account_and_is_in_the_journal(board: Board) -> None:
    finish(board)
    assert board.world.stored("a") == "finished"
    assert board.said("response") == [
        {
            "id": "a", "journal": board.journal.name, "boot": 1, "outcome": "ok", "ran": "yes",
            "reason": "", "response": "42\n", "stderr": "warned", "exit_code": 0, "duration": 0.5,
            "started": 1_700_000_000.0, "start_error": None, "clock_bound": None,
            "truncated": False, "sha256": {"stdout": "a1", "stderr": "b2"},
                "ran_on": {"board": "a test's"},
        }
    ]  # fmt: skip
    assert board.agent.busy is None


def test_the_order_of_its_output_is_said_and_survives_a_restart(board: Board) -> None:
    board.run()
    order = (("stdout", 3), ("stderr", 6))
    board.agent.run_ended(replace(END, order=order))
    board.begin()
    entry = board.journal.get("a")
    assert entry is not None
    assert entry.report is not None
    assert entry.report.order == order
    board.agent.connected()
    (said,) = board.said("response")
    assert said["order"] == [["stdout", 3], ["stderr", 6]]


@pytest.mark.parametrize(
    ("outcome", "exit_code"), [("error", 3), ("timeout", None), ("killed", 137)]
)
def test_a_program_that_did_not_end_well_ran_nevertheless(
    board: Board, outcome: str, exit_code: int | None
) -> None:
    board.run()
    board.agent.run_ended(
        replace(END, outcome=outcome, reason="why", exit_code=exit_code, truncated=True)
    )
    (said,) = board.said("response")
    assert (said["outcome"], said["ran"], said["reason"]) == (outcome, "yes", "why")
    assert (said["exit_code"], said["truncated"]) == (exit_code, True)


def test_a_program_that_could_not_be_started_is_rejected_with_a_short_reason(
    board: Board,
) -> None:
    board.grant()
    board.agent.run_failed("x" * 9_999)
    assert board.told() == [("a", "rejected", "no")]
    assert board.said("response")[0]["reason"] == "x" * 500


def test_a_program_whose_result_is_not_written_yet_is_not_run_again(board: Board) -> None:
    board.run()
    with board.full_disk(Stage.FINISHED):
        board.agent.run_ended(END)
        board.envelope(seq=9)
        board.status(10, 2)
    assert board.ran() == ["a"]


def test_a_result_that_was_never_written_is_interrupted_after_a_crash(board: Board) -> None:
    board.run()
    with board.full_disk(Stage.FINISHED):
        board.agent.run_ended(END)
    board.begin()
    board.agent.connected()
    assert board.told() == [("a", "interrupted", "maybe")]


# -- repeated until settled -----------------------------------------------------------------------


@pytest.mark.parametrize(("dice", "share"), [(0.0, 1.0), (1.0, 0.75)])
def test_a_result_is_repeated_with_growing_pauses_and_jitter(
    board: Board, dice: float, share: float
) -> None:
    board.world.dice = dice
    finish(board)
    pauses = board.pauses("response", 130.0)
    assert pauses[: len(BACKOFF)] == pytest.approx([pause * share for pause in BACKOFF])


def test_a_result_is_repeated_at_a_connect_and_on_a_new_epoch(board: Board) -> None:
    finish(board)
    board.agent.connected()
    assert board.told() == [RESULT] * 2
    board.status(3, 3)
    assert board.told() == [RESULT] * 2
    board.status(1, 0, epoch=7)
    assert board.told() == [RESULT] * 3
    assert board.pauses("response", 3.0) == [1.0, 2.0]


def test_all_that_is_not_settled_is_repeated(board: Board) -> None:
    finish(board)
    board.run("b", 6)
    board.agent.run_ended(END)
    board.settle(7, "b")
    board.world.sent.clear()
    board.agent.connected()
    assert board.told() == [RESULT]


def test_a_settled_result_is_not_said_again(board: Board) -> None:
    finish(board)
    board.settle(3)
    before = board.told()
    board.pass_time(300.0)
    board.agent.connected()
    assert board.told() == before
    board.begin()
    board.agent.connected()
    board.pass_time(300.0)
    assert board.told() == []


def test_a_new_epoch_unsettles_whatever_is_still_held_once(board: Board) -> None:
    finish(board)
    board.settle(3)
    board.world.sent.clear()
    board.status(1, 0, epoch=7)
    assert board.told() == [RESULT]
    board.status(2, 0, epoch=7, settled=[["a", board.journal.name]])
    board.begin()
    board.agent.connected()
    board.status(3, 0, epoch=7)
    board.pass_time(300.0)
    assert board.told() == []


def test_a_pair_settles_wherever_the_record_is_by_now(board: Board) -> None:
    finish(board)
    name = board.journal.name
    board.status(9, 1, "z", settled=[["x", "other"], ["a", name], ["y", name]])
    assert board.journal.unsettled() == []


@pytest.mark.parametrize("pair", [["a", "another"], ["b", ""], ["a", None], ["a", 1], ["", ""]])
def test_only_the_pair_of_this_id_and_this_journal_settles(
    board: Board, pair: list[object]
) -> None:
    finish(board)
    own = [["b", board.journal.name]]
    board.status(3, 3, settled=[pair, *own])
    assert [entry.id for entry in board.journal.unsettled()] == ["a"]
    assert board.pauses("response", 1.0) == [1.0]


def test_a_stale_status_settles_nothing(board: Board) -> None:
    finish(board)
    board.status(9, 3)
    board.settle(8)
    assert len(board.journal.unsettled()) == 1


def test_a_pair_that_comes_before_the_result_does_not_settle_it(board: Board) -> None:
    board.run()
    board.status(3, 2, settled=[["a", board.journal.name]])
    board.agent.run_ended(END)
    board.pass_time(1.0)
    assert board.told() == [RESULT] * 2


def test_a_settling_that_the_disk_refuses_works_later(board: Board) -> None:
    finish(board)
    with board.full_disk(Stage.FINISHED):
        assert board.status(3, 3, settled=[["a", board.journal.name]]) == ["finished"]
    assert len(board.journal.unsettled()) == 1
    board.settle(3)
    assert board.journal.unsettled() == []


@pytest.mark.parametrize("settled", [False, True])
def test_a_finished_id_is_never_run_again_and_its_result_is_said_again(
    board: Board, settled: bool
) -> None:
    finish(board)
    if settled:
        board.settle(3)
    board.world.sent.clear()
    assert board.envelope(seq=9) == ["finished"]
    assert board.told() == [RESULT]
    board.status(10, 2)
    assert board.ran() == ["a"]
    assert board.said("collected") == []


def test_a_settled_result_is_forgotten_after_a_day_and_no_other(board: Board) -> None:
    finish(board)
    board.run("b", 6)
    board.agent.run_ended(END)
    board.settle(7, "b")
    board.pass_time(24 * 3_600.0)
    assert board.stage("b") is Stage.FINISHED
    board.pass_time(60.0)
    assert (board.stage("a"), board.stage("b")) == (Stage.FINISHED, None)


# -- after a crash --------------------------------------------------------------------------------


def test_what_was_received_is_collected_with_the_new_boot_and_waits_for_its_grant(
    board: Board,
) -> None:
    board.envelope()
    board.begin()
    assert board.world.sent == []
    board.agent.connected()
    assert board.said("collected") == [{"id": "a", "journal": board.journal.name, "boot": 2}]
    assert board.pauses("collected", 3.0) == [1.0, 2.0]
    board.status(2, 2, boot=1)
    assert board.ran() == [], "a grant of the earlier life"
    board.status(3, 2)
    assert board.ran() == ["a"]


def test_what_was_granted_but_not_started_waits_for_a_new_grant(board: Board) -> None:
    board.grant()
    board.begin()
    board.agent.connected()
    assert board.ran() == []
    board.status(3, 2)
    assert board.ran() == ["a"]
    board.agent.run_started(GROUP)
    board.agent.run_ended(END)
    assert (board.told(), board.said("response")[0]["boot"]) == ([RESULT], 2)


def test_leftovers_are_ended_before_the_run_is_called_interrupted(board: Board) -> None:
    board.run()
    board.begin()
    assert board.world.leftovers == [(GROUP, "started")]
    assert board.world.stored("a") == "finished"
    board.agent.connected()
    assert board.told() == [("a", "interrupted", "maybe")]
    assert board.agent.busy is None


def test_what_was_started_is_never_run_again(board: Board) -> None:
    board.run()
    board.begin()
    board.agent.connected()
    board.envelope(seq=9)
    board.status(10, 2)
    assert board.ran() == []
    assert board.said("collected") == []
    assert board.told() == [("a", "interrupted", "maybe")] * 2
    assert board.pauses("response", 3.0) == [1.0, 2.0]


def test_after_an_interruption_the_next_command_is_a_normal_one(board: Board) -> None:
    board.run()
    board.begin()
    board.agent.connected()
    board.settle(3)
    board.run("b", 5)
    board.agent.run_ended(END)
    assert board.told()[-1] == ("b", "ok", "yes")


def test_a_result_that_was_not_settled_is_said_again_after_a_crash(board: Board) -> None:
    finish(board)
    board.begin()
    assert board.world.leftovers == []
    board.agent.connected()
    assert board.told() == [RESULT]
    board.settle(3)
    assert board.pauses("response", 100.0) == []


def test_a_closed_entry_still_says_rejected_after_a_crash(board: Board) -> None:
    board.envelope()
    board.status(5, 0)
    board.begin()
    board.agent.connected()
    assert board.told() == [("a", "rejected", "no")]
    board.envelope(seq=5)
    assert board.stage() is Stage.CLOSED
    board.envelope(seq=6)
    assert board.stage() is Stage.RECEIVED


# -- a clean stop ---------------------------------------------------------------------------------


def test_a_program_that_outlives_its_time_at_a_clean_stop_is_interrupted(board: Board) -> None:
    board.run()
    board.agent.stopping()
    assert board.world.stops == 0
    assert board.agent.running
    board.agent.end_run()
    assert board.world.stops == 1
    board.agent.run_ended(CANCELLED)
    assert board.told() == [("a", "interrupted", "maybe")]
    assert board.said("response")[0]["response"] == "42\n"


@pytest.mark.parametrize(
    ("end", "told"),
    [(END, RESULT), (NEVER_BEGAN, ("a", "cancelled", "no"))],
    ids=["it ended first", "it had not begun"],
)
def test_a_clean_stop_changes_nothing_about_what_is_known(
    board: Board, end: object, told: tuple[str, str, str]
) -> None:
    board.run()
    board.agent.stopping()
    board.agent.run_ended(end)  # type: ignore[arg-type]
    assert board.told() == [told]


def test_a_program_that_was_cancelled_before_the_stop_is_cancelled(board: Board) -> None:
    board.run()
    board.status(3, 2, cancelling=True)
    board.agent.stopping()
    board.agent.run_ended(CANCELLED)
    assert board.told() == [("a", "cancelled", "yes")]


def test_a_stop_between_grant_and_start_stops_the_run_before_it_begins(board: Board) -> None:
    board.grant()
    board.agent.stopping()
    before = board.world.stops
    board.agent.run_started(GROUP)
    assert board.world.stops == before + 1


def test_nothing_is_begun_during_a_clean_stop(board: Board) -> None:
    board.agent.stopping()
    board.envelope()
    assert board.agent.busy is None
    assert board.said("collected") == []


def test_a_grant_during_a_clean_stop_is_the_next_lifes(board: Board) -> None:
    board.envelope()
    board.agent.stopping()
    board.grant()
    assert board.world.jobs == []
    assert board.stage() is Stage.RECEIVED


def test_a_stop_with_nothing_running_stops_nothing(board: Board) -> None:
    board.envelope()
    board.agent.stopping()
    board.agent.end_run()
    assert board.world.stops == 0
    assert not board.agent.running


def test_the_last_word_is_that_the_device_is_gone(board: Board) -> None:
    board.agent.connected()
    board.agent.stopped()
    last = board.world.sent[-1]
    assert (last.kind, last.retain, last.fields["online"]) == ("heartbeat", True, False)
    assert (last.fields["journal"], last.fields["boot"]) == (board.journal.name, 1)


def test_a_run_that_the_runner_lost_sight_of_may_have_run(board: Board) -> None:
    board.run()
    board.agent.run_ended(replace(END, outcome="interrupted", exit_code=None))
    assert board.told() == [("a", "interrupted", "maybe")]


def test_old_entries_that_the_disk_does_not_let_go_end_nothing(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(now: float) -> None:
        raise JournalError("the journal cannot be written: database or disk is full")

    monkeypatch.setattr(board.journal, "prune", refuse)
    board.world.time += HEARTBEAT_S
    assert board.agent.tick() == HEARTBEAT_S
    assert board.said("heartbeat")
