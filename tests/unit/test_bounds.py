"""How well a board knows lab time, for people."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.cli import bounds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 ms"), (0.000_2, "0.20 ms"), (0.000_201, "0.21 ms"), (0.003, "3.0 ms"),
     (0.003_01, "3.1 ms"), (0.012_3, "13 ms"), (1.5, "1,500 ms")],
)  # fmt: skip
def test_a_bound_is_never_shown_smaller_than_it_is(seconds: float, text: str) -> None:
    assert bounds.milliseconds(seconds) == text


@pytest.mark.parametrize(
    "clock", [None, "x", [], {}, {"bound": "1"}, {"bound": -1.0}, {"bound": True}, {"bound": None}]
)
def test_what_is_no_bound_is_none(clock: Any) -> None:
    beat: Any = {"clock": clock}
    assert bounds.lab_clock(beat) is None
    assert bounds.shown(beat) == ""
