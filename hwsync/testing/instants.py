"""The promises of docs/protocol.md, section 6, held against what was seen of a lab.

The law: whether somebody began too early is judged by the time of the world and by the beginnings
of lab time's lives, which no device can get wrong. What a device says of itself is its bound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from hwsync.protocol.record import MICRO, State
from hwsync.testing.history import (
    Asked,
    Began,
    Json,
    LifeBegan,
    PutBack,
    Said,
    Seen,
    Served,
)

Name = tuple[str, str]  # user, id of a command
Found = tuple[str, str, str, str]  # promise, user, id, what was seen
FRESH_S: Final = 10.0  # the newest answer was asked for so long before, at most
EXACT_US: Final = 2_000  # that a process may need from its instant to its first instruction
TURN_S: Final = 2.0  # of connection, in which a coordinator may do what is due
OVER_S: Final = 5.0  # of connection, in which it has told that an instant is over


class _Starts:
    """What was asked for and said of commands with a start."""

    def __init__(self, history: Sequence[Seen]) -> None:
        self.asked: dict[Name, list[Asked]] = defaultdict(list)
        self.said: dict[Name, list[Said]] = defaultdict(list)
        self.all_said: dict[str, list[Said]] = defaultdict(list)
        self.stopped: set[Name] = set()
        self.lives: dict[str, LifeBegan] = {}
        self.began: list[Began] = []
        self.served: list[Served] = []
        self.put_back = any(isinstance(one, PutBack) for one in history)
        for one in history:
            if isinstance(one, Asked) and one.kind == "request" and one.id and one.start:
                self.asked[one.user, one.id].append(one)
            elif isinstance(one, Said) and one.kind == "status":
                self.said[one.user, one.fields["id"]].append(one)
                self.all_said[one.user].append(one)
            elif isinstance(one, Asked) and one.kind in ("cancel", "reset") and one.id:
                self.stopped.add((one.user, one.id))
            elif isinstance(one, LifeBegan):
                self.lives.setdefault(one.life, one)
            elif isinstance(one, Served):
                self.served.append(one)
            elif isinstance(one, Began):
                self.began.append(one)

    def request(self, user: str, id: str, program: str) -> Json | None:
        """The start that was asked for with that program; None: none was."""
        found = [one for one in self.asked.get((user, id), []) if one.program == program]
        return found[0].start if found else None


def check_starts(history: Sequence[Seen], *, calm: bool = False) -> Iterator[Found]:
    """What was not kept of it; ``calm``: nothing has gone wrong."""
    seen = _Starts(history)
    yield from _at_its_instant(seen)
    yield from _one_instant(seen)
    yield from _waits_no_longer(seen)
    yield from _not_taken_back(seen)
    if calm:
        yield from _ready_is_released(seen)
    yield from _ends_with_its_instant(seen)


def _at_its_instant(seen: _Starts) -> Iterator[Found]:
    """Nobody begins without an instant, before it, or later than it may be."""
    for one in seen.began:
        start = seen.request(one.user, one.id, one.program)
        if start is None or not one.journal:
            continue
        told = {
            (said.fields["start_at"], said.fields["start_life"])
            for said in seen.said[one.user, one.id]
            if said.at <= one.at
            and said.fields["state"] == State.COLLECTED
            and said.fields["start_at"] is not None
        }
        if not told:
            yield "start", one.user, one.id, f"began at {one.at:.3f}, and had no instant"
            continue
        late = [_late_us(seen, one.at, at, life) for at, life in told]
        within, bound = start["within"] * MICRO, one.bound_us or 0
        if bound > within or not any(
            us is not None and -bound - 1 <= us <= within + bound + EXACT_US for us in late
        ):
            yield (
                "start",
                one.user,
                one.id,
                f"began at {one.at:.3f}, {late} us after {told} ± {bound}",
            )


def _late_us(seen: _Starts, at: float, start_at: float, life: str) -> int | None:
    """Microseconds after its instant, of lab time in that life; None: there is none."""
    begun = seen.lives.get(life)
    if begun is None:
        return None
    return begun.lab_us + round((at - begun.at) * MICRO) - round(start_at * MICRO)


def _one_instant(seen: _Starts) -> Iterator[Found]:
    """A command has one instant, and so have all members of a batch: as many as are needed.

    They are counted when everybody else was seen to have ended without one: who watches may see
    the instant of one member, and go before that of the next.
    """
    if seen.put_back:
        return
    starting: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    open_yet: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    batches: dict[tuple[str, tuple[str, ...]], set[tuple[float, str]]] = defaultdict(set)
    for (user, id), asked in seen.asked.items():
        told = {
            (one.fields["start_at"], one.fields["start_life"])
            for one in seen.said[user, id]
            if one.fields["start_at"] is not None
        }
        if len(told) > 1:
            yield "start", user, id, f"has more than one instant: {sorted(told)}"
        for one in asked:
            if one.batch and "at" not in (one.start or {}):
                batches[id, one.batch] |= told
                starting[id, one.batch] |= {user} if told else set()
                open_yet[id, one.batch] |= (
                    {user} if not told and _is_open(seen, user, id) else set()
                )
    for (id, users), found in batches.items():
        if len(found) > 1:
            yield "start", users[0], id, f"a batch with more than one instant: {sorted(found)}"
        asked = [one for user in users for one in seen.asked.get((user, id), [])]
        need = max((one.start or {}).get("need", 1) for one in asked)
        if 0 < len(starting[id, users]) < need and not open_yet[id, users]:
            text = f"{sorted(starting[id, users])} have an instant, and {need} must be ready"
            yield "start", users[0], id, text


def _is_open(seen: _Starts, user: str, id: str) -> bool:
    """Whether the newest that was seen of it is that it is open; so it is too when nothing was."""
    said = seen.said[user, id]
    return not said or said[-1].fields["state"] in (State.REQUESTED, State.COLLECTED)


def _waits_no_longer(seen: _Starts) -> Iterator[Found]:
    """Who is ready is held up no longer than ``wait``, in however many lives of the coordinator."""
    for (user, id), asked in seen.asked.items():
        start = asked[0].start or {}
        if not start.get("together") or seen.put_back:
            continue
        statuses = iter(seen.said[user, id])
        ready = next((one.at for one in statuses if not _is_settled(one.fields)), None)
        if ready is None:
            continue
        after = [one.at for one in statuses if _is_settled(one.fields)]
        until, counted = min(after, default=float("inf")), 0.0
        for life in seen.served:
            since = max(life.until - life.last, ready)
            at_once = min(life.until, until) - since > start["wait"] + TURN_S
            counts = life.at >= ready and life.until < until
            counted += max(life.seconds / 2 - 0.5, 0.0) if counts else 0.0
            if at_once or (counts and counted > start["wait"] and life.last > TURN_S):
                text = f"ready since {ready:.3f}, and at {life.until:.3f} not told"
                yield "start", user, id, f"{text}; {start['wait']:g} s were allowed"
                break


def _is_settled(fields: Json) -> bool:
    """Whether a member does not wait in state 2: its instant is fixed, or it has ended."""
    return fields["start_at"] is not None or fields["state"] != State.COLLECTED


def _not_taken_back(seen: _Starts) -> Iterator[Found]:
    """Nobody begins whose grant was taken back before it asked for the last time, or 10 s ago."""
    for one in seen.began:
        start = seen.request(one.user, one.id, one.program)
        if start is None or not one.journal or seen.put_back:
            continue
        asked = one.asked
        if asked is None or one.at - asked > FRESH_S * 1.001:
            when = "never asked" if asked is None else f"asked at {asked:.3f}"
            yield "start", one.user, one.id, f"began at {one.at:.3f}, and {when}"
            continue
        said = [x for x in seen.all_said[one.user] if x.at <= asked]
        granted = [number for number, x in enumerate(said) if _is_granted(x.fields, one)]
        if granted and granted[-1] != len(said) - 1:
            took = said[granted[-1] + 1]
            text = f"began at {one.at:.3f}, taken back at {took.at:.3f}, asked at {asked:.3f}"
            yield "start", one.user, one.id, text


def _is_granted(fields: Json, began: Began) -> bool:
    """Whether a status lets that program begin, in time."""
    return (
        fields["id"] == began.id
        and fields["state"] == State.COLLECTED
        and fields["start_at"] is not None
        and fields.get("journal") == began.journal
        and not fields.get("cancelling")
    )


def _ready_is_released(seen: _Starts) -> Iterator[Found]:
    """Whoever was ready and got an instant begins, unless somebody takes it back."""
    begun = {(one.user, one.id) for one in seen.began}
    for (user, id), asked in seen.asked.items():
        told = [one for one in seen.said[user, id] if one.fields["start_at"] is not None]
        together = (asked[0].start or {}).get("together")
        if together and told and (user, id) not in begun | seen.stopped:
            yield "start", user, id, f"ready, told {told[0].fields['start_at']}, and never began"


def _ends_with_its_instant(seen: _Starts) -> Iterator[Found]:
    """What nobody has collected by its instant ends then, and with the life whose time that is."""
    for (user, id), asked in seen.asked.items():
        said = seen.said[user, id]
        first = next((one for one in said if one.fields["state"] == State.REQUESTED), None)
        if first is None or first.fields["start_at"] is None or seen.put_back:
            continue
        life = first.fields["start_life"]
        over = _instant(seen, life, first.fields["start_at"] + asked[0].start["within"])  # type: ignore[index]
        others = [one.at for one in seen.lives.values() if one.life != life and one.at > first.at]
        over = max(min([over, *others]), first.at)
        after = [
            one.at for one in said if one.at > first.at and one.fields["state"] != State.REQUESTED
        ]
        until = min(after, default=float("inf"))
        for one in seen.served:
            if min(one.until, until) - max(one.until - one.last, over) > OVER_S:
                text = f"its instant was over at {over:.3f}, and at {one.until:.3f} it waits"
                yield "start", user, id, text
                break


def _instant(seen: _Starts, life: str, at: float) -> float:
    """When a clock of that life shows it; a life that nobody saw begin shows nothing."""
    begun = seen.lives.get(life)
    return float("inf") if begun is None else begun.at + at - begun.lab_us / MICRO
