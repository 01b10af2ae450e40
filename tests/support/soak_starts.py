"""Starts at one instant in a soak: when their programs began, and how long anybody was held up.

The law: all devices of a soak are on one machine, so its raw clock is the truth for each of them.
Lab time is that clock and what the database says of each of its lives; of what a device says,
only its bound is taken.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from hwsync.protocol.record import State
from hwsync.store.read_only import open_to_read
from hwsync.testing.history import Asked, Json, Said, Seen, Violation
from tests.support.soak_programs import Line

MICRO: Final = 1_000_000
ROUNDED_US: Final = 2  # of instant, bound and offset, each written with six decimals
SLACK_S: Final = 5.0  # a busy machine's, beyond what a start may wait
FRESH_S: Final = 0.3  # so long an instant that was heard of may be aimed at

Name = tuple[str, str]  # user, id of a command
Lives = Mapping[str, int]  # by life, what lab time is ahead of the raw clock, in microseconds


class Instants:
    """The instants that operators have heard of. Any thread may call it."""

    def __init__(self) -> None:
        self.heard_at: dict[str, float] = {}  # by id of the batch, in monotonic seconds
        self._aimed_at: set[str] = set()

    def heard(self, at: float, id: str, fields: Json) -> None:
        """A status or result was heard of a command; it may have an instant that is to come."""
        if fields.get("start_at") is not None and fields["outcome"] is None:
            self.heard_at.setdefault(id, at)

    def another(self, now: float) -> bool:
        """Whether one was heard of just now, for the first time that this is asked."""
        known = dict(self.heard_at)
        fresh = [id for id, at in known.items() if id not in self._aimed_at and now - at < FRESH_S]
        self._aimed_at |= known.keys()
        return bool(fresh)


def read_lives(path: Path) -> dict[str, int]:
    """The lives of lab time, of the database, if there is one; the coordinator may run."""
    if not path.exists():
        return {}
    connection, _, _ = open_to_read(path.resolve(), for_long=True)
    with closing(connection):
        rows = connection.execute("SELECT name, wall_us - raw_us FROM lives")
        return dict(rows)


def check_starts(
    lines: Iterable[Line], commands: Mapping[Name, Json], asked: Mapping[str, Json], lives: Lives
) -> Iterator[Violation]:
    """Nobody begins before its instant less its bound, or without one; a batch has one instant.

    ``asked``: the ``start`` of each command that has one, by its id.
    """
    for line in lines:
        name = (line.user, line.tag)
        if line.word == "began" and line.tag in asked and name in commands:
            yield from _begins_in_time(line, commands[name], asked[line.tag], lives)
    instants: dict[str, set[tuple[float, str]]] = defaultdict(set)
    for (user, id), end in commands.items():
        if end["start_at"] is not None:
            instants[id].add((end["start_at"], end["start_life"]))
        if end["start_error"] is not None and end["clock_bound"] > asked[id]["within"]:
            text = f"released with a bound of {end['clock_bound']} s"
            yield Violation("start", user, id, f"{text}; {asked[id]['within']} were allowed")
    for id, found in instants.items():
        if len(found) > 1:
            yield Violation("start", "", id, f"has more than one instant: {sorted(found)}")


def _begins_in_time(line: Line, end: Json, start: Json, lives: Lives) -> Iterator[Violation]:
    if end["start_at"] is None:
        yield Violation("start", line.user, line.tag, f"began at {line.at:.3f}, without an instant")
        return
    if end["start_life"] not in lives:
        text = f"nothing is known of the life {end['start_life']}"
        yield Violation("start", line.user, line.tag, text)
        return
    lab_us = line.raw_us + lives[end["start_life"]]
    # Who died meanwhile has told no bound; it was at most what was allowed.
    told = end["clock_bound"] is not None
    bound_us = (end["clock_bound"] if told else start["within"]) * MICRO + ROUNDED_US
    late_us = lab_us - end["start_at"] * MICRO
    if late_us < -bound_us:
        text = f"began {late_us:.0f} us after its instant, with a bound of {bound_us:.0f} us"
        yield Violation("start", line.user, line.tag, text)
    # Its first line comes after the reading that is ``started``.
    if told and lab_us < end["started"] * MICRO - bound_us:
        text = f"began at {lab_us / MICRO:.6f} of lab time, and says {end['started']:.6f}"
        yield Violation("start", line.user, line.tag, f"{text}, within {bound_us:.0f} us")


def check_held(
    history: Sequence[Seen],
    heard_at: Iterable[float],
    able: Callable[[float, float], bool],
    now: float,
) -> Iterator[Violation]:
    """Nobody waits longer than ``wait`` for the others, while the coordinator can decide.

    ``heard_at``: when it said anything; ``able``: whether nothing has happened to it between two
    times. So it is known to be there again when it says something, and to be there from then on.
    """
    waits: dict[Name, float] = {}
    said: dict[str, list[Said]] = defaultdict(list)  # by board
    for one in history:
        if isinstance(one, Asked) and one.start and one.id and one.start.get("together"):
            waits[one.user, one.id] = one.start["wait"]
        elif isinstance(one, Said) and one.kind == "status":
            said[one.user].append(one)
    signs = sorted(heard_at)
    for (user, id), wait in waits.items():
        ready = next((one.at for one in said[user] if _waits(one.fields, id)), None)
        if ready is None:
            continue
        # Whoever was not connected hears of the next command, and not how this one went on.
        after = [x.at for x in said[user] if x.at > ready and not _waits(x.fields, id)]
        told, allowed = min(after, default=now), wait + SLACK_S
        begins = {max(sign, ready): sign for sign in signs if sign < told - allowed}
        if any(able(sign, at + allowed) for at, sign in begins.items() if at + allowed < told):
            text = f"ready since {ready:.3f}, and at {told:.3f} not told; {wait:g} s are allowed"
            yield Violation("start", user, id, text)


def _waits(fields: Json, id: str) -> bool:
    waits = fields["state"] == State.COLLECTED and fields["start_at"] is None
    return bool(waits and fields["id"] == id)


def starts_figures(
    commands: Mapping[Name, Json], lives: Lives, instants: Instants, kills: Iterable[float]
) -> dict[str, Any]:
    """What is printed of starts. ``kills``: of a coordinator or device, in monotonic seconds."""
    ahead = time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - time.monotonic()
    instant_of = {
        id: end["start_at"] - lives[end["start_life"]] / MICRO - ahead
        for (_, id), end in commands.items()
        if end["start_at"] is not None and end["start_life"] in lives
    }
    before = sum(
        any(
            at <= kill < instant_of[id]
            for id, at in instants.heard_at.items()
            if id in instant_of
        )
        for kill in kills
    )  # fmt: skip
    released = [end for end in commands.values() if end["start_error"] is not None]
    late = sorted(end["start_error"] * 1e3 for end in released)
    bounds = sorted(end["clock_bound"] * 1e3 for end in released)
    outcomes = Counter(str(end["outcome"]) for (_, id), end in commands.items() if id in instant_of)
    return {
        "instants decided": len(instant_of),
        "killed between decision and instant": before,
        "of these commands": dict(outcomes.most_common()),
        "released": len(released),
        "lives of lab time": len(lives),
        **({} if not released else {
            "late, ms": {"median": round(statistics.median(late), 3), "most": round(late[-1], 3)},
            "bound, ms": {
                "median": round(statistics.median(bounds), 3), "most": round(bounds[-1], 3),
            },
        }),
    }  # fmt: skip
