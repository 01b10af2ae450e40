"""What a broker is, seen from outside: its name, its MQTT version, how long a message takes.

The law: it publishes nothing but on topics of its own, and a broker that is not there is an
answer, not an error.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.transport import (
    Connected,
    Delivery,
    Denied,
    Disconnected,
    Secured,
    Signal,
    Subscribed,
    Subscription,
    Transport,
)
from hwsync.transport.capacity import LIKELY
from hwsync.transport.failed import REFUSED

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


def look(url: BrokerUrl, patience: float, *, prefer_v5: bool = True) -> Seen:
    """What answers there within so many seconds."""
    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    transport = Transport(
        url, f"hwsync-look-{os.getpid()}", on_signal=inbox.put,
        subscriptions=[Subscription("$SYS/broker/version", 0)], prefer_v5=prefer_v5, guest=True,
    )  # fmt: skip
    transport.start()
    secured: Secured | None = None
    protocol, limit, reason = 0, time.monotonic() + patience, "no answer"
    try:
        while (left := limit - time.monotonic()) > 0:
            heard = inbox.get(timeout=left)
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
    except queue.Empty:
        pass
    finally:
        # An attempt that hangs holds its thread longer than anybody should wait for it.
        threading.Thread(target=transport.stop, args=(0.0,), daemon=True).start()
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
    inbox: queue.SimpleQueue[tuple[int, Signal]] = queue.SimpleQueue()
    clients = [_echo(url, side, topic, inbox) for side, topic in enumerate(topics)]
    times: list[float] = []
    ready, sent = 0, 0.0
    for client in clients:
        client.start()
    try:
        while len(times) < ECHOES:
            side, heard = inbox.get(timeout=ECHO_S)
            if isinstance(heard, Disconnected):
                return None
            if isinstance(heard, Delivery):
                clients[side].acknowledge(heard)
                if heard.payload != own:
                    continue
                if side == 1:
                    clients[1].publish(topics[0], own)
                    continue
                times.append(time.monotonic() - sent)
            ready += isinstance(heard, Subscribed)
            if ready == len(clients) and isinstance(heard, Delivery | Subscribed):
                sent = time.monotonic()
                clients[0].publish(topics[1], own)
    except queue.Empty:
        return None
    finally:
        for client in clients:
            client.stop(0.0)
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
    inbox: queue.SimpleQueue[tuple[int, Signal]] = queue.SimpleQueue()
    client = _echo(url, 0, topics[0], inbox, prefer_v5=True)
    client.start()
    payload = secrets.token_bytes(MARK_BYTES).ljust(size, b"=")
    try:
        while not isinstance(heard := inbox.get(timeout=LARGE_S)[1], Disconnected | Denied):
            if isinstance(heard, Subscribed):
                client.publish(topics[0], payload)
            elif isinstance(heard, Delivery):
                client.acknowledge(heard)
                if heard.payload == payload:
                    return True
    except queue.Empty:
        pass
    finally:
        client.stop(0.0)
    return False


def _arrives(url: BrokerUrl, topic: str) -> bool | None:
    """It is listened to through a wildcard: some brokers refuse to take a filter with a dot.

    Others end the connection of whoever publishes on such a topic, or make a ``/`` of the dot.
    None: the broker says that we may not.
    """
    inbox: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    client = Transport(
        url, f"hwsync-dot-{os.getpid()}", on_signal=inbox.put,
        subscriptions=[Subscription(f"{topic.rpartition('/')[0]}/+")], prefer_v5=True,
    )  # fmt: skip
    client.start()
    try:
        while not isinstance(heard := inbox.get(timeout=ECHO_S), Disconnected):
            if isinstance(heard, Subscribed):
                client.publish(topic, b"x")
            elif isinstance(heard, Denied):
                return None
            elif isinstance(heard, Delivery):
                client.acknowledge(heard)
                return heard.topic == topic
    except queue.Empty:
        pass
    finally:
        client.stop(0.0)
    return False


def _echo(
    url: BrokerUrl,
    side: int,
    topic: str,
    inbox: queue.SimpleQueue[tuple[int, Signal]],
    *,
    prefer_v5: bool = False,
) -> Transport:
    return Transport(
        url,
        f"hwsync-echo-{side}-{os.getpid()}",
        on_signal=lambda signal: inbox.put((side, signal)),
        subscriptions=[Subscription(topic)],
        prefer_v5=prefer_v5,
    )
