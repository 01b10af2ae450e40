"""The soak's verdict on starts can be a bad one: each rule broken once in what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.testing.history import Asked, Said, Seen
from tests.support.soak_programs import Line
from tests.support.soak_starts import (
    SLACK_S,
    Instants,
    check_held,
    check_starts,
    starts_figures,
)

LIVES = {"l1": 1_000_000_000}  # lab time is 1,000 s ahead of the raw clock
START = {"together": True, "within": 0.1, "wait": 2.0}
INSTANT = 1_007.0


def end(**changes: Any) -> dict[str, Any]:
    return {
        "outcome": "ok", "start_at": INSTANT, "start_life": "l1", "started": INSTANT + 0.0005,
        "start_error": 0.0005, "clock_bound": 0.001,
    } | changes  # fmt: skip


def found(raw: float = 7.001, other: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    lines = [Line("began", "pi1", "b1", "1", 3.0, raw * 1e6)]
    commands = {("pi1", "b1"): end(**changes)}
    if other is not None:
        commands["pi2", "b1"] = other
    return [one.text for one in check_starts(lines, commands, {"b1": START}, LIVES)]


def test_a_start_at_its_instant_breaks_nothing() -> None:
    assert found(other=end()) == []
    assert found(6.9996, started=INSTANT - 0.0005) == []  # within its bound


@pytest.mark.parametrize(
    ("raw", "changes", "words"),
    [
        (6.998, {}, "after its instant, with a bound of 1002 us"),
        (7.001, {"started": INSTANT + 0.005}, "and says 1007.005"),
        (7.001, {"start_at": None, "start_life": None}, "without an instant"),
        (7.001, {"start_life": "l2"}, "nothing is known of the life l2"),
        (7.2, {"clock_bound": 0.2}, "released with a bound of 0.2 s; 0.1 were allowed"),
    ],
)
def test_a_beginning_that_may_not_be(raw: float, changes: dict[str, Any], words: str) -> None:
    texts = found(raw, **changes)
    assert len(texts) >= 1
    assert words in texts[0]


def test_who_died_has_told_no_bound_and_may_have_the_one_that_was_allowed() -> None:
    untold = {"started": None, "start_error": None, "clock_bound": None, "outcome": "interrupted"}
    assert found(6.91, **untold) == []
    assert len(found(6.89, **untold)) == 1


def test_a_batch_has_one_instant() -> None:
    assert "more than one instant" in found(other=end(start_at=INSTANT + 1.0))[0]


def status(at: float, state: int, start_at: float | None = None, id: str = "b1") -> Said:
    return Said(at, "pi1", "status", {"id": id, "state": state, "start_at": start_at})


ASKED = Asked(1.0, "teacher", "pi1", "request", "b1", "p", start=START, group="lab")
TOLD_AT = 2.6 + START["wait"] + SLACK_S  # type: ignore[operator]


@pytest.mark.parametrize(
    ("last", "able", "kept"),
    [
        (status(4.0, 2, INSTANT), True, True),
        (status(4.0, 1, id="next"), True, True),
        (status(TOLD_AT, 2, INSTANT), True, False),
        (status(TOLD_AT, 2, INSTANT), False, True),
        (None, True, False),
    ],
)
def test_nobody_is_held_beyond_wait(last: Said | None, able: bool, kept: bool) -> None:
    history: list[Seen] = [ASKED, status(1.5, 1), status(2.0, 2)]
    if last is not None:
        history.append(last)
    found = list(check_held(history, [1.9, 2.5], lambda since, until: able, now=60.0))
    assert len(found) == (0 if kept else 1)


@pytest.mark.parametrize(("fault", "held"), [(1.0, True), (1.95, False), (5.0, False)])
def test_a_coordinator_that_was_away_may_decide_later(fault: float, held: bool) -> None:
    """From the fault on nobody knows whether it is there; it has said nothing since."""
    history: list[Seen] = [ASKED, status(2.0, 2), status(12.0, 2, INSTANT)]
    able = lambda since, until: not since <= fault <= until  # noqa: E731
    assert bool(list(check_held(history, [1.9], able, now=60.0))) is held
    assert list(check_held(history, [1.9, 11.0], able, now=60.0)) == [] or held


def test_an_instant_is_aimed_at_once_and_while_it_is_to_come() -> None:
    instants = Instants()
    waits = {"start_at": None, "outcome": None}
    instants.heard(1.0, "b1", waits)
    assert not instants.another(1.0)
    instants.heard(2.0, "b1", {"start_at": INSTANT, "outcome": None})
    assert instants.another(2.1)
    assert not instants.another(2.2)
    instants.heard(3.0, "b2", {"start_at": INSTANT, "outcome": None})
    assert not instants.another(9.0)
    instants.heard(10.0, "b3", {"start_at": INSTANT, "outcome": "ok"})
    assert not instants.another(10.0)


def test_the_figures_of_starts() -> None:
    figures = starts_figures({("pi1", "b1"): end()}, LIVES, Instants(), [])
    assert figures["released"] == 1
    assert figures["late, ms"] == {"median": 0.5, "most": 0.5}
    assert figures["bound, ms"] == {"median": 1.0, "most": 1.0}
    assert figures["killed between decision and instant"] == 0
