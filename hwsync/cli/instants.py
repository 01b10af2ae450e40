"""The options of a start, and the time of day that ``--at`` means, in lab time.

The law: what was understood is said. A person's time of day is this machine's; the boards go by lab
time, of which the coordinator says how it stands.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsync.operator.client import Client
from hwsync.operator.conversation import OnReceived
from hwsync.operator.starting import asking_ahead
from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import START_AHEAD_S

DIFFERS_S: Final = 1.0  # between this clock and lab time, from which on it is said
FORMS: Final = "14:30, 14:30:05.5, 2026-12-01T14:30, or +10 (in 10 s)"
_TIME: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d{1,6})?))?")
_TOGETHER: Final = ("wait", "lead", "need")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options ask for; ``at``: Unix seconds of this machine's clock."""

    together: bool = False
    at: float | None = None
    keys: Mapping[str, Any] | None = None


def wish(given: Mapping[str, Any], boards: int, *, now: float) -> Wish | None:
    """What ``--together`` and ``--at`` and theirs mean; None: no start.

    ``boards``: how many were named; 0: a group. ``now``: Unix seconds. Raises ``UsageError``.
    """
    together, at = given["together"], given["at"]
    if together and at is not None:
        raise UsageError("--together and --at contradict each other", "give one of them")
    if not together:
        for name in _TOGETHER:
            if given[name] is not None:
                raise UsageError(f"--{name} goes with --together")
    if not together and at is None:
        if given["within"] is not None:
            raise UsageError("--within goes with --together or --at")
        return None
    within = {} if given["within"] is None else {"within": given["within"]}
    if at is not None:
        return Wish(at=instant(at, now), keys=within)
    if boards == 1:
        raise UsageError("--together is for several boards", "pi1,pi2 or @lab1; or --at TIME")
    need = given["need"]
    if boards and need is not None and need > boards:
        raise UsageError(f"--need {need}, and there are {boards} boards")
    keys = {"together": True, "need": need or (boards or None)} | within
    keys |= {"wait": given["wait"], "lead": given["lead"]}
    return Wish(True, keys={name: value for name, value in keys.items() if value is not None})


def instant(text: str, now: float) -> float:
    """The next time that it is so; Unix seconds. Raises ``UsageError``."""
    wrong = UsageError(f"{text!r} is no time", f"such as {FORMS}")
    if text.startswith("+"):
        try:
            seconds = float(text)
        except ValueError:
            raise wrong from None
        if not 0 <= seconds <= START_AHEAD_S:
            raise UsageError(f"{text}: at most a day ahead", f"+{START_AHEAD_S:.0f}")
        return now + seconds
    if found := _TIME.fullmatch(text):
        hour, minute, second = int(found[1]), int(found[2]), float(found[3] or 0)
        if hour > 23 or minute > 59 or second >= 60:
            raise wrong
        day = datetime.datetime.fromtimestamp(now).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        today = day.replace(hour=hour, minute=minute) + datetime.timedelta(seconds=second)
        if today.timestamp() <= now:
            today += datetime.timedelta(days=1)
        return today.timestamp()
    try:
        moment = datetime.datetime.fromisoformat(text)
        if len(text) <= len("2026-12-01"):
            raise wrong
        at = moment.timestamp()  # without a zone it is this machine's
    except (ValueError, OverflowError, OSError):
        raise wrong from None
    if at <= now:
        raise UsageError(f"{text} is past", f"such as {FORMS}")
    if at > now + START_AHEAD_S:
        raise UsageError(f"{text} is more than a day ahead", "a start may be a day ahead at most")
    return at


def in_lab_time(
    operator: Client, wanted: Wish, on_received: OnReceived = lambda _: None
) -> tuple[dict[str, Any], str]:
    """The request's key ``start``, and what was understood, for people.

    ``on_received`` is given everything that comes meanwhile. Raises ``NoCoordinator`` where nobody
    says how lab time stands, ``UsageError`` where it is past by then.
    """
    keys = dict(wanted.keys or {})
    if wanted.at is None:
        return keys, ""
    ahead = operator.wait(asking_ahead(operator, operator.ask_coordinator, on_received))
    now = time.time()
    return _converted(keys, wanted.at, now + ahead, now)


def _converted(
    keys: dict[str, Any], at: float, lab: float, now: float
) -> tuple[dict[str, Any], str]:
    there = at + (lab - now)
    shown = datetime.datetime.fromtimestamp(at).astimezone()
    if at <= now:
        said = f"the start was to be at {shown:%H:%M:%S}, and that is past by now"
        raise UsageError(said, "a start needs a moment: --at +2")
    said = f"the start is at {shown:%Y-%m-%d %H:%M:%S}"
    said += f".{shown.microsecond:06}".rstrip("0") if shown.microsecond else ""
    tomorrow = shown.date() > datetime.datetime.fromtimestamp(now).date()
    said += f" {shown:%Z}, {'tomorrow, ' if tomorrow else ''}in {_ahead(at - now)}"
    if abs(lab - now) > DIFFERS_S:
        said += f"; lab time is {abs(lab - now):.1f} s {'ahead' if lab > now else 'behind'}"
    return keys | {"at": round(there, 6)}, said


def _ahead(seconds: float) -> str:
    """How long from now, for people."""
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
