"""What a broker is, seen from outside: its name, its MQTT version, how long a message takes.

The law: it publishes nothing but on topics of its own, and a broker that is not there is an
answer, not an error.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from typing import Final, Self

from hwsync.address import BrokerUrl
from hwsync.transport import (
    Connected,
    Connection,
    Delivery,
    Denied,
    Disconnected,
    Listener,
    Secured,
    Subscribed,
    Subscription,
)
from hwsync.transport.failed import REFUSED
from hwsync.transport.outbox import LIKELY

SLOW_S: Final = 0.02  # a QoS 1 round trip above this means delayed packets
NAME_S: Final = 1.0  # for a broker to say its name, once subscribed
ECHO_S: Final = 3.0  # for the connection, and then for each round trip
LARGE_S: Final = 10.0  # for a large message to come back
LEAST: Final = 32_000  # bytes; a smaller limit is not looked for
MARK_BYTES: Final = 8  # of a message that is our own
ECHOES: Final = 7  # round trips; the one in the middle counts


@dataclass(frozen=True, slots=True)
class Seen:
    """What answers at an address; ``protocol`` is 4, 5, or 0: nothing does, for this reason.

    ``cure``: what to do, where that is known; ``secured``: what protects the connection; ``taken``:
    it lets us in, as somebody whose session it keeps.
    """

    name: str
    protocol: int
    reason: str = ""
    cure: str = ""
    secured: Secured | None = None
    taken: bool = False

    @property
    def forgets(self) -> bool:
        """Whether it is amqtt, in ``hwsync broker`` or alone: its end is that of all sessions."""
        return "amqtt" in self.name.lower()

    @property
    def keeps_sessions(self) -> bool:
        """Whether a session is of use there; amqtt alone repeats nothing that it has sent."""
        return not self.name.lower().startswith("amqtt")

    @property
    def refused(self) -> bool:
        """Whether a broker is there and did not let us in."""
        return REFUSED in self.reason


class _Client(Listener):
    """One connection of a probe, for a ``with``. Nobody waits for its end, however it hangs."""

    def __init__(
        self,
        url: BrokerUrl,
        name: str,
        topic: str,
        qos: int = 1,
        *,
        prefer_v5: bool = False,
        guest: bool = False,
    ) -> None:
        self.connection = Connection(
            url,
            f"hwsync-{name}-{os.getpid()}",
            subscriptions=[Subscription(topic, qos)],
            prefer_v5=prefer_v5,
            guest=guest,
        )
        super().__init__(self.connection)

    def __enter__(self) -> Self:
        self.connection.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave(0.0)

    def comes(self, patience: float, payload: bytes | None = None) -> Delivery | None:
        """The next message, or the next with that payload; None: it does not come in time."""
        until = time.monotonic() + patience
        while not isinstance(
            heard := self.next(until - time.monotonic()), Disconnected | Denied | None
        ):
            if isinstance(heard, Delivery):
                self.connection.acknowledge(heard)
                if payload in (None, heard.payload):
                    return heard
        return None

    def is_ready(self) -> bool:
        """Wait until it is subscribed; False: that does not come about in time."""
        until = time.monotonic() + ECHO_S
        while not isinstance(heard := self.next(until - time.monotonic()), Disconnected | None):
            if isinstance(heard, Subscribed):
                return True
        return False


def inspect_broker(url: BrokerUrl, patience: float, *, prefer_v5: bool = True) -> Seen:
    """What answers there within so many seconds; raises nothing: ``Seen.reason`` says why none.

    ``prefer_v5``: ask for MQTT 5 first. It ends no session of anybody's.
    """
    secured: Secured | None = None
    protocol, limit, reason = 0, time.monotonic() + patience, "no answer"
    with _Client(url, "look", "$SYS/broker/version", 0, prefer_v5=prefer_v5, guest=True) as client:
        while (heard := client.next(limit - time.monotonic())) is not None:
            if isinstance(heard, Connected):
                protocol, secured = heard.protocol, heard.secured
            elif isinstance(heard, Subscribed):
                limit = min(limit, time.monotonic() + NAME_S)
            elif isinstance(heard, Delivery):
                name = heard.payload.decode(errors="replace")
                return Seen(name, protocol, secured=secured)
            elif isinstance(heard, Disconnected):
                reason = heard.reason
                if not heard.was_connected:
                    return Seen("", 0, reason, heard.cure, secured, taken=bool(protocol))
    if not protocol:
        return Seen("", 0, reason)
    return Seen("a broker that does not say its name", protocol, secured=secured)


def round_trip(url: BrokerUrl, topics: tuple[str, str]) -> float | None:
    """Seconds from a message to its answer, both at QoS 1; None: it did not come.

    Two clients on two topics: a client that hears itself acknowledges at once, and so never waits
    for the packet that a broker without TCP_NODELAY holds back. What another one measures there at
    the same time is passed over.
    """
    own = secrets.token_bytes(MARK_BYTES)
    times: list[float] = []
    with _Client(url, "echo-0", topics[0]) as asks, _Client(url, "echo-1", topics[1]) as answers:
        if not (asks.is_ready() and answers.is_ready()):
            return None
        while len(times) < ECHOES:
            sent = time.monotonic()
            asks.connection.publish(topics[1], own)
            asks.connection.write()
            if answers.comes(ECHO_S, own) is None:
                return None
            answers.connection.publish(topics[0], own)
            answers.connection.write()
            if asks.comes(ECHO_S, own) is None:
                return None
            times.append(time.monotonic() - sent)
    return sorted(times)[ECHOES // 2]


def dot_arrives(url: BrokerUrl, dotted: str, plain: str) -> bool | None:
    """Whether a message on a topic with a dot comes back on that topic; ``plain``: one without.

    None: nobody knows, since this account may not say it, or ``plain`` does not come back either.
    """
    arrives = _arrives(url, dotted)
    if arrives is None or arrives:
        return arrives
    return False if _arrives(url, plain) else None


def largest(url: BrokerUrl, topics: tuple[str, str]) -> int | None:
    """Bytes of the largest message that arrives, of the sizes that brokers have as their limit.

    None: not even the smallest came back. Over websockets some brokers take minutes for one.
    """
    sizes = (size for size in LIKELY if size > LEAST)
    return next((size for size in sizes if _carries(url, topics, size)), None)


def _carries(url: BrokerUrl, topics: tuple[str, str], size: int) -> bool:
    """Whether a message of so many bytes comes back."""
    payload = secrets.token_bytes(MARK_BYTES).ljust(size, b"=")
    with _Client(url, "echo-0", topics[0], prefer_v5=True) as client:
        if not client.is_ready():
            return False
        client.connection.publish(topics[0], payload)
        return client.comes(LARGE_S, payload) is not None


def _arrives(url: BrokerUrl, topic: str) -> bool | None:
    """It is listened to through a wildcard: some brokers refuse to take a filter with a dot.

    Others end the connection of whoever publishes on such a topic, or make a ``/`` of the dot.
    None: the broker says that we may not.
    """
    with _Client(url, "dot", f"{topic.rpartition('/')[0]}/+", prefer_v5=True) as client:
        if not client.is_ready():
            return False
        client.connection.publish(topic, b"x")
        until = time.monotonic() + ECHO_S
        while not isinstance(heard := client.next(until - time.monotonic()), Disconnected | None):
            if isinstance(heard, Denied):
                return None
            if isinstance(heard, Delivery):
                client.connection.acknowledge(heard)
                return heard.topic == topic
    return False
