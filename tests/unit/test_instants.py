"""The time of day that a start is at, and what goes with what."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from hwsync.cli import instants
from hwsync.cli.instants import Wish, instant, wish
from hwsync.protocol.errors import UsageError

NOW = datetime.datetime(2026, 11, 30, 14, 0, 0).timestamp()
NONE: dict[str, Any] = dict.fromkeys(("at", "wait", "lead", "need", "within"), None)


def at(text: str) -> str:
    return datetime.datetime.fromtimestamp(instant(text, NOW)).isoformat()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("14:30", "2026-11-30T14:30:00"),
        ("14:30:05.25", "2026-11-30T14:30:05.250000"),
        ("13:59", "2026-12-01T13:59:00"),
        ("14:00", "2026-12-01T14:00:00"),
        ("2026-11-30T23:00", "2026-11-30T23:00:00"),
        ("2026-12-01 13:00:00", "2026-12-01T13:00:00"),
        ("+90", "2026-11-30T14:01:30"),
        ("+0.5", "2026-11-30T14:00:00.500000"),
    ],
)
def test_a_time_of_day(text: str, meant: str) -> None:
    assert at(text) == meant


def test_another_zone_is_another_instant() -> None:
    zoned = datetime.datetime.fromtimestamp(NOW + 60, datetime.UTC).isoformat()
    assert instant(zoned, NOW) == NOW + 60


@pytest.mark.parametrize(
    "text",
    ["", "now", "25:00", "14:60", "14:30:60", "2026-12-05T14:30", "2026-11-30T13:00", "2026-12-01",
     "+", "+x", "-5", "+90000", "+inf", "+nan", "14:30:05.1234567", "1764513000"],
)  # fmt: skip
def test_what_is_no_time_within_a_day(text: str) -> None:
    with pytest.raises(UsageError):
        instant(text, NOW)


def test_lab_time_is_another_clock() -> None:
    keys, said = instants._converted({"within": 0.5}, NOW + 10.5, NOW + 100.0, NOW)
    assert keys == {"within": 0.5, "at": NOW + 110.5}
    assert said.startswith("the start is at 2026-11-30 14:00:10.5 ")
    assert said.endswith("in 10.5 s; lab time is 100.0 s ahead")
    assert "lab time" not in instants._converted({}, NOW + 10.0, NOW + 0.5, NOW)[1]


@pytest.mark.parametrize(
    ("given", "boards", "meant"),
    [
        ({}, 0, None),
        ({"together": True}, 0, Wish(True, None, {"together": True})),
        ({"together": True}, 3, Wish(True, None, {"together": True, "need": 3})),
        ({"together": True, "need": 2, "wait": 9.0, "lead": 2.0, "within": 0.5}, 3,
         Wish(True, None, {"together": True, "need": 2, "wait": 9.0, "lead": 2.0, "within": 0.5})),
        ({"at": "+5", "within": 1.0}, 1, Wish(False, NOW + 5, {"within": 1.0})),
    ],
)  # fmt: skip
def test_what_is_asked_for(given: dict[str, Any], boards: int, meant: Wish | None) -> None:
    assert wish({**NONE, "together": False, **given}, boards, now=NOW) == meant


@pytest.mark.parametrize(
    ("given", "boards"),
    [
        ({"together": True, "at": "+5"}, 0), ({"wait": 5.0}, 0), ({"need": 1, "at": "+5"}, 0),
        ({"within": 1.0}, 0), ({"together": True}, 1), ({"together": True, "need": 3}, 2),
    ],
)  # fmt: skip
def test_what_contradicts_itself(given: dict[str, Any], boards: int) -> None:
    with pytest.raises(UsageError):
        wish({**NONE, "together": False, **given}, boards, now=NOW)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((10.5, "in 10.5 s"), (90.0, "in 1 min 30 s"), (2 * 3600.0, "in 2 h 0 min")),
        (16 * 3600.0 + 18 * 60.0, "tomorrow, in 16 h 18 min"),
    ],
)
def test_what_was_understood_is_said_as_people_say_it(seconds: float, said: str) -> None:
    line = instants._converted({}, NOW + seconds, NOW, NOW)[1]
    zone = datetime.datetime.fromtimestamp(NOW).astimezone().strftime("%Z")
    assert line.endswith(f" {zone}, {said}")


def test_a_start_that_is_past_by_now_is_refused_here() -> None:
    with pytest.raises(UsageError, match="was to be at 14:00:00, and that is past by now"):
        instants._converted({}, NOW, NOW + 1.0, NOW + 0.01)
