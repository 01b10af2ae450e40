"""Whether a board was ever there: its name may be a typing error.

The law: a program for a board that nobody has ever heard of is not sent, unless somebody says that
it is to wait for one. What the broker keeps is looked at first, and only where that says nothing is
the coordinator asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hwsync.cli.causes import nearest, was_answered
from hwsync.cli.common import Settings
from hwsync.cli.names import heard_of
from hwsync.operator.client import Client
from hwsync.operator.conversation import Conversation, Talk
from hwsync.protocol.errors import HwsyncError, NotFound
from hwsync.protocol.record import State
from hwsync.protocol.wire.heartbeat import Heartbeat
from hwsync.protocol.wire.received import Received
from hwsync.protocol.wire.status import CommandFields

APPEARS_S: Final = 0.5  # for a device that was started just now


class Seen:
    """What was heard of one device."""

    def __init__(self, user: str) -> None:
        self._user, self._heard = user, False

    def hear(self, heard: Received) -> None:
        self._heard |= heard.heartbeat is not None

    def warning(self, status: CommandFields) -> str:
        """What to say; ``status``: what acknowledged the request."""
        if self._heard or status["state"] != State.REQUESTED:
            return ""
        return f"hwsync: a device {self._user} has never been seen; the program waits for one"


def never_seen(settings: Settings, user: str) -> NotFound:
    """The error for a board that has no record, with the name that may have been meant."""
    try:
        near = nearest(user, heard_of(settings))
    except HwsyncError:
        near = ""
    meant = f"did you mean {near}? " if near else ""
    return NotFound(f"{user} has never been seen", f"{meant}hwsync status lists the boards")


def refuse_strangers(
    settings: Settings, operator: Client, users: Sequence[str], *, may_wait: bool = True
) -> dict[str, Heartbeat | None]:
    """The boards' heartbeats, as the broker keeps them; None: it keeps none.

    ``operator`` hears these boards, and nothing of them was waited for yet. ``may_wait``: the
    command has ``--wait-for-board``. Raises ``NotFound`` that names those that were never seen, and
    what may have been meant; like ``Client.record`` where one has to be asked for.
    """
    talks = [_was_seen(operator.conversation(user)) for user in users]
    futures = [operator.switchboard.begin(talk) for talk in talks]
    seen = [operator.wait_for(future) for future in futures]
    strangers = [user for user, (known, _) in zip(users, seen, strict=True) if not known]
    if not strangers:
        return {user: beat for user, (_, beat) in zip(users, seen, strict=True)}
    try:
        names = heard_of(settings)
    except HwsyncError:
        names = []
    meant = [near for user in strangers if (near := nearest(user, names))]
    listed = "hwsync status lists the boards"
    hint = f"did you mean {', '.join(meant)}? " if meant else f"{listed}. " if may_wait else ""
    have = "have" if len(strangers) > 1 else "has"
    raise NotFound(
        f"{', '.join(strangers)} {have} never been seen",
        hint + ("--wait-for-board sends it all the same" if may_wait else listed),
    )


def _was_seen(conversation: Conversation) -> Talk[tuple[bool, Heartbeat | None]]:
    """By its heartbeat, which the broker keeps and gives first; else by its record."""
    answered = False
    while (came := (yield from conversation.hearing(conversation.now))) is not None:
        answered |= was_answered(came.status)
        if came.heartbeat is not None:
            break
    if conversation.beat is None and not answered:
        answered = was_answered((yield from conversation.reading()))
    limit = conversation.now + APPEARS_S
    while conversation.beat is None and not answered:
        if (yield from conversation.hearing(limit)) is None:
            break
    return answered or conversation.beat is not None, conversation.beat
