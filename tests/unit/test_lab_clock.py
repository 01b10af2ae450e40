"""What a board knows of lab time: when it asks, what it makes of answers, what it says of it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from hwsync.device.lab_clock import BoardClock
from hwsync.protocol.device.asking import BURST, GAP_US, SELDOM_US
from hwsync.protocol.jsons import dumps, loads
from hwsync.protocol.topics import Topics
from hwsync.protocol.wire.clock import encode_answer, read_question

OFFSET = 1_700_000_000_000_000
DELAY = 200  # microseconds each way


class Board:
    """The clocks of a board and a line to a coordinator; time goes by when ``go`` is called."""

    def __init__(self, *, slewed: bool = False) -> None:
        self.raw, self.slept, self.life = 5_000_000, 0, "one"
        self.dice = Random(1)
        self.asked: list[bytes] = []
        self.connected = True
        self.slewed = slewed
        self.clock = BoardClock("pi1", Topics(), self)

    def raw_us(self) -> int:
        return self.raw

    def asleep_us(self) -> int:
        return self.slept

    def is_slewed(self) -> bool:
        return self.slewed

    def random(self) -> float:
        return self.dice.random()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> bool:
        assert (topic, qos) == ("hw/pi1/clock", 0)
        if self.connected:
            self.asked.append(payload)
        return self.connected

    def answer(self, payload: bytes, *, seq: int = 0, wrong: int = 0) -> bytes:
        """What the coordinator says to it, on the way there."""
        question = read_question(payload)
        assert question is not None
        lab = question["t0"] + DELAY + OFFSET
        return encode_answer(question, lab, lab + 10 + wrong, self.life, (0, seq))

    def go(self, until: int, *, answered: bool = True) -> int:
        """Ask as it is due; how many questions that were."""
        before = len(self.asked)
        while True:
            wait = self.clock.tick()
            if len(self.asked) > before and answered:
                sent = self.asked[-1]
                question = read_question(sent)
                assert question is not None
                self.clock.heard(self.answer(sent), question["t0"] + 2 * DELAY + 10)
            if wait is None or self.raw + round(wait * 1e6) > until:
                break
            self.raw += round(wait * 1e6)
        self.raw = max(until, self.raw)
        return len(self.asked) - before


@pytest.fixture
def board() -> Board:
    board = Board()
    board.clock.connected()
    return board


def test_it_asks_in_a_burst_and_then_once_a_minute_and_knows_the_time(board: Board) -> None:
    clock = board.clock
    assert (clock.estimate(), clock.presence(), clock.life) == (None, None, "")
    assert clock.newest is None
    began = board.raw
    assert clock.in_burst
    assert board.go(began + (BURST - 1) * GAP_US) == BURST
    assert not clock.in_burst
    estimate = clock.estimate()
    assert estimate is not None
    assert abs(estimate.offset - OFFSET) <= estimate.bound <= DELAY + 50
    assert clock.newest is not None
    assert len({read_question(one)["n"] for one in board.asked}) == BURST  # type: ignore[index]
    assert board.go(board.raw + SELDOM_US) == 1
    said = clock.presence()
    assert said is not None
    assert list(said) == ["bound", "offset", "drift_ppm", "samples", "age", "life"]
    assert (said["samples"], said["life"]) == (BURST + 1, "one")
    assert loads(dumps(said))["offset"] == pytest.approx(OFFSET / 1e6, abs=0.001)


def test_without_a_connection_nobody_is_asked_and_the_time_is_known_for_a_while(
    board: Board,
) -> None:
    board.go(board.raw + 1_000_000)
    board.clock.disconnected()
    assert board.clock.tick() is None
    board.raw += 60_000_000
    estimate = board.clock.estimate()
    assert estimate is not None
    assert estimate.bound > 5_000, "two crystals may be 200 ppm apart"
    board.raw += 600_000_000
    assert board.clock.estimate() is None


def test_answers_count_once_and_only_where_somebody_waits(board: Board) -> None:
    board.clock.tick()
    (question,) = board.asked
    fields: dict[str, Any] = loads(question.decode())
    for other in ({"n": fields["n"] + 1}, {"t0": fields["t0"] + 1}):
        forged = dumps(fields | other).encode()
        assert not board.clock.heard(board.answer(forged), board.raw)
    assert not board.clock.heard(b"{}", board.raw)
    assert not board.clock.heard(b"", board.raw)
    board.raw += 400
    assert board.clock.heard(board.answer(question, seq=5), board.raw)
    assert board.clock.seen == (0, 5)
    assert board.clock.newest == fields["t0"]
    assert not board.clock.heard(board.answer(question, seq=6), board.raw)
    assert board.clock.seen == (0, 5)


def test_a_new_life_and_a_suspend_begin_anew(board: Board) -> None:
    board.go(board.raw + 1_000_000)
    board.life = "another"
    board.go(board.raw + SELDOM_US)
    said = board.clock.presence()
    assert said is not None
    assert (said["life"], said["samples"]) == ("another", 1)
    board.slept += 3_000_000
    assert board.clock.estimate() is None
    assert board.clock.presence() is None
    board.go(board.raw + SELDOM_US)
    assert board.clock.estimate() is not None


def test_an_answer_of_an_earlier_life_that_was_overtaken_does_not_count(board: Board) -> None:
    board.go(board.raw, answered=False)
    first = board.answer(board.asked[0])
    board.go(board.raw + GAP_US, answered=False)
    board.life = "another"
    assert board.clock.heard(board.answer(board.asked[1]), board.raw + 500)
    assert board.clock.heard(first, board.raw + 600)
    assert board.clock.life == "another"


def test_a_question_that_was_slept_over_says_that_the_coordinator_is_there_and_no_more(
    board: Board,
) -> None:
    board.clock.tick()
    board.slept += 1_000_000
    assert board.clock.heard(board.answer(board.asked[0]), board.raw + 500)
    assert board.clock.estimate() is None
    assert board.clock.newest is not None


def test_an_answer_that_contradicts_itself_changes_nothing(board: Board) -> None:
    board.go(board.raw + 1_000_000)
    before = board.clock.estimate()
    board.clock.announced(together=False)
    board.clock.tick()
    assert board.clock.heard(board.answer(board.asked[-1], wrong=1_000_000), board.raw + 500)
    after = board.clock.estimate()
    assert before is not None
    assert after is not None
    assert (after.offset, after.bound) == (before.offset, before.bound)


def test_a_slewed_clock_says_so() -> None:
    board = Board(slewed=True)
    board.clock.connected()
    board.go(board.raw + 1_000_000)
    said = board.clock.presence()
    assert said is not None
    assert said["slewed"] is True
    assert said["bound"] > 0.0008, "almost a second at 1,000 ppm"


def test_a_start_makes_it_ask_more_often(board: Board) -> None:
    board.go(board.raw + 1_000_000)
    board.clock.announced(together=True)
    assert board.go(board.raw + 2_000_000) == BURST
    board.clock.awaits(board.raw + 20_000_000)
    assert board.go(board.raw + 20_000_000) >= 6
    board.clock.awaits(None)
