"""The pretended process of a start: the text of ``runner.release`` decides, in pretended time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from hwsync.runner import Instant
from hwsync.runner.page import Page
from hwsync.testing.raw_clocks import RawClock
from hwsync.testing.releasing import Waiting


@dataclass
class Board:
    """A board's clock, and a page that is armed for 10 s from now."""

    page: Page = field(default_factory=lambda: Page(0))
    now: float = 0.0

    def __post_init__(self) -> None:
        self.raw = RawClock(Random(1), lambda: self.now)
        self.waiting = Waiting(self.page, self.raw, lambda: self.now)
        self.aim()
        self.page.arm()

    def aim(self, seconds: float = 10.0, **changes: int) -> None:
        ns = self.raw.raw_ns() + int(seconds * 1e9)
        good = Instant(
            5_000_000, ns, fresh_until_ns=ns + 10**9, heard=True, bound_us=100, within_us=100_000
        )
        self.page.aim(replace(good, **changes))

    def end(self) -> float | Callable[[], None] | None:
        """Go on until it ends, or releases."""
        while isinstance(found := self.waiting.look(), float):
            assert found > 0.0
            self.now += found
        return found


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board()
    yield made
    made.page.close()


def test_it_is_released_at_its_instant_and_its_mark_stands_first(board: Board) -> None:
    begin = board.end()
    assert callable(begin)
    assert board.raw.raw_ns() - board.page.instant.raw_ns == pytest.approx(0, abs=10_000)
    assert board.page.released is None
    begin()
    assert board.page.released is not None
    assert board.page.released.lab_us == pytest.approx(5_000_000, abs=10)


def test_what_is_taken_back_while_it_waits_is_not_released(board: Board) -> None:
    assert isinstance(board.waiting.look(), float)
    board.page.disarm()
    assert board.end() is None
    assert (board.page.released, board.page.refusal[:17]) == (None, "it was taken back")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fresh_until_ns": 0}, "the coordinator was last heard"),
        ({"heard": 0}, "the coordinator had said something"),
        ({"bound_us": 100_001}, "the clock was not known"),
        ({"asleep_us": 10_000}, "the board was suspended"),
    ],
)
def test_what_is_known_is_looked_at(board: Board, changes: dict[str, int], why: str) -> None:
    board.aim(1.0, **changes)
    assert board.end() is None
    assert board.page.refusal.startswith(why)


def test_who_comes_too_late_is_not_released(board: Board) -> None:
    board.now = 10.2
    assert board.end() is None
    assert board.page.refusal.startswith("its instant was past")


def test_a_machine_that_sleeps_looks_once_it_is_awake(board: Board) -> None:
    board.raw.sleep(60.0)
    board.now += 1.0
    assert board.waiting.look() == pytest.approx(59.0)
    assert board.end() is None
    assert board.page.refusal.startswith("the board was suspended")
