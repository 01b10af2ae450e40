"""How well a board knows lab time, for people (docs/protocol.md, section 6).

The law: a heartbeat may say anything; what is no bound is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from hwsync.findings import Finding, warning
from hwsync.protocol.jsons import is_number
from hwsync.protocol.wire.heartbeat import Heartbeat

LARGE_S: Final = 0.02  # a start allows 0.1 s where nobody says otherwise


def lab_clock(beat: Heartbeat | None) -> dict[str, Any] | None:
    """What a heartbeat says of lab time; None: that nothing is known, or it says nothing."""
    said: Any = beat.get("clock") if beat is not None else None
    if isinstance(said, dict) and is_number(said.get("bound")) and said["bound"] >= 0:
        return said
    return None


def shown(beat: Heartbeat | None) -> str:
    """For people: ±0.2 ms; empty: nothing is known."""
    clock = lab_clock(beat)
    return "" if clock is None else f"±{milliseconds(clock['bound'])}"


def milliseconds(seconds: float) -> str:
    """Two digits of it, rounded up: a bound is not made smaller."""
    value = seconds * 1_000
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return f"{math.ceil(round(value * 10**digits, 6)) / 10**digits:,.{digits}f} ms"


def of_board(beat: Heartbeat) -> Iterator[Finding]:
    """What is wrong with what an online board knows of lab time."""
    if "clock" not in beat:
        return  # a device of before
    clock = lab_clock(beat)
    if clock is None:
        cure = (
            "no program begins at an instant there. Is it let at its topics clock and clock/reply? "
            "In a lab of an older hwsync: any hwsync device or operator command adds the right"
        )
        yield warning("device", "it does not know lab time", cure)
        return
    if clock.get("slewed"):
        cure = "a system with CLOCK_MONOTONIC_RAW (Linux) is certain within less"
        yield warning("device", "its raw clock may be slewed: its bound grows by 1 ms/s", cure)
    if clock["bound"] > LARGE_S:
        found = f"it knows lab time within {milliseconds(clock['bound'])} only"
        cure = (
            "the bound is half of the shortest delay to the coordinator and back: look at the "
            "network (Wi-Fi that saves power), and whether it has been connected all the time"
        )
        yield warning("device", found, cure)
