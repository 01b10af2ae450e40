"""In which versions a broker is tried, and with which session."""

from __future__ import annotations

import itertools

import pytest

from hwsync.transport.connecting import CONNECT_S, V5_ANSWER_S, Attempt, attempts


@pytest.mark.parametrize(
    ("prefer_v5", "worked", "expected"),
    [
        (True, 0, [(5, V5_ANSWER_S), (4, CONNECT_S)]),
        (True, 5, [(5, CONNECT_S)]),
        (True, 4, [(4, CONNECT_S)]),
        (False, 0, [(4, CONNECT_S)]),
        (False, 4, [(4, CONNECT_S)]),
    ],
)
def test_the_best_version_first_and_then_the_one_that_worked(
    prefer_v5: bool, worked: int, expected: list[tuple[int, float]]
) -> None:
    tried = attempts(True, prefer_v5, worked)
    assert [(one.protocol, one.patience) for one in tried] == expected


def test_no_attempt_asks_for_another_session_than_the_one_that_is_wanted() -> None:
    every: list[tuple[bool, Attempt]] = [
        (clean, one)
        for clean, prefer, worked in itertools.product((False, True), (False, True), (0, 4, 5))
        for one in attempts(clean, prefer, worked)
    ]
    assert {(one.clean, one.keep) for clean, one in every if not clean} == {(False, True)}
    assert {(one.clean, one.keep) for clean, one in every if clean} == {(True, False)}
