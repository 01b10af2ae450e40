"""What is known of each board of a batch, and how it is said in a line.

The law: nothing is asked and nothing is printed here. What a board's own status or result says is
more than what the group's status says of it, and an end that was heard is never taken back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hwsync.logs import escape
from hwsync.protocol.batch import NOT_BEGUN, apart
from hwsync.protocol.errors import Code
from hwsync.protocol.limits import DEFAULT_START_LEAD_S
from hwsync.protocol.record import State, Verb
from hwsync.protocol.wire.group import BatchFields
from hwsync.protocol.wire.status import CommandFields

MOST_REASONS: Final = 20  # lines of a summary
MANY: Final = 2  # boards, from which on there is something between them
MOST_NAMES: Final = 12  # names in such a line
LONGEST_WORD: Final = 160  # characters of a program's last line of errors
KINDS: Final = ("ok", "failed", "cancelled", "not begun", "left out", "refused", "missing", "open")
"""What became of a board, in the order of a summary; ``open``: that is not known."""
WHY: Final[Mapping[str, str]] = {
    Code.BUSY: "something runs or waits there (--queue waits behind it)",
    Code.QUEUE_FULL: "its queue is full",
    Code.ID_REUSED: "it had this id before",
    Code.NOT_ALLOWED: "that is not allowed there",
    Code.MISSING: "it is offline",
}
"""Of a refusal, where nobody has said it in a sentence."""


@dataclass(slots=True)
class Member:
    """One board; ``told``: by the group's status, ``fields``: by its own status or result."""

    user: str
    online: bool | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    fields: CommandFields | None = None
    refused: str = ""  # a code
    message: str = ""  # of the refusal
    began: float | None = None  # when it was seen to run, or is to; on the clock of who looks on
    line: str = ""  # the last one that its program has written
    ready: bool = False  # its board has had the program
    starts: bool = False  # it begins at an instant, not when it has the program

    def get(self, name: str) -> Any:
        """A field of its end, whoever said it."""
        own = self.fields.get(name) if self.fields is not None else None
        return self.told.get(name) if own is None else own

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if self.refused:
            return "missing" if self.refused == Code.MISSING else "refused"
        outcome, reason = self.get("outcome"), str(self.get("reason") or "")
        if outcome is None:
            return "open"
        if self.get("command") == Verb.LEFT_OUT:
            return "left out"
        if outcome == "expired" or reason.startswith(NOT_BEGUN):
            return "not begun"
        return outcome if outcome in ("ok", "cancelled") else "failed"

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.kind != "open"

    @property
    def complaint(self) -> str:
        """The last line of errors of a program that has failed, as it is known."""
        if self.fields is None or self.get("outcome") != "error":
            return ""
        return str(self.fields["stderr"]).rstrip().rpartition("\n")[2].strip()[:LONGEST_WORD]

    @property
    def reason(self) -> tuple[str, str]:
        """What became of it, in a word and in more, with what its program complained of."""
        word, more = self.words(0.0, alike=True)
        return word, ": ".join(filter(None, (more, self.complaint)))

    def words(self, now: float | None, *, alike: bool = False) -> tuple[str, str]:
        """How it stands, in a word and in more; ``now``: on the clock of ``began``; None: none.

        ``alike``: without what is different on each board.
        """
        if self.refused:
            return self.kind, self.message or WHY.get(self.refused, self.refused)
        outcome = self.get("outcome")
        if outcome is not None:
            return str(outcome), self._end(alike=alike)
        state = self.get("state")
        if state == State.COLLECTED:
            return self._running(now)
        if self.get("queued"):
            return "queued", f"place {self.get('queued')}"
        if state == State.REQUESTED:
            return "waiting", "offline" if self.online is False else ""
        return "asked", "offline" if self.online is False else ""

    def _running(self, now: float | None) -> tuple[str, str]:
        """Its board has it: it runs, or is ready to begin at an instant."""
        if self.fields is not None and self.fields.get("cancelling"):
            return "ending", self.line
        if self.starts and self.began is None:
            return "ready", ""
        if now is None or self.began is None:
            return "running", self.line
        if self.starts and now < self.began:
            return "ready", f"starts in {math.ceil(self.began - now)} s"
        return f"running {now - self.began:.0f} s", self.line

    def _end(self, *, alike: bool = False) -> str:
        """In a few words, how it ended; ``alike``: without what is different on each board."""
        parts = []
        code, duration = self.get("exit_code"), self.get("duration")
        if self.get("reason"):
            parts.append(str(self.get("reason")))
        elif code is not None:
            parts.append(f"exit {code}")
        if duration is not None and not alike:
            parts.append(f"in {duration:.2f} s")
        if self.kind not in ("ok", "left out", "not begun") and self.get("ran") != "yes":
            parts.append(f"(ran: {self.get('ran')})")
        late = self.get("start_error")
        if late is not None and not alike:
            bound = self.get("clock_bound")
            give = "" if bound is None else f" ± {_small(bound)}"
            parts.append(f"started {_small(late)}{give} after the instant")
        return " ".join(parts) + (f"  {self.line}" if self.line and not alike else "")


class Members:
    """All boards of one batch with that id, in the order in which they were named."""

    def __init__(self, id: str, users: Iterable[str] = ()) -> None:
        self.id = id
        self.by_user = {user: Member(user) for user in users}
        self._starts, self._lead = False, 0.0
        self._at: float | None = None  # the instant, on the clock of ``Member.began``
        self._spread: Mapping[str, Any] | None = None  # as the group's status says

    def of(self, user: str) -> Member:
        return self.by_user.setdefault(user, Member(user, starts=self._starts, began=self._at))

    def start(self, at: float | None = None, *, lead: float = DEFAULT_START_LEAD_S) -> None:
        """They begin at one instant; ``at``: on the clock of who looks on.

        None: it is not named yet, and is then ``lead`` seconds ahead.
        """
        self._starts, self._at, self._lead = True, at, lead
        for member in self.by_user.values():
            member.starts, member.began = True, at

    @property
    def spread(self) -> Mapping[str, Any] | None:
        """How far apart they began; None: there was no start."""
        if self._spread is not None:
            return self._spread
        released = [one for one in self.by_user.values() if one.get("start_error") is not None]
        times = [float(one.get("started")) for one in released if one.get("started") is not None]
        if len(times) < MANY:
            return None
        lives = {one.get("start_life") for one in released}
        known = len(lives) == 1 and len(times) == len(released)
        bounds = (float(one.get("clock_bound") or 0.0) for one in released)
        seconds, bound = apart(times, bounds)
        return {"n": len(released), "seconds": seconds if known else None,
                "bound": bound if known else None}  # fmt: skip

    def hear_fields(self, user: str, fields: CommandFields, now: float) -> bool:
        """A status or result of a board; whether it is of this batch, and news."""
        if user not in self.by_user or fields["id"] != self.id:
            return False
        member = self.by_user[user]
        if member.refused:  # it is another command of that id
            return False
        if member.fields is not None and member.fields["outcome"] and not fields["outcome"]:
            return False
        member.fields = fields
        member.ready |= fields["state"] == State.COLLECTED
        runs = fields["state"] == State.COLLECTED
        if runs and member.began is None and not (member.starts and fields.get("start_at") is None):
            member.began = now + self._lead
        return True

    def hear_batch(self, batch: BatchFields, now: float) -> None:
        """The group's status. Where there are too many for it, those that are left out ended ok."""
        for user, told in batch["members"].items():
            member = self.of(user)
            member.told = told
            member.refused = str(told.get("refused") or "")
            member.ready |= told.get("state") == State.COLLECTED
            if told.get("state") == State.COLLECTED and not member.starts:
                member.began = now if member.began is None else member.began
        if len(batch["members"]) < batch["counts"].get("members", 0):
            for user, member in self.by_user.items():
                if user not in batch["members"] and not member.is_over:
                    member.told = {"outcome": "ok", "ran": "yes"}
        spread = batch.get("spread")
        self._spread = spread if isinstance(spread, dict) else None

    @property
    def counts(self) -> Counter[str]:
        """How many there are of each kind."""
        return Counter(member.kind for member in self.by_user.values())

    @property
    def exit_code(self) -> int:
        """0 where all are ok, 125 where none was accepted, else 1."""
        kinds = set(self.counts)
        if kinds <= {"ok"}:
            return 0
        return 125 if kinds <= {"refused", "missing"} else 1

    def summary(self, name: str, *, brief: bool = False) -> list[str]:
        """Lines for people: the counts, the spread, and who is not ok, the same ones together.

        ``brief``: without these.
        """
        counts = self.counts
        said = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
        lines = [f"{name}: {said or 'no board'}"]
        if spread := spread_line(self.spread):
            lines.append(spread)
        if brief:
            return lines
        bad = [member for member in self.by_user.values() if member.kind != "ok"]
        alike = _alike((member.user, member.reason) for member in bad)
        if len(alike) > MOST_REASONS:  # each of which says something else
            alike = _alike((member.user, member.words(0.0, alike=True)) for member in bad)
        for (word, more), users in list(alike.items())[:MOST_REASONS]:
            lines.append(f"  {word:10} {some(users)}{': ' if more else ''}{escape(more)}")
        if len(alike) > MOST_REASONS:
            lines.append(f"  … and {len(alike) - MOST_REASONS} other reasons")
        left = [one for one in self.by_user.values() if self._starts and one.kind == "left out"]
        late = [one.user for one in left if not one.ready]
        if late and len(late) < len(left):  # these made it impossible for the others
            lines.append(f"  not ready  {some(late)}")
        if spread:
            lines.append(f"to see it: hwsync sync {self.id}")
        return lines


def _alike(reasons: Iterable[tuple[str, tuple[str, str]]]) -> dict[tuple[str, str], list[str]]:
    """By reason, whose it is."""
    found: dict[tuple[str, str], list[str]] = {}
    for user, reason in reasons:
        found.setdefault(reason, []).append(user)
    return found


def some(users: list[str]) -> str:
    """The names, as many as a line has room for."""
    more = f" and {len(users) - MOST_NAMES} more" if len(users) > MOST_NAMES else ""
    return ", ".join(users[:MOST_NAMES]) + more


def spread_line(spread: Mapping[str, Any] | None) -> str:
    """How far apart the boards began; empty where there was no start."""
    if spread is None or not spread.get("n"):
        return ""
    if spread["n"] == 1:  # which is apart from nobody
        return "1 started"
    if spread.get("seconds") is None:
        return f"{spread['n']} started; how far apart is not known"
    bound = spread.get("bound")
    give = "" if bound is None else f", give or take {_small(bound)}"
    return f"{spread['n']} started within {_small(spread['seconds'])}{give}"


def start_line(end: Mapping[str, Any]) -> str:
    """How exactly one board began at its instant; empty where it was to begin at none."""
    late, bound = end.get("start_error"), end.get("clock_bound")
    if late is None:
        return ""
    when = f"{_small(abs(late))} {'before' if late < 0 else 'after'} the instant"
    return f"it began {when}{'' if bound is None else f', give or take {_small(bound)}'}"


def _small(seconds: float) -> str:
    """A length of time as ``hwsync sync`` says it: milliseconds, where it is less than a second."""
    return f"{seconds:.3f} s" if abs(seconds) >= 1.0 else f"{seconds * 1e3:.3f} ms"


def online_line(member: Member, now: float | None = None) -> str:
    """One line of ``hwsync status @lab1``; ``now``: as of ``Member.words``."""
    word, more = member.words(now) if member.told or member.refused else ("", "")
    online = {True: "online", False: "offline", None: "unknown"}[member.online]
    return f"{member.user:20} {online:8} {word:12} {more}".rstrip()
