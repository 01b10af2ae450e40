"""What a transport is given and what it tells: plain values, no paho."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us when we vanish; QoS 1."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass(frozen=True, slots=True)
class Subscription:
    """A filter; ``no_local`` (not our own publishes) is honoured under MQTT 5 only.

    ``as_published``: a message of the moment, too, shows that it is retained (MQTT 5; others never
    do). Without it the flag tells what the broker had kept.
    """

    topic: str
    qos: int = 1
    no_local: bool = False
    as_published: bool = True


@dataclass(frozen=True, slots=True)
class Secured:
    """TLS: its version; when the broker's certificate expires, as Unix seconds, None: unknown."""

    version: str
    expires: float | None


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted us; before any delivery of this connection. ``protocol`` is 4 or 5."""

    session_present: bool
    protocol: int
    secured: Secured | None = None  # None: no TLS
    max_packet: int | None = None  # bytes; the largest packet that it takes, where it says so


@dataclass(frozen=True, slots=True)
class Subscribed:
    """From now on nothing that is published is missed: publish all that is due.

    ``refused``: the filters that the broker does not let us have, again and again.
    """

    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of ours that was under way."""

    topic: str
    size: int  # bytes of its payload


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection ended, or (``was_connected`` false) an attempt failed; for people.

    ``cure``: what to do, where that is known. ``hung_up``: right after something was sent, and not
    by silence; so the reason may be one of ``unanswered``, in the order in which they were sent.
    """

    reason: str
    was_connected: bool
    cure: str = ""
    hung_up: bool = False
    unanswered: tuple[Sent, ...] = ()  # QoS 1, without a PUBACK


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message; ``connection`` says on which connection, for the acknowledgement.

    ``read_us``: when it was read from the socket, in microseconds of the raw clock.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int
    connection: int
    reply_topic: str = ""  # MQTT 5: the response topic
    correlation: bytes = b""
    read_us: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Denied:
    """The broker refused a message of ours on that topic, and says why (MQTT 5 only)."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A message that cannot be read was acknowledged and dropped; it is in the log."""

    reason: str


Signal = Connected | Subscribed | Disconnected | Delivery | Denied | PassedOver
