"""The operator's side: ask with an id, repeat until answered, follow a run to its end.

The law: a PUBACK means nothing; what counts is a status, an error or a ``result/<id>`` that names
the id. Repeating is always safe (docs/protocol.md, section 2, "Acknowledged").
"""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, NoBroker, NoCoordinator, Refused
from hwsync.protocol.topics import Kind, Topics
from hwsync.protocol.wire import encode_id, read_object
from hwsync.transport import (
    BrokerUrl,
    Delivery,
    Disconnected,
    Signal,
    Subscribed,
    Subscription,
    Transport,
)

ANSWER_S: Final = 30.0  # a coordinator that has not answered by then is not there
CONNECT_S: Final = 10.0  # for the connection and its subscriptions
QUIET_S: Final = 0.3  # retained messages come at once: after such a pause there are no more

Json = dict[str, Any]


def fresh_id() -> str:
    """An id for a command of the command line."""
    return f"cli-{secrets.token_hex(8)}"


class Operator:
    """A connection of one operator, for one user's topics (``+``: everybody's)."""

    def __init__(self, url: BrokerUrl, topics: Topics, user: str, *, live: bool = False) -> None:
        self.url, self.topics, self.user = url, topics, user
        self._inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        kinds = [Kind.STATUS, Kind.ERROR, Kind.HEARTBEAT, *([Kind.OUTPUT] if live else [])]
        filters = [
            Subscription(topics.of(user, kind), int(kind is not Kind.OUTPUT)) for kind in kinds
        ]
        filters.append(Subscription(topics.result(user, "+")))
        client = f"hwsync-cli-{secrets.token_hex(6)}"
        self._transport = Transport(
            url, client, on_signal=self._inbox.put, subscriptions=filters, prefer_v5=True
        )

    def __enter__(self) -> Self:
        """Connect. Raises ``NoBroker``."""
        self._transport.start()
        limit = time.monotonic() + CONNECT_S
        reason = "no answer"
        while (left := limit - time.monotonic()) > 0:
            try:
                signal = self._inbox.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(signal, Subscribed):
                return self
            if isinstance(signal, Disconnected):
                reason = signal.reason
                break
        self._transport.stop(0.0)
        raise NoBroker(
            f"no broker answers at {self.url}: {reason}", "start one, or name it with --broker"
        )

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._transport.stop(2.0)

    def publish(self, kind: Kind, payload: bytes) -> None:
        """Send one message; it is repeated by whoever waits for its answer."""
        self._transport.publish(self.topics.of(self.user, kind), payload)

    def hear(self, seconds: float) -> Iterator[tuple[str, Kind, Json]]:
        """(user, kind, JSON) of what comes within that time; empty objects for cleared ones."""
        limit = time.monotonic() + seconds
        while True:
            try:
                signal = self._inbox.get(timeout=max(limit - time.monotonic(), 0.0))
            except queue.Empty:
                return
            if isinstance(signal, Delivery):
                self._transport.acknowledge(signal)
                user, kind = self.topics.split(signal.topic)
                if kind is not None:
                    yield user, kind, read_object(signal.payload) or {}

    def ask(
        self,
        kind: Kind,
        payload: bytes,
        answer: Callable[[Kind, Json], bool],
        *,
        waiting: Callable[[], None] = lambda: None,
    ) -> tuple[Kind, Json]:
        """Repeat a message until something is its answer. Raises ``NoCoordinator``."""
        limit = time.monotonic() + ANSWER_S
        pause = limits.REPEAT_FIRST_S
        while time.monotonic() < limit:
            self.publish(kind, payload)
            for _, heard, fields in self.hear(min(pause, limit - time.monotonic())):
                if answer(heard, fields):
                    return heard, fields
            waiting()
            pause = min(2 * pause, limits.REPEAT_MAX_S)
        raise NoCoordinator(
            f"no coordinator answers at {self.url} below the root {self.topics.root}",
            "start one: hwsync coordinator",
        )

    def query(self, id: str | None = None) -> Json:
        """The record, or with an id the whole of that command. Raises ``Refused``."""
        wanted = Kind.STATUS if id is None else Kind.RESULT
        kind, fields = self.ask(
            Kind.QUERY,
            encode_id(id),
            lambda kind, fields: (
                (kind is wanted and (id is None or fields.get("id") == id))
                or (kind is Kind.ERROR and id is not None and fields.get("id") == id)
            ),
        )
        return raise_refused(kind, fields)


def raise_refused(kind: Kind, fields: Json) -> Json:
    """The fields. Raises ``Refused`` where they are an error's."""
    if kind is Kind.ERROR:
        raise Refused(
            Code(fields["error"]), fields["message"], fields["hint"],
            id=fields["id"], journal=fields["journal"],
        )  # fmt: skip
    return fields
