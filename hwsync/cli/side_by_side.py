"""The boards of one batch beside each other, afterwards: what each has answered, or why it has not.

The law: it asks, and moves nothing. Who was refused stands in the group's own status. What a board
has written is its result, or, where this account may not ask it, the status that the broker keeps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwsync.cli import page, say
from hwsync.cli.common import Settings, own_words
from hwsync.cli.members import Member, Members, some
from hwsync.cli.rows import Lines
from hwsync.cli.screen import Screen
from hwsync.cli.slow import say_slow
from hwsync.cli.targets import Target
from hwsync.operator.batch import asking_one, overhearing
from hwsync.operator.client import Client
from hwsync.operator.conversation import EVERYBODY
from hwsync.operator.streams import Streams
from hwsync.protocol.errors import Code, NotFound, Refused, Unreachable
from hwsync.protocol.limits import DEFAULT_NAME
from hwsync.protocol.wire.group import BatchFields
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import Status

WORD: Final = 10  # characters of what became of a board, in a line


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch; ``name``: whose it is, as it would be typed."""

    name: str
    members: Members

    @property
    def first(self) -> Mapping[str, Any]:
        """What is the same of all, as one of the boards has it; empty: no board has taken it."""
        told = [one.fields for one in self.members.by_user.values() if one.fields is not None]
        whole = [one for one in told if not one["truncated"]]
        return next(iter(whole or told), {})

    @property
    def headline(self) -> str:
        """``measure.py on @lab1: 3 ok, 1 failed``."""
        said, *_ = self.members.summary(self.name, brief=True)
        first = self.first
        return f"{first.get('name') or DEFAULT_NAME} on {said}" if first else said


def of_group(settings: Settings, target: Target, id: str | None) -> Seen:
    """The group's batch with that id; None: its newest. Raises ``NotFound``, ``HwsyncError``."""
    kept: dict[str, Status] = {}
    users: dict[str, bool | None] = {}

    def hear(came: Received) -> None:
        if came.status is not None:
            kept[came.user] = came.status
        elif came.members is not None and came.user == target.user:
            users.update(came.members["members"])

    named = (target.user, EVERYBODY)
    with Client(settings.url, settings.topics, EVERYBODY, named=named) as operator:
        operator.standing.slow = say_slow
        operator.switchboard.begin(overhearing(operator.conversation(EVERYBODY), hear))
        batch = _batch(operator, target, id)
        cut = len(batch["members"]) < batch["counts"].get("members", 0)
        members = Members(batch["id"], users if cut else batch["members"])
        members.hear_batch(batch, time.monotonic())
        for user, online in users.items():
            if user in members.by_user:
                members.of(user).online = online
        asked = [one.user for one in members.by_user.values() if not one.refused]
        _ask_each(operator, members, asked)
    for user in asked:
        if members.of(user).fields is None and user in kept:
            members.hear_fields(user, kept[user], time.monotonic())
    return Seen(str(target), members)


def _batch(operator: Client, target: Target, id: str | None) -> BatchFields:
    try:
        return operator.wait(asking_one(operator.conversation(target.user), id))
    except Refused as refusal:
        if refusal.code is not Code.NOT_CURRENT:
            raise
        hint = f"hwsync run {target} FILE gives it one; hwsync status {target} shows its boards"
        raise NotFound(refusal.message, hint) from None


def of_boards(settings: Settings, users: Iterable[str], id: str) -> Seen:
    """The command of that id of each of these boards. Raises ``HwsyncError`` where none says it."""
    members = Members(id, users)
    users = tuple(members.by_user)
    with Client(settings.url, settings.topics, users[0], named=users) as operator:
        operator.standing.slow = say_slow
        wrong = _ask_each(operator, members, users)
    if len(wrong) == len(users):
        raise wrong[0]
    return Seen(some(list(users)), members)


def _ask_each(
    operator: Client, members: Members, users: Iterable[str]
) -> list[Refused | Unreachable]:
    """All of what each has written; what came of those that do not say it."""
    talks = {
        user: operator.switchboard.begin(operator.conversation(user).querying(members.id))
        for user in users
    }
    wrong = list[Refused | Unreachable]()
    for user, talk in talks.items():
        try:
            members.hear_fields(user, operator.wait_for(talk), time.monotonic())
        except (Refused, Unreachable) as error:  # it may be no right of ours
            wrong.append(error)
    return wrong


# -- what is said ----------------------------------------------------------------------------------


def bad_ones(seen: Seen) -> Iterator[str]:
    """A line for each board that is not ok: who, and why."""
    bad = [one for one in seen.members.by_user.values() if one.kind != "ok"]
    width = max((len(one.user) for one in bad), default=0)
    for one in bad:
        word, more = one.reason
        yield f"  {one.user:{width}}  {word:{WORD}} {more}".rstrip()


def as_json(seen: Seen) -> Iterator[dict[str, Any]]:
    """One object for each board: its result, or what is known of it."""
    for user, member in seen.members.by_user.items():
        fields: dict[str, Any] = dict(member.fields or member.told)
        yield {**fields, "user": user, "refused": member.refused or None,
               "message": own_words(member.message) or None}  # fmt: skip


def show(seen: Seen, *, raw: bool = False) -> None:
    """The page: below each board's name what it has written, on whatever stream; the program."""
    first = seen.first
    say.line(seen.headline)
    for line in page.common(first, time.time()) if first else ():
        say.line(line)
    for member in seen.members.by_user.values():
        word, more = member.words(0.0, alike=True)
        say.line(f"--- {member.user}: {word}{', ' if more else ''}{more}")
        _show_output(member, raw=raw)
    if first.get("hw_command"):
        say.line("--- program")
        for line in first["hw_command"].rstrip("\n").split("\n"):
            say.line(line)


class _OneStream:
    """A ``Sink`` (``operator.streams``): both streams as one, which ends with a line's end."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._open = screen, False

    def program(self, _: str, text: str) -> None:
        self._screen.program("stdout", text)
        self._open = not text.endswith("\n") if text else self._open

    def note(self, _: str, text: str) -> None:
        self._screen.note("stdout", text)
        self._open = False

    def end(self) -> None:
        if self._open:
            self.program("stdout", "\n")


def _show_output(member: Member, *, raw: bool) -> None:
    if member.fields is None:
        return
    screen = Screen(raw=raw)
    sink = _OneStream(screen)
    Streams(member.fields["id"], sink).finish(member.fields)
    sink.end()
    screen.end()
    if member.fields["truncated"]:
        say.line("--- only the beginning and the end of its output are kept")


def show_output(seen: Seen) -> None:
    """What they have written and nothing else, each line with its board before it, as ``run``."""
    if sys.stdout is not None:
        sys.stdout.flush()
    for user, member in seen.members.by_user.items():
        if member.fields is not None:
            lines = Lines(user, show=True, on_line=lambda _: None)
            Streams(member.fields["id"], lines).finish(member.fields)
            lines.end()
