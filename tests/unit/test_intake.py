"""The loop's one wait, and what the process's signals ask of it."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from hwsync.coordinator import service
from hwsync.coordinator.intake import BACKLOG, CROWDED_S, GATHER_S, MAX_ROUND, Intake
from hwsync.orders import Orders, listening
from hwsync.transport import Disconnected, Signal

CAME = Disconnected("x", True)


class Wire:
    """A clock, a connection and its pump, in which so much comes with each wait."""

    def __init__(self, *comes: int, backlogs: Sequence[int] = (0,), full: int = 0) -> None:
        self._full = full  # waits, until everything that was said was sent
        self.comes = deque(comes)
        self.now = 0.0
        self.waits: list[float | None] = []
        self._backlogs = deque(backlogs)  # one for each wait; the last one stays

    @property
    def backlog(self) -> int:
        return self._backlogs[0]

    @property
    def is_full(self) -> bool:
        return len(self.waits) < self._full

    def wait(self, seconds: float | None) -> list[Signal]:
        self.waits.append(seconds)
        if len(self._backlogs) > 1:
            self._backlogs.popleft()
        count = self.comes.popleft() if self.comes else 0
        if not count and seconds is not None:
            self.now += seconds
        return [CAME] * count

    def monotonic(self) -> float:
        return self.now

    wall = monotonic


def intake(wire: Wire, orders: Orders | None = None) -> Intake:
    return Intake(wire, wire, orders or Orders(), wire)


def test_it_waits_for_signals_and_not_for_mere_progress() -> None:
    wire = Wire(0, 0, 2)
    assert intake(wire).take(None) == [CAME] * 2
    assert wire.waits == [None] * 3


def test_it_waits_no_longer_than_it_is_told() -> None:
    wire = Wire()
    assert intake(wire).take(5.0) == []
    assert wire.now == 5.0


def test_one_round_has_a_limit_and_the_rest_waits_for_the_next() -> None:
    wire = Wire(MAX_ROUND + 3)
    taken = intake(wire)
    assert len(taken.take(None)) == MAX_ROUND
    assert taken.depth == 3
    assert len(taken.take(None)) == 3
    assert wire.waits == [None, 0.0], "nothing is waited for while something waits"


def test_nothing_more_is_heard_while_too_much_that_was_said_has_not_arrived() -> None:
    wire = Wire(5, backlogs=[BACKLOG + 1])
    taken = intake(wire)
    assert len(taken.take(None)) == 1
    assert wire.now == CROWDED_S
    assert taken.depth == 4


def test_once_it_has_arrived_all_is_heard_together() -> None:
    wire = Wire(2, 3, backlogs=[BACKLOG + 1, BACKLOG + 1, BACKLOG])
    assert len(intake(wire).take(None)) == 5
    assert wire.now == 0.0


def test_a_round_begins_when_the_words_of_the_last_one_could_be_sent() -> None:
    assert len(intake(Wire(2, 3, 4, 5, full=3)).take(None)) == 2 + 3 + 4
    wire = Wire(2, 3, full=9)
    assert len(intake(wire).take(None)) == 5
    assert wire.now == GATHER_S, "but not at any price"
    wire = Wire(1, 1, MAX_ROUND, 1, full=9)
    assert len(intake(wire).take(None)) == MAX_ROUND
    assert len(wire.waits) == 3


def test_an_order_ends_each_wait() -> None:
    orders = Orders()
    orders.reload = True
    assert intake(Wire(), orders).take(None) == []
    assert len(intake(Wire(5, full=9), orders).take(None)) == 5
    wire = Wire(5, backlogs=[BACKLOG + 1])
    assert len(intake(wire, orders).take(None)) == 1
    assert wire.now == 0.0


class Part:
    """One of what the loop's process calls in each round; counts them."""

    done = True

    def __init__(self) -> None:
        self.rounds = 0

    def wait(self) -> float:
        return 0.0

    def admit(self, signals: Iterable[Signal]) -> list[Signal]:
        return list(signals)

    without_ours = take_questions = admit

    def take(self, signals: Iterable[Signal], *, serving: bool) -> list[Signal]:
        return list(signals)

    def step(self, _: object) -> None:
        self.rounds += 1

    def report(self, *_: object) -> None:
        pass

    clear = drop_old = say = report


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_behind_a_flood(number: signal.Signals) -> None:
    part = Part()
    woken: list[None] = []
    with listening(lambda: woken.append(None)) as orders:
        os.kill(os.getpid(), number)
        parts: Any = [part] * 9
        service._run(*parts, intake(Wire(20 * MAX_ROUND), orders), orders, lambda: True)
    assert part.rounds == 1
    assert woken == [None]


def test_a_hang_up_is_a_reload_and_a_stop_where_the_terminal_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = [False]
    monkeypatch.setattr(os, "isatty", lambda _: terminal[0])
    with listening(lambda: None) as orders:
        os.kill(os.getpid(), signal.SIGHUP)
        assert (orders.stop, orders.reload) == (False, True)
    terminal[0] = True
    with listening(lambda: None) as orders:
        terminal[0] = False
        os.kill(os.getpid(), signal.SIGHUP)
        assert (orders.stop, orders.reload) == (True, False)


@pytest.mark.parametrize("reloads", [True, False])
def test_a_reload_is_done_once_and_may_take_another_process(reloads: bool) -> None:
    part, orders, done = Part(), Orders(), list[None]()
    orders.reload = True

    def reload() -> bool:
        done.append(None)
        orders.stop = len(done) == 1 and reloads  # at the next look
        return reloads

    parts: Any = [part] * 9
    service._run(*parts, intake(Wire(), orders), orders, reload)
    assert done == [None]
    assert part.rounds == (2 if reloads else 1)
