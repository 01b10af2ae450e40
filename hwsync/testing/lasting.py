"""How long a grant may last (docs/protocol.md, section 2, "Deadlines"), held against what was seen.

The law: time counts where a coordinator was connected and could work: all of its last connection in
a life, half of a life that is over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from hwsync.protocol.limits import DEFAULT_GRACE_S, DEFAULT_TIMEOUT_S
from hwsync.protocol.record import MICRO, State
from hwsync.testing.history import Asked, Json, LifeBegan, PutBack, Said, Seen, Served, Violation

SETTLED_S: Final = (
    10.0  # of connection, after which deadlines fire, with every settling time in use
)
MORE_S: Final = 2.0  # that a start may be later than asked: the more boards, the later
Name = tuple[str, str]  # user, id of a command


def check_grants(history: Sequence[Seen]) -> Iterator[Violation]:
    """5. What was granted ends, also where its device is never heard again."""
    if any(isinstance(one, PutBack) for one in history):
        return
    asked: dict[tuple[str, str, str], list[Asked]] = defaultdict(list)
    said: dict[str, list[Said]] = defaultdict(list)
    lives: dict[str, LifeBegan] = {}
    for one in history:
        if isinstance(one, Asked) and one.kind == "request" and one.id:
            asked[one.user, one.id, one.program].append(one)
        elif isinstance(one, Said) and one.kind == "status":
            said[one.user].append(one)
        elif isinstance(one, LifeBegan):
            lives.setdefault(one.life, one)
    served = [one for one in history if isinstance(one, Served)]
    for user, statuses in said.items():
        for since, until, fields in _grants(statuses):
            requests = asked[user, fields["id"], fields["hw_command"]]
            if not requests:
                continue
            most = max(map(_allowed, requests)) + _ahead(fields, since, lives)
            at = _outlasted(served, since, until, most)
            if at is not None:
                text = f"granted at {since:.3f}, at {at:.3f} still; {most:g} s were allowed"
                yield Violation("ends", user, fields["id"], text)


def _grants(statuses: Sequence[Said]) -> Iterator[tuple[float, float, Json]]:
    """When each grant was said first, and when it was over, with its first status."""
    granted: Said | None = None
    for one in statuses:
        name = one.fields["id"] if one.fields["state"] == State.COLLECTED else None
        if granted is not None and name != granted.fields["id"]:
            yield granted.at, one.at, granted.fields
            granted = None
        if granted is None and name is not None:
            granted = one
    if granted is not None:
        yield granted.at, float("inf"), granted.fields


def _allowed(one: Asked) -> float:
    """Seconds from its grant, or from its instant where one is named."""
    start = one.start or {}
    timeout = DEFAULT_TIMEOUT_S if one.timeout is None else one.timeout
    grace = DEFAULT_GRACE_S if one.grace is None else one.grace
    more = start["wait"] + start["lead"] + MORE_S if start.get("together") else 0.0
    return timeout + grace + more


def _ahead(fields: Json, since: float, lives: dict[str, LifeBegan]) -> float:
    """Seconds from the grant to the instant that was fixed before it."""
    life = lives.get(fields.get("start_life") or "")
    if life is None or fields["start_at"] is None:
        return 0.0
    at: float = fields["start_at"] - life.lab_us / MICRO + life.at
    return max(at - since, 0.0)


def _outlasted(served: Sequence[Served], since: float, until: float, most: float) -> float | None:
    """When it had lasted longer than that; None: it had not."""
    counted = 0.0
    for life in served:
        if min(life.until, until) - max(life.until - life.last, since) > most + SETTLED_S:
            return life.until
        if life.at >= since and life.until < until:
            if counted > most and life.last > SETTLED_S:
                return life.until
            counted += max(life.seconds / 2 - 0.5, 0.0)
    return None
