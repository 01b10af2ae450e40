"""The checker of starts: each promise of an instant broken once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hwsync.testing.history import Asked, Began, LifeBegan, PutBack, Said, Seen, Served
from hwsync.testing.instants import check_starts

LIFE = LifeBegan(0.0, "l1", 1_000_000_000)  # lab time is 1000 at the beginning
TOGETHER = {"together": True, "wait": 5.0, "within": 0.1}
BATCH = ("pi1", "pi2")


def asked(user: str = "pi1", start: dict[str, Any] | None = None) -> Asked:
    return Asked(1.0, "o", user, "request", "b1", "p", start=start or TOGETHER, batch=BATCH)


def status(at: float, start_at: float | None, user: str = "pi1", **changes: Any) -> Said:
    life = None if start_at is None else "l1"
    fields = {"id": "b1", "state": 2, "start_at": start_at, "start_life": life, "journal": "j1"}
    fields |= changes
    return Said(at, user, "status", fields)


def began(at: float, *, bound: int = 100, user: str = "pi1") -> Began:
    return Began(at, user, "b1", "p", "j1", bound_us=bound, asked=at - 1.0)


GOOD: list[Seen] = [
    LIFE,
    asked(),
    status(2.0, None),
    status(2.0, 1004.0),
    status(2.0, 1004.0, "pi2"),
    began(4.0),
    began(4.05, user="pi2"),
]


def found(*seen: Seen, calm: bool = False) -> list[str]:
    return [text for promise, _, _, text in check_starts(seen, calm=calm) if promise == "start"]


def test_what_is_as_it_should_be_breaks_nothing() -> None:
    assert found(*GOOD, asked("pi2")) == []


@pytest.mark.parametrize(
    ("at", "bound", "wrong"),
    [
        (3.9999, 100, False),
        (3.9998, 100, True),
        (4.1, 100, False),
        (4.2, 100, True),
        (4.0, 100_001, True),
    ],
)
def test_nobody_begins_before_its_instant_or_late(at: float, bound: int, wrong: bool) -> None:
    assert bool(found(LIFE, asked(), status(2.0, 1004.0), began(at, bound=bound))) is wrong


def test_nobody_begins_without_an_instant_or_by_one_of_a_life_that_nobody_knows() -> None:
    assert "had no instant" in found(LIFE, asked(), status(2.0, None), began(4.0))[0]
    assert found(LIFE, asked(), status(5.0, 1004.0), began(4.0)) != []
    assert found(asked(), status(2.0, 1004.0), began(4.0)) != []
    assert found(LIFE, asked(), began(4.0, bound=0).__class__(4.0, "pi1", "b1", "p")) == []


def test_a_command_and_a_batch_have_one_instant() -> None:
    twice = [LIFE, asked(), status(2.0, 1004.0), status(3.0, 1005.0)]
    assert "more than one instant" in found(*twice)[0]
    assert found(*twice, PutBack(2.5, 1.0)) == []
    batch = [LIFE, asked(), asked("pi2"), status(2.0, 1004.0), status(2.0, 1004.5, "pi2")]
    assert found(*batch) == ["a batch with more than one instant: [(1004.0, 'l1'), (1004.5, 'l1')]"]


def test_nobody_begins_where_fewer_are_ready_than_are_needed() -> None:
    both = {**TOGETHER, "need": 2}
    batch = [LIFE, asked(start=both), asked("pi2", both), status(2.0, 1004.0)]
    ended = status(3.0, None, "pi2", state=0)
    assert found(*batch, ended) == ["['pi1'] have an instant, and 2 must be ready"]
    for last in ([], [status(2.0, None, "pi2")], [status(2.0, 1004.0, "pi2"), ended]):
        assert found(*batch, *last) == []  # it may have one that nobody has seen yet
    assert found(*batch[:3]) == []


@pytest.mark.parametrize(
    ("lives", "wrong"),
    [
        ([Served(0.0, 8.9, 8.9, 8.9)], False),
        ([Served(0.0, 9.5, 9.5, 9.5)], True),
        ([Served(0.0, 9.5, 9.5, 6.0)], False),
        ([Served(3.0 + n, 4.0 + n, 3.0, 3.0) for n in range(8)], True),
    ],
)
def test_who_is_ready_is_held_up_no_longer_than_the_wait(lives: list[Seen], wrong: bool) -> None:
    assert bool(found(LIFE, asked(), status(2.0, None), *lives)) is wrong
    for told in (status(2.0, 1004.0), status(2.0, None, state=0)):
        assert found(LIFE, asked(), status(2.0, None), told, *lives) == []


@pytest.mark.parametrize(
    ("back", "changes", "asked_at", "wrong"),
    [
        (2.5, {"cancelling": True}, 3.0, True),
        (2.5, {"state": 0, "id": "another"}, 3.0, True),
        (2.5, {"journal": "j2"}, 3.0, True),
        (3.5, {"cancelling": True}, 3.0, False),
        (2.5, {}, 3.0, False),
        (9.0, {}, None, True),
        (9.0, {}, -7.0, True),
    ],
)
def test_nobody_begins_that_was_taken_back_before_it_asked(
    back: float, changes: dict[str, Any], asked_at: float | None, wrong: bool
) -> None:
    taken = status(back, 1004.0, **changes)
    seen = [LIFE, asked(), status(2.0, 1004.0), taken, replace(began(4.0), asked=asked_at)]
    assert bool(found(*seen)) is wrong
    assert found(*seen, PutBack(5.0, 1.0)) == []


def test_who_was_ready_begins_where_nothing_has_gone_wrong() -> None:
    seen = [LIFE, asked(), status(2.0, 1004.0)]
    assert found(*seen) == []
    assert "never began" in found(*seen, calm=True)[0]
    assert found(*seen, began(4.0), calm=True) == []
    assert found(*seen, Asked(3.0, "o", "pi1", "cancel", "b1"), calm=True) == []
