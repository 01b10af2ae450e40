"""How an operator reaches a lab: to what it subscribes, and what is said where nobody answers.

The law: nothing is sent and nothing is waited for here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.operator.conversation import EVERYBODY
from hwsync.protocol.errors import NoBroker
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.received import is_group
from hwsync.transport import Subscription
from hwsync.transport.failed import REFUSED

CONNECT_S: Final = 10.0  # for the connection and its subscriptions
LEAVE_S: Final = 2.0  # for what is under way


def of_users(topics: Topics, users: Iterable[str], *, live: bool = False) -> list[Subscription]:
    """What is said of these users, which may be groups; ``live``: the output of programs too."""
    users = tuple(users)
    kinds = (TopicKind.STATUS, TopicKind.ERROR)
    of_board = (*kinds, TopicKind.HEARTBEAT, *((TopicKind.OUTPUT,) if live else ()))
    of_group = (*kinds, TopicKind.MEMBERS)
    filters = [
        Subscription(topics.of(one, kind), int(kind is not TopicKind.OUTPUT), as_published=False)
        for one in users
        for kind in (of_group if is_group(one) else of_board)
    ]
    return filters + [Subscription(topics.result(one, "+")) for one in users]


def of_lab(topics: Topics, *, boards: bool = False, groups: bool = False) -> list[Subscription]:
    """How the coordinator is; ``boards``: whom it hears, ``groups``: who is in each, too."""
    said = [topics.health]
    said += [topics.boards] if boards else []
    said += [topics.of(EVERYBODY, TopicKind.MEMBERS)] if groups else []
    return [Subscription(topic, as_published=False) for topic in said]


def lab(url: BrokerUrl, topics: Topics, user: str) -> str:
    """Words for errors. MQTT 3.1.1 does not say that a right is missing: as if nobody answered."""
    as_whom = "" if url.username is None else f"; or {url.username} may not ask for {user}"
    return f"{url} below the root {topics.root}{as_whom}"


def no_broker(url: BrokerUrl, reason: str, cure: str) -> NoBroker:
    """Why there is no connection, and what to do; ``cure``: where that is known."""
    if REFUSED in reason and not cure:
        cure = (
            "is the password right and not rotated since, and is it the port for this account? "
            "The connection file (--config) or --credentials says them"
        )
    if cure:
        return NoBroker(f"{url}: {reason}", cure)
    return NoBroker(f"no broker answers at {url}: {reason}", "start one, or name it with --broker")
