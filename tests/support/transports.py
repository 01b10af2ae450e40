"""A transport as a test holds it: started, with everything that it signalled."""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hwsync.address import BrokerUrl
from hwsync.transport import Signal, Subscription
from tests.support.threaded import Transport

RECONNECT_S = 30.0  # the longest pause before a new attempt


class Client:
    """A transport and everything that it signalled."""

    def __init__(self, url: str | BrokerUrl, name: str, topics: list[str], **options: Any) -> None:
        self.inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        options = {"on_signal": self.inbox.put, **options}
        self.transport = Transport(
            BrokerUrl.parse(url) if isinstance(url, str) else url,
            name,
            subscriptions=[Subscription(topic) for topic in topics],
            **options,
        )
        self.transport.start()

    def next(self, kind: type[Any], timeout: float = RECONNECT_S) -> Any:
        """The next signal of that kind; others are passed over."""
        while True:
            signal = self.inbox.get(timeout=timeout)
            if isinstance(signal, kind):
                return signal


@contextmanager
def its_socket(transport: Transport) -> Iterator[socket.socket]:
    """The socket of the present connection, to look at; the transport keeps its own."""
    descriptor = transport._connection.fileno()
    assert descriptor is not None
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        yield sock
