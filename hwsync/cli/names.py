"""Which boards and groups there are, as the broker keeps it; and who is in a group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Final

from hwsync.cli.common import Settings
from hwsync.operator.client import QUIET_S, Client
from hwsync.operator.conversation import Talk
from hwsync.protocol.errors import NotFound
from hwsync.protocol.groups import ALL, SIGN
from hwsync.protocol.wire.received import Received

LISTEN_S: Final = 2.0  # at most
AFTER_S: Final = 0.05  # behind the coordinator's answer: not every broker keeps the order


def _until_answered(client: Client) -> Iterator[Received]:
    """What the broker keeps, as far as the coordinator's answer, or for ``QUIET_S``.

    It comes at once, and before the answer to a question that was asked behind it: who hears that
    answer has no need to wait in silence. Raises ``HwsyncError``.
    """
    client.ask_coordinator()
    for came in client.hear(QUIET_S):
        if came.health is not None and not came.kept:
            return
        yield came


def boards_as_heard(client: Client) -> Iterator[str]:
    """Boards that there are: those that the broker keeps at once, and others a moment later.

    Whatever goes on at the client goes on meanwhile. Raises ``NotFound``: there is none.
    """
    boards = set[str]()
    for came in _until_answered(client):
        boards |= _board_of(came)
    late = client.switchboard.begin(_late(client))
    yield from sorted(boards)
    more = client.wait_for(late) - boards
    if not boards and not more:
        raise NotFound("nobody has been seen yet", "hwsync status lists the boards")
    yield from sorted(more)


def _late(client: Client) -> Talk[set[str]]:
    boards, limit = set[str](), time.monotonic() + AFTER_S
    while (came := (yield from client.hearing(limit, ()))) is not None:
        boards |= _board_of(came)
    return boards


def _board_of(came: Received) -> set[str]:
    """The board whose own topic this is."""
    return {came.user} if came.heartbeat is not None or came.status is not None else set()


def known_to(client: Client) -> tuple[list[str], list[str]]:
    """Names of boards, and of groups, on a connection that hears everybody."""
    boards: set[str] = set()
    groups = {f"{SIGN}{ALL}"}
    for heard in chain(_until_answered(client), client.hear(AFTER_S)):
        if heard.members is not None:
            groups.add(heard.user)
        boards |= _board_of(heard)
    return sorted(boards), sorted(groups)


def known(settings: Settings) -> list[str]:
    """Names of boards, then of groups. Raises ``HwsyncError``."""
    with Client(settings.url, settings.topics, "+", groups=True) as one:
        boards, groups = known_to(one)
    return [*boards, *groups]


def last_ids(settings: Settings, boards: list[str] | None = None) -> list[str]:
    """The id of each board's present or last command. Raises ``HwsyncError``."""
    named = boards or ()
    with Client(settings.url, settings.topics, "+", named=named) as one:
        told = [heard.status for heard in one.hear(QUIET_S) if heard.status is not None]
    return list(dict.fromkeys(status["id"] for status in told if status["id"]))


def heard_of(settings: Settings) -> list[str]:
    """Boards of which a heartbeat was heard: no typing errors. Raises ``HwsyncError``."""
    with Client(settings.url, settings.topics, "+", guest=False) as one:
        return sorted({heard.user for heard in one.hear(QUIET_S) if heard.heartbeat is not None})


def members(settings: Settings, user: str) -> dict[str, bool | None] | None:
    """Who is in the group ``user`` (with its sign), and whether each is online; None: nobody says.

    Raises ``HwsyncError``.
    """
    limit = time.monotonic() + LISTEN_S
    with Client(settings.url, settings.topics, user) as one:
        while time.monotonic() < limit:
            more = False
            for heard in one.hear(QUIET_S):
                more = True
                if heard.members is not None:
                    return heard.members["members"]
            if not more:
                break
    return None
