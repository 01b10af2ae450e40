"""Why a board or a command stands as it does, in a few sentences for people: ``hwsync why``.

The law: nothing is asked here and nothing is printed. All follows from what the coordinator said:
of the record, of the command, of itself, and of whom it hears. Each cause has a word of its own
(``kind``) for programs; where nothing says why, the next place to look is named.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from hwsync.cli import say, verdicts
from hwsync.cli.ends import ended
from hwsync.protocol.admission import CLAIM
from hwsync.protocol.jsons import is_number, loads
from hwsync.protocol.limits import DEFAULT_NAME
from hwsync.protocol.presence import is_online, silence
from hwsync.protocol.record import Outcome, State, Verb
from hwsync.protocol.wire.heartbeat import Heartbeat
from hwsync.protocol.wire.itself import Boards, Condition, Health

Json = Mapping[str, Any]

BEGINS: Final = re.compile(r"(^|[.?!] )the program")  # a sentence
KINDS: Final = (
    *("rest", "never seen", "offline", "refusing", "sent", "not taken", "device is busy"),
    *("queued", "waits for its batch", "waits for others", "instant", "running", "overdue"),
    *("cancelling", "by hand", "returned", "no broker", "no coordinator", "degraded"),
    *map(str, Outcome),
)
"""Each cause's word, for programs."""
MOMENT_S: Final = 10.0  # within which a device that is there has taken a program
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Cause:
    """What happened, what is waited for, whether it ran, what to do; sentences, or empty.

    ``ran``: as in a status, None where it is open; ``do``: lines to type, or to be done.
    """

    kind: str
    happened: str
    waits_for: str = ""
    ran: str | None = None
    do: tuple[str, ...] = ()

    @property
    def sentences(self) -> str:
        """All of it but what to do."""
        ran = {"no": "It did not run.", "maybe": "It may have run: nobody can know."}
        said = " ".join(filter(None, (self.happened, self.waits_for, ran.get(self.ran or ""))))
        return BEGINS.sub(r"\1The program", said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known of one board; ``now``: Unix seconds of the coordinator's clock.

    ``record``: its status. ``command``: the result of the command that is asked about, ``current``:
    that of the record's own. ``boards`` and ``health``: None where no coordinator answers;
    ``said``: what the broker keeps of its health. ``names``: boards that there are. ``may_judge``:
    whether who asks has that right; None: nobody says so.
    """

    user: str
    now: float
    record: Json | None = None
    command: Json | None = None
    current: Json | None = None
    beat: Heartbeat | None = None
    boards: Boards | None = None
    health: Health | None = None
    said: Health | None = None
    names: tuple[str, ...] = ()
    may_judge: bool | None = True

    @property
    def online(self) -> bool | None:
        """Whether the board is; None: nobody can say."""
        return is_online(self.user, self.beat, self.boards)

    @property
    def never_seen(self) -> bool:
        """Whether no device of this name was ever heard, and nobody has answered by hand."""
        listed = self.boards is not None and self.user in self.boards["boards"]
        return self.beat is None and not listed and not was_answered(self.record)

    @property
    def since(self) -> float | None:
        """For how many seconds nothing was heard of it; None: not known, or it is online."""
        if self.boards is None or self.online is not False:
            return None
        if self.boards["boards"].get(self.user) is not None:
            return silence(self.user, self.boards)
        gone: Any = self.boards.get("gone")
        seconds: Any = gone.get(self.user) if isinstance(gone, dict) else None
        return seconds if is_number(seconds) and seconds >= 0 else None

    @property
    def presence(self) -> str:
        """In words that follow "is"."""
        online = self.online
        if online is None:
            return "online or not: nobody can say"
        if online:
            return "online"
        since = self.since
        return "offline" if since is None else f"offline since {ago(self.now - since, self.now)}"

    @property
    def lab_now(self) -> float | None:
        """Lab time; None: nobody says it."""
        health: Json = self.health or {}
        at: Any = health.get("time")
        lab: Any = health.get("lab_time")
        return lab + (self.now - at) if is_number(at) and is_number(lab) else None


def explain(known: Situation, *, of_board: bool = False) -> Cause:
    """``of_board``: the board was asked about, and not one of its commands."""
    if known.health is None:
        return _without_coordinator(known, of_board=of_board)
    cause = _board(known) if of_board else _command(known)
    if known.health["condition"] == Condition.DEGRADED:
        why = str(known.health.get("reason") or "its disk takes nothing")
        return Cause(
            "degraded",
            f"The coordinator cannot save anything now ({why}), so nothing moves: what is sent to "
            f"it waits at the broker. {cause.happened}",
            cause.waits_for,
            cause.ran,
            ("make space on the coordinator's machine, or mend its disk: df -h", *cause.do),
        )
    return cause


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that a person may have meant; empty: none is near."""
    return next(iter(get_close_matches(name, sorted(names), 1, 0.5)), "")


def busy(known: Situation, *, progress: bool = True) -> str:
    """What a board is busy with, in the words of who is refused for it."""
    told = known.current
    if told is None or not known.record:
        return ""
    how_far = _progress(known, told) if progress else ""
    return f"{known.user} is busy with {what(told)}{how_far}"


def what(told: Json) -> str:
    """A command as people know it: whose it is, and the name of its file."""
    who, name = _by(told), told.get("name") or ""
    name = "program" if name in ("", DEFAULT_NAME) else name
    return f"{who}'s {name}" if who else f"the program {name}".removesuffix(" program")


def ago(then: float, now: float) -> str:
    """A moment that is past, by the time of day: 14:30 (25 minutes ago)."""
    form = "%H:%M" if now - then < DAY_S / 2 else "%Y-%m-%d %H:%M"
    return f"{time.strftime(form, time.localtime(then))} ({say.span(max(now - then, 0.0))} ago)"


# -- the board, or nobody ------------------------------------------------------------------------


def _without_coordinator(known: Situation, *, of_board: bool) -> Cause:
    said: Json = known.said or {}
    ended_how: dict[str, str] = {
        Condition.STOPPED: "It was stopped",
        Condition.GONE: "It was killed, or its connection is lost",
    }
    how = ended_how.get(said.get("condition", ""), "")
    at: Any = said.get("time")
    last = f"{how}. " if how else ""
    if is_number(at):
        last += f"It was last heard at {ago(at, known.now)}. "
    before = ""
    if known.record and known.record.get("id"):
        state = State(known.record["state"])
        before = (
            f"When it was last there, {known.user} was in state {int(state)} "
            f"({state.name.lower()}) with {known.record['id']}."
        )
    return Cause(
        "no coordinator",
        f"No coordinator answers, so nothing is accepted and nothing moves. {last}{before}".strip(),
        "What is sent now waits at the broker until one is there.",
        None,
        ("on its machine: systemctl status hwsync-coordinator", f"hwsync doctor {known.user}"),
    )


def _never_seen(known: Situation) -> Cause:
    near = nearest(known.user, known.names)
    meant = f" Did you mean {near}?" if near else ""
    asked = bool(known.record and known.record["state"] == State.REQUESTED)
    waits = _until(known, "expired") if asked else ""
    happened = f"No device called {known.user} was ever heard.{meant}"
    if asked:
        happened += f" {_named(known, known.current or known.record)} waits for one."
    do = [f"hwsync cancel {known.user}"] if asked else []
    do += ["hwsync status lists the boards", f"on the board: hwsync-device --user {known.user}"]
    return Cause("never seen", happened, waits, None, tuple(do))


def _board(known: Situation) -> Cause:
    record = known.record
    if known.never_seen and (record is None or record["state"] <= State.REQUESTED):
        return _never_seen(known)
    if record is None or not record["id"]:
        return Cause(
            "rest",
            f"{known.user} is {known.presence}, and was never asked for anything.",
            *("", None, (f"hwsync run {known.user} FILE",)),
        )
    if record["state"] != State.REST:
        cause = _command(known)
        if record["queued"]:
            return replace(cause, waits_for=f"{cause.waits_for} {_behind(record)}".strip())
        return cause
    last = _command(known)
    rest = f"{known.user} is {known.presence}, and at rest: it waits for a program."
    if _refusing(known):
        rest += f" But it refuses whatever it is sent: {_refusing(known)}."
    do = last.do or (f"hwsync run {known.user} FILE",)
    return Cause("rest", f"{rest} The last one: {last.happened}", last.waits_for, last.ran, do)


def _behind(record: Json) -> str:
    many = record["queued"]
    return f"{many} {'request waits' if many == 1 else 'requests wait'} behind it."


# -- one command ---------------------------------------------------------------------------------


def _command(known: Situation) -> Cause:
    """The one that is asked about, else the record's own."""
    told = known.command or known.current or known.record
    record: Json = known.record or {"id": "", "state": 0, "command": ""}
    assert told is not None
    own = told["id"] == record["id"]
    if told["outcome"] is not None:
        moved = str(record["command"]) if own else ""
        cause = _with_presence(known, ended(_named(known, told), told, left_out=moved))
        if own and record["state"] == State.RETURNED:
            return _unanalysed(known, told, cause)
        return _with_verdict(told, cause)
    if not own:
        return _waiting(known, told)
    if record["state"] == State.REQUESTED:
        return _requested(known, told)
    return _collected(known, told)


def _with_presence(known: Situation, end: tuple[str, str, tuple[str, ...]]) -> Cause:
    kind, happened, do = end
    told = known.command or known.current or known.record
    assert told is not None
    if kind in ("expired", "lost", "interrupted") and known.never_seen:
        near = nearest(known.user, known.names)
        happened += f" No device called {known.user} was ever heard."
        happened += f" Did you mean {near}?" if near else ""
    elif kind in ("expired", "lost") and known.online is False:
        happened += f" {known.user} is {known.presence}."
        do = (f"switch {known.user} on, or look at its network", *do)
    return Cause(kind, happened, "", told["ran"], do)


def _with_verdict(told: Json, cause: Cause) -> Cause:
    """What an analyst said of it, or why nobody did; a person's words stand in the record."""
    if told.get("analysed_by") is None and not told.get("no_analysis"):
        return cause
    said = verdicts.first(told)
    said = f"It has no analysis: {told['no_analysis']}" if said.startswith("none: ") else said
    return replace(cause, happened=f"{cause.happened} {said}{'' if said.endswith('.') else '.'}")


def _unanalysed(known: Situation, told: Json, cause: Cause) -> Cause:
    analyser = told.get("analyser") or "manual"
    whose = "somebody's analysis" if analyser == "manual" else f"the analyser {analyser}"
    record: Json = known.record or {}
    if nobody := record.get("no_analysis"):
        whose += f", and {nobody} now"
    line = f"hwsync analyse {known.user} TEXT --id {told['id']}"
    ends = _until(known, "")
    return replace(
        cause,
        kind="returned",
        waits_for=f"Its result waits for {whose}, and {known.user} takes nothing else until then. "
        f"{ends}".strip(),
        do=(verdicts.for_one(line, known.may_judge), *cause.do),
    )


def _waiting(known: Situation, told: Json) -> Cause:
    """It has not begun, and something else is in front of it."""
    cancel = f"hwsync cancel {known.user} {told['id']}"
    named, place = _named(known, told), told.get("queued") or 0
    if not place:
        return Cause(
            "waits for its batch",
            f"{named} waits for its place in its batch: other boards of it run first, or "
            f"{known.user} has something else to do.",
            *("It begins when there is one.", None, (cancel,)),
        )
    front = known.current or known.record
    before = ""
    if front is not None and known.record and known.record["state"] != State.REST:
        before = f" {known.user} has {what(front)} now{_progress(known, front)}."
    where = "next in the queue" if place == 1 else f"in the queue, at place {place}"
    do = (cancel, f"hwsync why {known.user} says what holds it up")
    return Cause("queued", f"{named} is {where} of {known.user}.{before}", "", None, do)


def _requested(known: Situation, told: Json) -> Cause:
    record = known.record
    assert record is not None
    user, id = known.user, told["id"]
    named, cancel = _named(known, told), f"hwsync cancel {user} {id}"
    ends = _until(known, "expired")
    if known.never_seen:
        return _never_seen(known)
    if known.online is False:
        return Cause(
            "offline",
            f"{named} was sent, and {user} is {known.presence}.",
            f"It waits for {user} to come back. {ends}".strip(),
            *(None, (f"switch {user} on, or look at its network", cancel)),
        )
    if refusing := _refusing(known):
        happened = f"{user} refuses whatever it is sent: {refusing}."
        return Cause("refusing", f"{named} was sent. {happened}", ends, None,
                     (f"hwsync doctor {user}", cancel))  # fmt: skip
    other = known.beat.get("busy") if known.beat else None
    if other and other != id:
        return Cause(
            "device is busy",
            f"{named} was sent, and the device of {user} is still at work on {other}.",
            f"It takes this one when that has ended. {ends}".strip(),
            *(None, (cancel,)),
        )
    at = _instant(known, told)
    asked = known.now - record["time"]
    if at and asked < MOMENT_S:
        return Cause("instant", f"{named} is to begin {at}, and {user} prepares it.", "", None,
                     (cancel,))  # fmt: skip
    if asked < MOMENT_S:
        return Cause("sent", f"{named} was sent {say.span(max(asked, 0.0))} ago, and {user} is "
                     f"{known.presence}.", "It takes a moment.", None, (cancel,))  # fmt: skip
    return Cause(
        "not taken",
        f"{named} was sent {say.span(asked)} ago. {user} is {known.presence} and has not taken it.",
        *(ends, None, (f"hwsync doctor {user}", cancel)),
    )


def _collected(known: Situation, told: Json) -> Cause:
    record = known.record
    assert record is not None
    user, named, cancel = known.user, _named(known, told), f"hwsync cancel {known.user}"
    ends = _until(known, "lost")
    if record["cancelling"]:
        return Cause("cancelling", f"{named} was cancelled, and {user} has not said yet that it "
                     "ended: a program may take some seconds for that.", ends, None,
                     (f"hwsync reset {user} waits no longer",))  # fmt: skip
    if record["journal"] is None:
        return Cause("by hand", f"{named} was collected by a person, who is to answer.", ends, None,
                     (f"mosquitto_pub -q 1 -t hw/{user}/response -m TEXT", cancel))  # fmt: skip
    if known.online is False:
        return Cause(
            "offline",
            f"{user} took {named}, and is {known.presence} since." if known.since is None
            else f"{user} took {named}, and is {known.presence}.",
            f"Its result comes when {user} is back. {ends}".strip(),
            *(None, (f"switch {user} on, or look at its network", cancel)),
        )  # fmt: skip
    start: Any = told.get("start")
    if record["start_at"] is None and isinstance(start, dict):
        return Cause(
            "waits for others",
            f"{named} is ready on {user}, and is to begin together with other boards.",
            f"It waits until all are ready, {start.get('wait', 5):g} s at most.",
            *(None, (cancel,)),
        )
    if at := _instant(known, told):
        return Cause("instant", f"{named} is ready on {user}, and begins {at}.", "", None,
                     (cancel,))  # fmt: skip
    over = _is_over(known, told)
    if over:
        return Cause("overdue", f"{user} took {named}{_progress(known, told)}: its time is over, "
                     "and no answer came.", ends, None,
                     (f"hwsync doctor {user}", cancel))  # fmt: skip
    return Cause("running", f"{user} runs {named}{_progress(known, told)}.",
                 "It ends by itself, at the latest when its time is over.", None,
                 (cancel,))  # fmt: skip


# -- words ---------------------------------------------------------------------------------------


def _named(known: Situation, told: Json | None) -> str:
    """With its id, where a person may need it."""
    assert told is not None
    return f"{what(told)} ({told['id']})"


def _by(told: Json) -> str:
    meta = told.get("meta")
    try:
        said: Any = loads(meta) if isinstance(meta, str) else {}
    except ValueError:
        return ""
    who = said.get(CLAIM) if isinstance(said, dict) else None
    return who if isinstance(who, str) else ""


def _progress(known: Situation, told: Json) -> str:
    """How far the record's own command is: (3 s of 10)."""
    record = known.record
    if record is None or told["id"] != record["id"]:
        return ""
    state, since = State(record["state"]), max(known.now - record["time"], 0.0)
    if state is State.REQUESTED:
        return f" (sent {say.span(since)} ago, not begun)"
    if state is State.RETURNED:
        return ", which waits for its analysis"
    if record["cancelling"]:
        return " (being cancelled)"
    limit = told.get("timeout")
    return f" ({since:.0f} s of {limit:g})" if is_number(limit) else f" ({since:.0f} s)"


def _is_over(known: Situation, told: Json) -> bool:
    limit: Any = told.get("timeout")
    record = known.record
    if not is_number(limit) or record is None or record["command"] != Verb.RETRIEVAL:
        return False
    return bool(record["start_at"] is None and known.now - record["time"] > limit + MOMENT_S)


def _instant(known: Situation, told: Json) -> str:
    """When it begins, where that is still to come: at 14:30:05 (in 12 s)."""
    at: Any = told.get("start_at")
    lab = known.lab_now
    if not is_number(at) or lab is None or at <= lab:
        return ""
    there = known.now + (at - lab)
    return f"at {time.strftime('%H:%M:%S', time.localtime(there))} (in {say.span(at - lab)})"


def _until(known: Situation, outcome: str) -> str:
    """When the record's state ends by itself."""
    record = known.record
    assert record is not None
    deadline = record["deadline"]
    as_what = f" as {outcome}" if outcome else ""
    if deadline is None:
        return "Nothing ends that by itself."
    if deadline <= known.now:
        return f"Its time is over: it ends{as_what} in a moment."
    return f"Else it ends{as_what} in {say.span(deadline - known.now)}."


def _refusing(known: Situation) -> str:
    return str(known.beat.get("refusing") or "") if known.beat and known.online else ""


def was_answered(record: Json | None) -> bool:
    """Whether somebody has ever answered for the board with this status: a device, or a person."""
    if not record:
        return False
    return bool(record["settled"] or record["journal"] or record["ran"] == "yes"
                or record["state"] >= State.COLLECTED)  # fmt: skip
