"""Which boards and groups there are, as the broker keeps it; and who is in a group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from hwsync.cli.common import Settings
from hwsync.operator.client import QUIET_S, Client
from hwsync.protocol.groups import ALL, SIGN
from hwsync.protocol.wire.received import Received

LISTEN_S: Final = 2.0  # at most
AFTER_S: Final = 0.05  # behind the coordinator's answer: not every broker keeps the order


def kept(client: Client) -> Iterator[Received]:
    """What the broker keeps, which comes at once. Raises ``HwsyncError``.

    It comes before the coordinator's answer to a question that was asked behind it: who hears that
    answer has no need to wait for ``QUIET_S`` in silence.
    """
    client.ask_coordinator()
    limit = time.monotonic() + QUIET_S
    while (came := client.wait(client.hearing(limit))) is not None:
        if came.health is not None and not came.kept:
            limit = min(limit, time.monotonic() + AFTER_S)
        yield came


def known_to(client: Client) -> tuple[list[str], list[str]]:
    """Names of boards, and of groups, on a connection that hears everybody."""
    boards: set[str] = set()
    groups = {f"{SIGN}{ALL}"}
    for heard in kept(client):
        if heard.members is not None:
            groups.add(heard.user)
        elif heard.heartbeat is not None or heard.status is not None:
            boards.add(heard.user)
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
