"""One connection, from its connect to its end.

The law: it has no thread. Its owner calls ``handle`` when ``fileno`` can be read or written, or
``next_at`` has come. What is sent while the connection ends is dropped, never queued. What carries
all this is a wire; here is decided what it means.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from enum import Enum
from typing import Final, Protocol

from hwsync.address import BrokerUrl
from hwsync.transport.connecting import Attempt
from hwsync.transport.failed import REFUSED, Failed, WrongVersion
from hwsync.transport.paho_client import (
    KEEPALIVE_S,
    PROTOCOL_ERROR,
    SILENCE,
    TAKEN_OVER,
    UNSUPPORTED_VERSION,
)
from hwsync.transport.publish import Publish
from hwsync.transport.signals import (
    Delivery,
    Denied,
    Secured,
    Signal,
    Subscribed,
    Subscription,
    Will,
)
from hwsync.transport.subscribing import Subscribing
from hwsync.transport.window import WINDOW, Message, Window
from hwsync.transport.wire import WireMaker, Work

log = logging.getLogger("hwsync.transport")

LEAVE_S: Final = 1.0  # for what still waits to be written, when we go
HANG_UP_S: Final = 5.0  # an end so soon after we sent something may be the answer to it


class Stage(Enum):
    """Where one connection stands."""

    CONNECTING = "name look-up, TCP, TLS and websocket, in an errand"
    PROBING = "CONNECT was sent: whether the broker takes us, and speaks this version"
    OPEN = "the broker accepted us; what it grants of the subscriptions is Subscribing's"
    ASKING_WHY = "the broker hung up without an answer: an errand looks why"
    OVER = "it ended, or came to nothing: then ``failure`` says why"


class Owner(Protocol):
    """What a link needs of the connection that it belongs to; called from ``handle``."""

    url: BrokerUrl
    wire: WireMaker

    def monotonic(self) -> float:
        """The clock of every moment here, in seconds."""

    def opened(self, link: Link) -> None:
        """The broker accepted us."""

    def emit(self, link: Link, signal: Signal) -> None:
        """Something came."""

    def pass_over(self, link: Link, topic: str, reason: str) -> None:
        """A message came that cannot be read, and was acknowledged."""


class Link:
    """One connection, on a wire of its own, which tells it what the broker says (``WireOwner``).

    Its owner looks after each ``handle`` at ``stage``: in ``OVER`` either ``failure`` says why it
    never was open, or ``reason`` why it ended; a link is not used again. Signals and moments are
    those of ``Connection``.
    """

    def __init__(
        self, owner: Owner, number: int, client_id: str, attempt: Attempt, will: Will | None = None
    ) -> None:
        """Begins to connect at once.

        ``number``: what ``Delivery.connection`` says of what comes on it; 0 for one that is only to
        see whether the broker keeps a session. ``attempt``: the version and session to ask for.
        """
        self.number = number
        self.attempt = attempt
        self.protocol = attempt.protocol
        self.stage = Stage.CONNECTING
        self.failure: Failed | None = None  # why it came to nothing
        self.refused: int | None = None
        self.reason = "the broker closed the connection"
        self.taken_over = False
        self.explained = False  # it is known why the connection ended
        self.by_us = False  # we ended it
        self.closing = False
        self.connected_at: float | None = None
        self.session_present = False
        self.max_packet: int | None = None  # bytes, where the broker says so
        self.subscribing = Subscribing()
        self._more: tuple[Subscription, ...] = ()  # to be asked for, once the last were answered
        self._owner = owner
        self._has_ended = False  # the wire said so
        self.window = Window(self._send)
        self._sent_at = 0.0  # monotonic; the last publish
        self._looked_at = owner.monotonic()  # when ``handle`` was called last
        self._stalled_at = -math.inf  # when that was too long ago for a ping to have left
        self._silent = False
        self._answer_by = self._look_at = self._leave_by = 0.0  # monotonic
        self._is_greeted = False  # CONNECT was sent
        self._wire = owner.wire(owner.url, client_id, attempt, will, self)
        self._errand: Work | None = self._wire.dial()

    # What its owner asks.

    def fileno(self) -> int | None:
        """What is to be watched; None: nothing."""
        return self._wire.fileno() if self._errand is None else self._errand.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether ``handle`` has something to do as soon as ``fileno`` can be written."""
        return self._wire.wants_write

    @property
    def next_at(self) -> float | None:
        """When ``handle`` has something to do by itself, monotonic; None: never."""
        if self.stage is Stage.OVER:
            return 0.0  # its owner has not seen it yet
        if self._errand is not None:
            return None
        moments = [self._look_at]
        if self.stage is Stage.PROBING:
            moments.append(self._answer_by)
        if self.closing:
            moments.append(self._leave_by)
        now = self._owner.monotonic()
        if (wait := self.subscribing.wait(now)) is not None:
            moments.append(now + wait)
        return min(moments)

    @property
    def hung_up(self) -> bool:
        """Whether the end came right after something unanswered was sent, and not by silence.

        Nor by ours: after a save that blocked for long the broker may have ended it before that.
        """
        now = self._owner.monotonic()
        soon = now - self._sent_at < HANG_UP_S <= now - self._stalled_at
        return soon and not self.window.is_empty and not (self._silent or self.by_us)

    @property
    def secured(self) -> Secured | None:
        """What protects the connection; None: nothing."""
        return self._wire.secured

    # What its owner does.

    def handle(self, now: float, readable: bool) -> None:
        """Go on as far as that is possible without waiting. ``readable``: of ``fileno``."""
        before, self._looked_at = self._looked_at, now
        if self._errand is not None:
            if self._errand.is_done:
                self._errand_is_done(self._errand, now)
            return
        if self.stage is Stage.OVER:
            return
        if now - before > KEEPALIVE_S and self.stage is Stage.OPEN:
            self._stalled_at = now
        if readable:
            self._wire.read()
        if now >= self._look_at:
            self._look_at = now + self._wire.look_s
            self._wire.look()
        if self.stage is Stage.PROBING and not self.closing:
            self._probe(now)
        elif self.stage is Stage.OPEN and (again := self.subscribing.again(now)):
            self.subscribe(again)
        self.write()
        if self.closing:
            self._leave(now)
        elif self._has_ended and self.stage is Stage.OPEN:
            self.stage = Stage.OVER

    def write(self) -> None:
        """Write what was said, as much as the kernel takes."""
        if self._is_greeted:
            self._wire.write()

    def leave(self, now: float) -> None:
        """Tell the broker that we go, so that it publishes no will; what waits goes first."""
        if not self.closing:
            self.closing, self._leave_by = True, now + LEAVE_S
        self._leave(now)

    def drop(self) -> None:
        """The end, now: politely where that does not block."""
        if self._errand is not None:
            self._errand.abandon()
            self._errand = None
        if self._is_greeted:
            if not self._has_ended:
                self._wire.say_goodbye()
            self._wire.close()
        self.stage = Stage.OVER

    def publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, correlation: bytes = b""
    ) -> bool:
        """Have it sent by the next ``write``; False where the connection has ended.

        Raises ``ValueError``, ``UnicodeError`` for a topic that is none.
        """
        if not topic or "+" in topic or "#" in topic:
            raise ValueError("the topic is empty or has a wildcard")
        topic.encode()
        if self._has_ended:
            return False
        self._sent_at = self._owner.monotonic()
        self.window.put(Message(topic, payload, qos, retain, correlation))
        return True

    def _send(self, one: Message) -> int:
        return self._wire.send(one.topic, one.payload, one.qos, one.retain, one.correlation)

    def acknowledge(self, mid: int, qos: int) -> None:
        """The broker need not send that again."""
        self._wire.acknowledge(mid, qos)

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Ask for these; ``Subscribing`` says what comes of it."""
        self.subscribing.asked = tuple(subscriptions)
        if subscriptions:
            self._wire.ask_for(subscriptions)
        else:
            self._owner.emit(self, Subscribed())

    def subscribe_too(self, more: Sequence[Subscription]) -> None:
        """Ask for these beside the others; ``Subscribed`` comes when all were answered."""
        self._more += tuple(more)
        if not self.subscribing.asked:
            self._ask_for_more()

    def _ask_for_more(self) -> bool:
        more, self._more = self._more, ()
        if more:
            self.subscribe(more)
        return bool(more)

    # From the connect to the broker's answer.

    def _errand_is_done(self, errand: Work, now: float) -> None:
        self._errand = None
        self.failure = errand.take()
        if self.failure is not None:
            self.stage = Stage.OVER
            return
        self._wire.say_hello()
        self._is_greeted = True
        self.stage = Stage.PROBING
        self._answer_by, self._look_at = now + self.attempt.patience, now + self._wire.look_s
        self.write()

    def _probe(self, now: float) -> None:
        """What became of the CONNECT."""
        if self.refused is not None:
            kind = WrongVersion if self.refused == UNSUPPORTED_VERSION else Failed
            self._fail(kind(self.reason))
        elif self.connected_at is not None:
            self.stage = Stage.OPEN
        elif self._has_ended or now >= self._answer_by:
            version = "5" if self.protocol == 5 else "3.1.1"
            silent = f"the broker does not answer to MQTT {version}"
            if self.protocol == 5:
                self._fail(WrongVersion(silent))
            elif not self._has_ended:
                self._fail(Failed(silent))
            else:
                self.drop()
                self.stage = Stage.ASKING_WHY
                self._errand = self._wire.ask_why(Failed(silent))

    def _fail(self, failure: Failed) -> None:
        self.drop()
        self.failure = failure

    def _leave(self, now: float) -> None:
        if self._errand is not None or self.stage is Stage.OVER:
            self.drop()
            return
        self.write()
        if self._has_ended or now >= self._leave_by or self._wire.is_flushed:
            self.drop()

    # What the broker says (``WireOwner``).

    def accepted(self, session_present: bool, max_packet: int | None, window: int | None) -> None:
        self.connected_at = self._owner.monotonic()
        self.session_present, self.max_packet = session_present, max_packet
        self.window.size = min(WINDOW, window or WINDOW)
        if not self.closing:
            self._owner.opened(self)

    def turned_away(self, code: int, reason: str) -> None:
        self.refused, self.reason = code, f"the broker {REFUSED} ({reason})"

    def granted(self, each: Sequence[bool]) -> None:
        told = self.subscribing.answered(each, self._owner.monotonic())
        asks = self._ask_for_more()
        if told is not None and (told.refused or not asks):
            self._owner.emit(self, told)

    def delivered(self, read: Publish, qos: int, retain: bool, dup: bool) -> None:
        trouble = read.trouble
        try:
            topic = read.topic.decode()
        except UnicodeDecodeError:
            topic, trouble = "?", "its topic is not UTF-8"
        if trouble:
            if qos:
                self._wire.acknowledge(read.mid, qos)
            self._owner.pass_over(self, topic, trouble)
            return
        self._owner.emit(
            self,
            Delivery(
                *(topic, read.payload, qos, retain, dup, read.mid, self.number),
                *(read.reply_topic, read.correlation, self._wire.read_us),
            ),
        )

    def denied(self, mid: int, reason: str) -> None:
        sent = self.window.acknowledged(mid)
        topic = sent.topic if sent else ""
        log.warning("the broker refused a message of ours on %s (%s)", topic, reason)
        self._owner.emit(self, Denied(topic, reason))

    def acknowledged(self, mid: int) -> None:
        self.window.acknowledged(mid)

    def disconnected(self, code: int, reason: str, by_broker: bool) -> None:
        if self.refused is not None:
            pass  # why is known; paho calls the end that follows a protocol error
        elif by_broker:
            self.reason = f"the broker closed the connection ({reason})"
            self.taken_over = code == TAKEN_OVER
        elif self._wire.unreadable:
            self.reason = f"the broker sent {self._wire.unreadable}"
            self.explained = True
        elif code == PROTOCOL_ERROR:
            self.reason = "the broker sent what MQTT does not allow"
            self.explained = True
        self._silent = code == SILENCE
        self._has_ended = True
