"""The device collects, waits for its grant, runs and is cancelled: on a real journal, no network.

What becomes of a result, and of a device that dies, is in test_device_results.py; what is no
message at all, in test_device_payloads.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync import __version__
from hwsync.device.agent import Agent
from hwsync.device.journal import Stage
from hwsync.device.lab_clock import BoardClock
from hwsync.protocol.errors import JournalError
from hwsync.protocol.limits import DEAF_S, UNKNOWN_S
from hwsync.protocol.topics import Topics
from hwsync.protocol.wire.clock import encode_answer
from hwsync.runner import Job, Piece
from hwsync.transport import Disconnected, Subscribed
from tests.support.board import CANCELLED, END, GROUP, NEVER_BEGAN, Board

BACKOFF = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path)
    yield one
    one.journal.close()


# -- collecting -----------------------------------------------------------------------------------


def test_an_envelope_is_on_disk_before_it_is_acknowledged(board: Board) -> None:
    assert board.envelope() == ["received"]
    assert board.said("collected") == [{"id": "a", "journal": board.journal.name, "boot": 1}]
    assert board.ran() == []


@pytest.mark.parametrize(("dice", "share"), [(0.0, 1.0), (0.5, 0.875), (1.0, 0.75)])
def test_collected_is_repeated_with_growing_pauses_and_jitter(
    board: Board, dice: float, share: float
) -> None:
    board.world.dice = dice
    board.envelope()
    pauses = board.pauses("collected", 130.0)
    assert pauses[: len(BACKOFF)] == pytest.approx([pause * share for pause in BACKOFF])


def test_collected_is_said_again_at_a_connect_and_when_the_envelope_comes_again(
    board: Board,
) -> None:
    board.envelope()
    board.agent.connected()
    assert len(board.said("collected")) == 2
    assert board.envelope() == ["received"]
    assert len(board.said("collected")) == 3
    board.envelope(seq=3)
    assert len(board.said("collected")) == 4
    assert board.pauses("collected", 3.0) == [1.0, 2.0]


@pytest.mark.parametrize("state", [0, 2, 3])
def test_a_status_that_answers_ends_the_repetition(board: Board, state: int) -> None:
    board.envelope()
    board.status(2, state)
    assert board.pauses("collected", 200.0) == []


@pytest.mark.parametrize("busy_with", ["a waiting command", "a running one"])
def test_a_busy_device_acknowledges_another_envelope_and_does_not_keep_it(
    board: Board, busy_with: str
) -> None:
    if busy_with == "a running one":
        board.run()
    else:
        board.envelope()
    assert len(board.envelope("b", 3)) == 1
    assert board.journal.get("b") is None
    assert board.agent.busy == "a"
    assert [said["id"] for said in board.said("collected")] == ["a"]


def test_what_was_not_kept_is_collected_when_it_comes_again(board: Board) -> None:
    board.run()
    board.envelope("b", 3)
    board.agent.run_ended(END)
    board.envelope("b", 3)
    assert board.stage("b") is Stage.RECEIVED
    assert board.said("collected")[-1]["id"] == "b"


def test_a_newer_envelope_of_the_waiting_command_replaces_it(board: Board) -> None:
    board.envelope()
    board.envelope(seq=5, program="print(2)")
    board.status(4, 2)
    assert board.ran() == [], "a grant from before the newer envelope"
    board.status(5, 2)
    assert [job.program for _, job in board.world.jobs] == ["print(2)"]


def test_an_older_envelope_of_the_waiting_command_replaces_nothing(board: Board) -> None:
    board.envelope(seq=5)
    board.envelope(seq=1, program="print(2)")
    board.status(4, 2)
    assert board.ran() == []
    board.status(5, 2)
    assert [job.program for _, job in board.world.jobs] == ["print(6*7)"]


# -- the grant ------------------------------------------------------------------------------------


def test_only_the_grant_starts_the_program_and_starts_it_once(board: Board) -> None:
    board.envelope()
    board.status(1, 1)
    assert board.ran() == []
    board.status(2, 2)
    board.status(2, 2)
    board.status(3, 2)
    assert board.world.jobs == [("a", Job("print(6*7)", "in", ("x", "y"), 5.0))]
    assert board.world.stops == 0


def test_the_program_gets_its_name_and_what_its_end_may_take(board: Board) -> None:
    board.envelope(name="blink.py", grace=7)
    board.begin()  # also what the journal gives back
    board.agent.connected()
    board.status(2, 2)
    ((_, job),) = board.world.jobs
    assert (job.name, job.grace) == ("blink.py", 7.0)


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        (1, {}),
        (2, {"boot": 0}),
        (2, {"seq": 4}),
        (0, {"seq": 4}),
        (3, {"seq": 4}),
        (2, {"seq": 99, "epoch": 0}),
    ],
    ids=["state 1", "an earlier boot", "an older grant", "older rest", "older end", "old epoch"],
)
def test_a_near_miss_of_the_grant_starts_nothing_and_the_device_waits_on(
    board: Board, state: int, changes: dict[str, int]
) -> None:
    board.envelope(seq=5, epoch=1)
    board.status(state=state, **{"seq": 6, "epoch": 1} | changes)
    assert board.ran() == []
    assert board.said("response") == []
    assert board.agent.busy == "a"
    assert board.pauses("collected", 1.0) == [1.0]
    board.status(7, 2, epoch=1)
    assert board.ran() == ["a"]


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        (2, {"journal": "another"}),
        (2, {"journal": None, "boot": None}),
        (0, {}),
        (3, {}),
        (1, {"id": "b"}),
        (2, {"id": "b"}),
        (0, {"id": ""}),
    ],
    ids=["another journal", "collected by hand", "rest", "returned", "another id requested",
         "another id collected", "a record never used"],
)  # fmt: skip
def test_any_other_status_ends_the_wait_as_rejected_and_nothing_has_run(
    board: Board, state: int, changes: dict[str, object]
) -> None:
    board.envelope()
    assert board.status(2, state, **changes) == ["closed"]  # type: ignore[arg-type]
    assert board.ran() == []
    assert board.told() == [("a", "rejected", "no")]
    assert board.agent.busy is None
    assert board.pauses("collected", 100.0) == []
    board.status(3, 2)
    assert board.ran() == []


def test_an_envelope_that_the_coordinator_does_not_know_is_given_up_after_a_while(
    board: Board,
) -> None:
    board.envelope(seq=5_000)
    board.status(1, 0, "")
    board.pass_time(UNKNOWN_S - 0.1)
    board.status(2, 0, "")
    assert board.agent.busy == "a"
    board.pass_time(0.1)
    board.status(2, 0, "")
    assert board.told() == [("a", "rejected", "no")]
    assert board.stage() is Stage.CLOSED
    # It is free for what the coordinator does know.
    board.run("b", 4)
    assert board.ran() == ["b"]


def test_a_wait_without_any_answer_is_not_given_up(board: Board) -> None:
    board.envelope(seq=5_000)
    board.pass_time(1_000.0)
    assert (board.agent.busy, board.told()) == ("a", [])


def test_what_was_given_up_is_opened_by_an_envelope_that_the_record_has_come_to(
    board: Board,
) -> None:
    board.envelope(seq=5_000, program="forged")
    board.pass_time(UNKNOWN_S)
    board.status(2, 0, "")
    board.envelope(seq=3)
    # What it said before may still be under way: now it answers under another number.
    assert board.said("collected")[-1]["boot"] == 2
    board.status(4, 2, boot=1)
    assert board.ran() == []
    board.status(5, 2, boot=2)
    assert [job.program for _, job in board.world.jobs] == ["print(6*7)"]


def test_a_stale_status_starts_nothing_and_closes_nothing(board: Board) -> None:
    board.envelope()
    board.status(9, 1)
    board.status(8, 2)
    board.status(8, 0)
    assert board.ran() == []
    assert board.agent.busy == "a"
    board.status(9, 2)
    assert board.ran() == ["a"], "an equal one is not stale"


def test_a_status_as_old_as_the_envelope_counts(board: Board) -> None:
    board.envelope(seq=5)
    board.status(5, 2)
    assert board.ran() == ["a"]


def test_a_grant_without_its_envelope_starts_nothing(board: Board) -> None:
    board.status(2, 2)
    assert board.ran() == []
    assert board.said("response") == []


@pytest.mark.parametrize("seq", [4, 5])
def test_a_closed_entry_answers_an_envelope_that_is_not_newer_with_its_result(
    board: Board, seq: int
) -> None:
    board.envelope()
    board.status(5, 0)
    assert board.envelope(seq=seq) == ["closed"]
    assert board.told() == [("a", "rejected", "no")] * 2
    assert len(board.said("collected")) == 1


def test_a_newer_envelope_opens_a_closed_entry_again(board: Board) -> None:
    board.envelope()
    board.status(5, 0)
    assert board.envelope(seq=6, program="print(2)") == ["received"]
    assert len(board.said("collected")) == 2
    assert board.journal.unsettled() == [], "the rejection no longer holds"
    board.status(7, 2)
    assert [job.program for _, job in board.world.jobs] == ["print(2)"]


def test_a_busy_device_does_not_open_a_closed_entry(board: Board) -> None:
    board.envelope()
    board.status(5, 0)
    board.envelope("b", 6)
    board.envelope("a", 7)
    assert (board.agent.busy, board.stage("a")) == ("b", Stage.CLOSED)


@pytest.mark.parametrize(("own", "granted"), [(None, 5.0), (2.0, 2.0), (60.0, 5.0)])
def test_the_boards_own_maximum_lowers_the_time_limit(
    board: Board, own: float | None, granted: float
) -> None:
    board.begin(max_timeout=own)
    board.grant()
    assert [job.timeout for _, job in board.world.jobs] == [granted]


# -- the run --------------------------------------------------------------------------------------


def test_started_is_on_disk_before_the_program_is_handed_over(board: Board) -> None:
    board.grant()
    assert board.world.stored("a") == "received"
    board.agent.run_started(GROUP)
    assert board.world.stored("a") == "started"


def test_a_program_whose_start_the_disk_refuses_does_not_run_and_is_rejected(board: Board) -> None:
    board.grant()
    with board.full_disk(Stage.STARTED), pytest.raises(JournalError, match="disk is full"):
        board.agent.run_started(GROUP)
    board.agent.run_failed("the journal cannot be written")
    assert board.told() == [("a", "rejected", "no")]
    assert board.said("response")[0]["reason"] == "the journal cannot be written"
    assert board.agent.busy is None


def test_an_id_that_is_running_is_not_run_again(board: Board) -> None:
    board.run()
    for seq in (1, 9):
        assert board.envelope(seq=seq) == ["started"]
    board.status(9, 2)
    assert board.ran() == ["a"]
    assert len(board.said("collected")) == 1


def test_live_output_is_sent_only_while_the_program_runs(board: Board) -> None:
    board.agent.output(Piece(0, "stdout", "early", 0))
    board.run()
    board.agent.output(Piece(0, "stdout", "4", 0))
    board.agent.output(Piece(1, "stderr", "2", 1))
    board.agent.run_ended(END)
    board.agent.output(Piece(2, "stdout", "late", 2))
    sent = [each for each in board.world.sent if each.kind == "output"]
    assert [each.fields for each in sent] == [
        {"id": "a", "n": 0, "stream": "stdout", "text": "4", "at": 0},
        {"id": "a", "n": 1, "stream": "stderr", "text": "2", "at": 1},
    ]
    assert {(each.qos, each.retain) for each in sent} == {(0, False)}


# -- cancelling -----------------------------------------------------------------------------------


def test_a_cancel_that_comes_with_the_grant_starts_nothing(board: Board) -> None:
    board.envelope()
    board.status(2, 2, cancelling=True)
    assert board.ran() == []
    assert board.told() == [("a", "cancelled", "no")]
    assert board.agent.busy is None


def test_a_cancel_between_grant_and_start_stops_the_run_before_it_begins(board: Board) -> None:
    board.grant()
    board.status(3, 2, cancelling=True)
    assert board.world.stops == 1
    board.agent.run_ended(NEVER_BEGAN)
    assert board.told() == [("a", "cancelled", "no")]


def test_a_start_looks_once_more_whether_it_was_cancelled(board: Board) -> None:
    board.grant()
    board.status(3, 2, cancelling=True)
    before = board.world.stops
    board.agent.run_started(GROUP)
    assert board.world.stops == before + 1


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        (2, {"cancelling": True}),
        (0, {}),
        (3, {}),
        (1, {"id": "b"}),
        (2, {"id": "b"}),
        (2, {"journal": "another"}),
        (2, {"boot": 2}),
    ],
    ids=["cancelled", "reset", "ended by a deadline", "another id requested",
         "another id collected", "granted to another journal", "granted to another boot"],
)  # fmt: skip
def test_a_cancel_or_the_loss_of_the_grant_stops_the_program_once(
    board: Board, state: int, changes: dict[str, object]
) -> None:
    board.run()
    for seq in (3, 4):
        board.status(seq, state, **changes)  # type: ignore[arg-type]
    assert board.world.stops == 1
    assert board.said("response") == []
    board.agent.run_ended(CANCELLED)
    assert board.told() == [("a", "cancelled", "yes")]
    assert board.said("response")[0]["response"] == "42\n"


def test_a_stale_status_stops_no_program(board: Board) -> None:
    board.run(seq=5)
    board.status(4, 0)
    board.status(4, 2, cancelling=True)
    assert board.world.stops == 0


def test_a_cancel_does_not_reach_the_next_program(board: Board) -> None:
    board.run()
    board.status(3, 2, cancelling=True)
    board.agent.run_ended(CANCELLED)
    board.run("b", 6)
    assert board.world.stops == 1
    board.status(7, 2, "b", cancelling=True)
    assert board.world.stops == 2


# -- the heartbeat --------------------------------------------------------------------------------


def test_the_heartbeat_says_who_is_there_and_is_retained(board: Board) -> None:
    board.agent.connected()
    (sent,) = board.world.sent
    assert (sent.kind, sent.qos, sent.retain) == ("heartbeat", 1, True)
    assert sent.fields == {
        "online": True, "journal": board.journal.name, "boot": 1, "seen": [0, 0],
        "version": __version__, "running": None,
        "board": "a test's",
        "busy": None, "refusing": None, "clock": None, "can": ["start", "files"],
        "time": board.world.wall(),
    }  # fmt: skip


def test_the_heartbeat_says_once_more_when_the_time_is_known(board: Board) -> None:
    clock = BoardClock("u", Topics(), board.world)
    board.agent = Agent("u", Topics(), board.journal, board.world, clock=clock)

    def reply(*, retain: bool = False) -> None:
        question: Any = [one for one in board.world.sent if one.kind == "clock"][-1].fields
        lab = question["t0"] + 1_700_000_000_000_000
        payload = encode_answer(question, lab + 100, lab + 110, "a-life", (0, 3))
        read_us = question["t0"] + 200
        board.agent.received("hw/u/clock/reply", payload, lambda: None,
                             retain=retain, read_us=read_us)  # fmt: skip

    board.agent.note_connection(Subscribed())
    board.agent.connected()
    while board.world.time < 1_001.0:
        pause = board.agent.tick()
        reply(retain=True)  # is not heard
        board.world.time += min(pause, 0.5)
    assert [one["clock"] for one in board.said("heartbeat")] == [None]
    board.agent.connected()
    while board.world.time < 1_002.0:
        pause = board.agent.tick()
        reply()
        board.world.time += min(pause, 0.5)
    *_, before, last = board.said("heartbeat")
    assert before["clock"] is None
    assert last["clock"]["life"] == "a-life"
    assert last["clock"]["bound"] < 0.001
    assert clock.seen == (0, 3)
    board.agent.note_connection(Disconnected("gone", True))
    count = len(board.world.sent)
    board.agent.tick()
    assert [one.kind for one in board.world.sent[count:]] == []


def test_the_heartbeat_comes_every_thirty_seconds(board: Board) -> None:
    board.agent.connected()
    assert board.pauses("heartbeat", 100.0) == [30.0, 30.0, 30.0]


def test_the_heartbeat_tells_the_newest_status_seen_and_the_command_in_hand(board: Board) -> None:
    board.run()
    assert board.said("heartbeat")[-1]["busy"] == "a"
    board.agent.connected()
    assert board.said("heartbeat")[-1]["seen"] == [0, 2]
    board.agent.run_ended(END)
    assert board.said("heartbeat")[-1]["busy"] is None


# -- a device that would hear nothing -------------------------------------------------------------


FORGED = 10**12


def test_a_forged_status_makes_a_device_deaf_for_a_minute_only(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    board.status(1, 0, epoch=FORGED)
    board.envelope()
    for seq in range(2, 60):
        board.status(seq, 1)
        board.pass_time(1.0)
    assert (board.ran(), board.journal.boot) == ([], 1)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
    board.pass_time(2.0)
    board.status(60, 1)
    board.status(61, 1)
    (error,) = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert f"older than ({FORGED}, 1) was heard, which this device has seen" in error
    assert "From now on (0, 60) is believed; hwsync doctor u" in error
    # As after a restart: no grant of before counts.
    assert board.said("collected")[-1] == {"id": "a", "journal": board.journal.name, "boot": 2}
    assert board.said("heartbeat")[-1]["seen"] == [0, 60]
    assert board.journal.epoch == 0  # a true new epoch will be one
    board.status(62, 2, boot=1)
    assert board.ran() == []
    board.status(63, 2)
    assert len(board.ran()) == 1


def test_one_status_that_is_not_older_ends_it(board: Board) -> None:
    board.status(50, 0)
    for _ in range(10):
        board.status(49, 0)
        board.pass_time(DEAF_S - 1.0)
        board.status(50, 0)  # as each connect brings it
        board.pass_time(DEAF_S)
    assert (board.journal.boot, board.agent.seen) == (1, (0, 50))


def test_a_program_that_runs_is_not_ended_by_it(board: Board) -> None:
    board.run()
    board.status(1, 2, epoch=FORGED)
    for seq in range(3, 10):
        board.status(seq, 2)
        board.pass_time(DEAF_S)
    assert board.journal.boot == 1
    board.agent.run_ended(END)
    board.status(10, 2)
    assert board.journal.boot == 2
    assert board.said("response")[-1]["id"] == "a"


def test_a_journal_that_cannot_be_written_believes_nobody_yet(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.status(1, 0, epoch=FORGED)
    board.status(2, 0)
    board.pass_time(DEAF_S)
    with monkeypatch.context() as full:

        def fail() -> None:
            raise JournalError("the journal cannot be written: disk full")

        full.setattr(board.journal, "next_boot", fail)
        board.status(3, 0)
    assert board.agent.seen == (FORGED, 1)
    board.status(4, 0)
    assert board.agent.seen == (0, 4)
