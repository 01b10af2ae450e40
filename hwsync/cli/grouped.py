"""``status``, ``cancel`` and ``reset`` of a group, or of everybody.

The law: a message that stops everybody is said once, and only after it was confirmed where a person
types it. What stopped is looked at, not believed: who may not ask is not told so by MQTT 3.1.1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import click

from hwsync.cli import say
from hwsync.cli.common import Settings
from hwsync.cli.members import Members, online_line, some
from hwsync.cli.names import members as members_of
from hwsync.cli.slow import say_slow
from hwsync.cli.targets import Target
from hwsync.operator.batch import answering, asking_one, overhearing
from hwsync.operator.client import QUIET_S, Client
from hwsync.operator.conversation import EVERYBODY, raise_refused
from hwsync.operator.starting import asking_ahead
from hwsync.protocol.errors import (
    Code,
    HwsyncError,
    NoCoordinator,
    NotFound,
    Refused,
    Unreachable,
)
from hwsync.protocol.groups import ALL
from hwsync.protocol.record import State
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.asking import encode_id
from hwsync.protocol.wire.group import OPEN, BatchFields
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import Status

START_S: Final = 2.0  # for a board's own word about its instant; without a right none comes
RESTS_S: Final = 3.0  # for the statuses of whoever was stopped to come


def status(settings: Settings, target: Target, *, watch: bool) -> None:
    """The group's boards, and its newest batch."""
    with Client(settings.url, settings.topics, target.user) as operator:
        operator.standing.slow = say_slow
        online: dict[str, bool | None] | None = None
        kept: BatchFields | None = None
        for heard in operator.hear(QUIET_S):
            online = heard.members["members"] if heard.members else online
            kept = heard.batch or kept
        batch = kept
        try:
            batch = operator.wait(asking_one(operator))
        except Refused as refusal:
            if refusal.code is not Code.NOT_CURRENT:
                raise
        if online is None and batch is None:
            raise NotFound(
                f"nobody has heard of {target}",
                "hwsync group list shows the groups, on the lab's own machine",
            )
        begins = None if batch is None or settings.as_json else _beginning(operator, batch)
        _show(settings, target, batch, online or {}, begins)
        with suppress(KeyboardInterrupt):
            while watch:
                for heard in operator.hear(1.0):
                    if (change := heard.batch) is not None:
                        say.either(settings.as_json, change, _counts_line(target, change))


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The instant of a batch; ``at``: on the clock that never jumps. None: it is not fixed yet."""

    at: float | None = None


def _beginning(operator: Client, batch: BatchFields) -> _Beginning | None:
    """When the boards that have it begin; None: they have begun, or we may not know.

    The group's status does not say that. What one of them has been asked is the same for all.
    """
    has_it = (one for one, told in batch["members"].items() if told["state"] == State.COLLECTED)
    if (user := next(has_it, None)) is None:
        return None
    operator.hear_too([user])
    conversation = operator.conversation(user)
    told: Mapping[str, Any]
    try:
        told = operator.wait(conversation.querying(batch["id"], START_S))
    except (Refused, Unreachable):
        told = conversation.kept or {}  # whoever has only the group may read that
    at = told.get("start_at")
    if told.get("id") != batch["id"] or told.get("outcome") is not None:
        return None
    if at is None:
        return _Beginning() if told.get("start") else None
    try:
        ahead = operator.wait(asking_ahead(operator, operator.ask_coordinator))
    except NoCoordinator:
        return None
    left = at - (time.time() + ahead)
    return _Beginning(time.monotonic() + left) if left > 0.0 else None


def _show(
    settings: Settings,
    target: Target,
    batch: BatchFields | None,
    online: Mapping[str, bool | None],
    begins: _Beginning | None,
) -> None:
    if settings.as_json:
        say.json_line({"group": target.group, "batch": batch, "members": dict(online)})
        return
    members = Members(batch["id"] if batch else "", online)
    for user, one in online.items():
        members.of(user).online = one
    if batch is None:
        say.line(f"{target}: {len(online)} boards, and no batch yet")
    else:
        if begins is not None:
            members.start(begins.at)
        members.hear_batch(batch, time.monotonic())
        say.line(_counts_line(target, batch))
    now = None if begins is None else time.monotonic()
    for member in members.by_user.values():
        say.line(online_line(member, now))


def _counts_line(target: Target, batch: BatchFields) -> str:
    members = Members(batch["id"])
    members.hear_batch(batch, time.monotonic())
    first, *more = members.summary(str(target), brief=True)
    if batch["state"] == OPEN:
        counts = [(kind, n) for kind, n in batch["counts"].items() if n and kind != "members"]
        first = f"{target}: {', '.join(f'{n} {kind}' for kind, n in counts)}"
    return f"{first}  {batch['state']}  {batch['id']}{''.join(f'; {line}' for line in more)}"


def cancel(settings: Settings, target: Target, id: str | None, *, yes: bool) -> None:
    """The group's batch with that id, else the newest; of everybody without an id, all."""
    if target.group == ALL and id is None:
        confirm("cancel whatever runs or waits on every board", yes)
        _stop(settings, target, TopicKind.CANCEL)
        return
    with Client(settings.url, settings.topics, target.user) as operator:
        operator.standing.slow = say_slow
        try:
            id = id or operator.wait(asking_one(operator))["id"]
        except Refused as refusal:
            if refusal.code is not Code.NOT_CURRENT:
                raise
            raise NotFound(refusal.message, f"hwsync run {target} FILE gives it one") from None

        def answer(came: Received) -> bool:
            about = came.fields.get("id") == id and not came.kept
            return about and (came.batch is not None or came.kind is TopicKind.ERROR)

        answered = operator.ask(TopicKind.CANCEL, encode_id(id), answer)
        raise_refused(answered)
        assert answered.batch is not None
        say.either(settings.as_json, answered.batch, _counts_line(target, answered.batch))


def reset(settings: Settings, target: Target, *, yes: bool) -> None:
    """Stop all: each board at rest, its queue empty, and in no batch any more."""
    whom = "every board" if target.group == ALL else f"every board of {target}"
    confirm(f"stop whatever runs or waits on {whom}", yes)
    _stop(settings, target, TopicKind.RESET)


def confirm(what: str, yes: bool) -> None:
    """Ask a person who types it; a script is believed. Raises ``click.Abort``."""
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm(f"{what}?", abort=True, err=True)


def _stop(settings: Settings, target: Target, kind: TopicKind) -> None:
    records: dict[str, Status] = {}
    asked = False
    before: dict[str, int] = {}

    def hear(heard: Received) -> None:
        if heard.status is not None:
            records[heard.user] = heard.status
            if not asked and _is_busy(heard.status, kind):
                before[heard.user] = heard.status["seq"]

    users: tuple[str, ...] = ()
    if target.group != ALL:
        users = tuple(members_of(settings, target.user) or ())
    named = (target.user, *(users or (EVERYBODY,)))
    with Client(settings.url, settings.topics, EVERYBODY, named=named) as operator:
        operator.standing.slow = say_slow
        future = operator.switchboard.begin(overhearing(operator.conversation(EVERYBODY), hear))
        for _ in operator.hear(QUIET_S):  # what is kept
            pass
        asked = True
        operator.bring(target.user, kind)
        operator.wait(answering(operator.conversation(target.user), kind))
        limit = time.monotonic() + RESTS_S
        while _left(records, users, kind) and time.monotonic() < limit:
            for _ in operator.hear(QUIET_S):
                pass
        future.cancel()
    left = _left(records, users, kind)
    stopped = sorted(set(before) - set(left))
    if settings.as_json:
        say.json_line({"target": str(target), "stopped": stopped, "left": left})
    else:
        verb = "cancelled" if kind is TopicKind.CANCEL else "stopped"
        say.line(f"{target}: {verb} {len(stopped)}{': ' if stopped else ''}{some(stopped)}")
    if left:
        raise HwsyncError(
            f"{len(left)} not stopped: {some(left)}",
            "may this account ask that group? hwsync status BOARD shows each",
        )


def _left(records: Mapping[str, Status], users: tuple[str, ...], kind: TopicKind) -> list[str]:
    """Who is busy all the same; a cancelled program may take its time to end."""
    return sorted(
        user
        for user, record in records.items()
        if (not users or user in users)
        and _is_busy(record, kind)
        and not (kind is TopicKind.CANCEL and record["state"] == State.COLLECTED
                 and record["cancelling"])
    )  # fmt: skip


def _is_busy(record: Mapping[str, Any], kind: TopicKind) -> bool:
    """Whether there is something to stop; what has ended cannot be cancelled."""
    over = (State.REST, State.RETURNED) if kind is TopicKind.CANCEL else (State.REST,)
    return record["state"] not in over or bool(record["queued"])
