"""What is prepared on a board and never granted is in nobody's way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hwsync.device.board_environment import BoardEnvironment, Calls
from hwsync.runner import Group, Instant, Job, Piece, RunEnd, Settings, raw_ns
from hwsync.runner.processes import members
from tests.support.waiting import START_PATIENCE, wait_until


class Told:
    """In the place of an agent."""

    def __init__(self) -> None:
        self.prepared: list[Group] = []
        self.ends: list[RunEnd] = []
        self.failures: list[str] = []

    def run_prepared(self, group: Group) -> None:
        self.prepared.append(group)

    def run_started(self, group: Group) -> None:
        pass

    def output(self, piece: Piece) -> None:
        pass

    def run_ended(self, end: RunEnd) -> None:
        self.ends.append(end)

    def run_failed(self, reason: str) -> None:
        self.failures.append(reason)


class Board:
    def __init__(self, folder: Path) -> None:
        self.calls = Calls(lambda: None)
        self.environment = BoardEnvironment(Settings(folder), folder, self.calls)
        self.environment.runner._alone = False  # a test's process has other children
        self.told = Told()
        self.environment.agent = self.told  # type: ignore[assignment]

    def prepare(self, program: str) -> None:
        self.environment.prepare_run(Job(program, "", (), 60.0), "a")

    def wait_for(self, what: Sequence[object]) -> None:
        def came() -> bool:
            for call in self.calls.take():
                call()
            return bool(what)

        wait_until(came, START_PATIENCE, "what the run's thread leaves")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path)
    yield one
    one.environment.close()


@pytest.mark.parametrize("ready", [True, False], ids=["it was ready", "it was not"])
def test_what_is_dropped_says_nothing_and_the_next_run_has_the_board(
    board: Board, ready: bool, tmp_path: Path
) -> None:
    board.prepare("open('ran', 'w')")
    if ready:
        board.wait_for(board.told.prepared)
    board.environment.drop_run()
    board.environment.start_run(Job("print(1)", "", (), 60.0), "b")
    board.wait_for(board.told.ends)
    (end,) = board.told.ends
    assert (end.outcome, end.response, board.told.failures) == ("ok", "1\n", [])
    assert not (tmp_path / "ran").exists()


def test_what_is_prepared_anew_takes_the_place(board: Board, tmp_path: Path) -> None:
    board.prepare("open('ran', 'w')")
    board.prepare("print(2)")
    board.wait_for(board.told.prepared)
    at = raw_ns() + 50_000_000
    board.environment.arm_run(Instant(1, at, at + 10**10, True, 0, 10**7))
    board.wait_for(board.told.ends)
    assert [end.response for end in board.told.ends] == ["2\n"]
    assert not (tmp_path / "ran").exists()


def test_the_end_of_a_life_leaves_nothing(board: Board) -> None:
    board.prepare("import time\ntime.sleep(600)")
    board.wait_for(board.told.prepared)
    (group,) = board.told.prepared
    assert members(group.session, group.start_time)
    before = time.monotonic()
    board.environment.close()
    assert members(group.session, group.start_time) == []
    assert time.monotonic() - before < 5.0
