"""What a link stands on: something that carries what it says to a broker, and tells what comes.

The law: a wire decides nothing. ``PahoWire`` is the real one; ``hwsync.testing`` has one without a
network, so that the rules of a connection are the same there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hwsync.address import BrokerUrl
from hwsync.transport.connecting import Attempt
from hwsync.transport.failed import Failed
from hwsync.transport.publish import Publish
from hwsync.transport.signals import Secured, Subscription, Will


class WireOwner(Protocol):
    """Who gets what the broker says. ``code``: a reason code of MQTT 5, in 3.1.1 too."""

    def accepted(self, session_present: bool, max_packet: int | None, window: int | None) -> None:
        """CONNACK: come in. The largest packet, and how many messages at a time, where it says."""

    def turned_away(self, code: int, reason: str) -> None:
        """CONNACK: no."""

    def granted(self, each: Sequence[bool]) -> None:
        """SUBACK: for each filter, whether we have it."""

    def delivered(self, read: Publish, qos: int, retain: bool, dup: bool) -> None:
        """PUBLISH."""

    def acknowledged(self, mid: int) -> None:
        """PUBACK, or a message at QoS 0 was written."""

    def denied(self, mid: int, reason: str) -> None:
        """PUBACK, which refuses the message (MQTT 5)."""

    def disconnected(self, code: int, reason: str, by_broker: bool) -> None:
        """The end. ``by_broker``: it sent a DISCONNECT, which says why."""


class Work(Protocol):
    """Something that takes a while. What it brings is why it failed; None: it has not."""

    def fileno(self) -> int:
        """Readable once it is done."""

    @property
    def is_done(self) -> bool:
        """Whether ``take`` has something."""

    def take(self) -> Failed | None:
        """What it brought; once, and when it is done."""

    def abandon(self) -> None:
        """It is not wanted any more."""


class Wire(Protocol):
    """For one connection: ``dial``, then ``say_hello``, then all else."""

    @property
    def look_s(self) -> float:
        """Seconds between two calls of ``look``."""

    @property
    def unreadable(self) -> str:
        """What the broker sent, upon which the connection was ended here."""

    def dial(self) -> Work:
        """Come as far as the broker's door: name look-up, TCP, TLS and websocket."""

    def ask_why(self, otherwise: Failed) -> Work:
        """Look why the broker hung up without an answer; ``otherwise``: where nobody knows."""

    def fileno(self) -> int | None:
        """What is to be watched, once it is dialled; None: nothing."""

    @property
    def wants_write(self) -> bool:
        """Whether ``write`` has something to do as soon as ``fileno`` can be written."""

    @property
    def is_flushed(self) -> bool:
        """Whether everything that was said is on its way."""

    @property
    def secured(self) -> Secured | None:
        """What protects it; None: nothing."""

    @property
    def read_us(self) -> int:
        """When what is told now was read, in microseconds of the raw clock."""

    def say_hello(self) -> None:
        """CONNECT."""

    def say_goodbye(self) -> None:
        """DISCONNECT, so that the broker publishes no will."""

    def close(self) -> None:
        """The end, without a word, where it has not ended yet."""

    def send(
        self, topic: str, payload: bytes, qos: int, retain: bool, correlation: bytes = b""
    ) -> int:
        """PUBLISH with the next ``write``; its packet identifier."""

    def acknowledge(self, mid: int, qos: int) -> None:
        """PUBACK with the next ``write``."""

    def ask_for(self, subscriptions: Sequence[Subscription]) -> None:
        """SUBSCRIBE with the next ``write``."""

    def read(self) -> None:
        """Tell all that has come."""

    def write(self) -> None:
        """Write what was said, as much as can be written now."""

    def look(self) -> None:
        """Send a ping, where one is due; give up a broker that does not answer to it."""


WireMaker = Callable[[BrokerUrl, str, Attempt, Will | None, WireOwner], Wire]
"""Of an address, a client id, an attempt, a will, and who hears."""
