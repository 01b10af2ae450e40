"""A connection that mends itself, as a machine that its owner pumps: it has no thread.

The law: every connection is a fresh paho client. What a client queued before a disconnect dies with
it, so that no old status can overwrite a newer retained one; whoever publishes does so again when
``Subscribed`` comes. Nothing is acknowledged to the broker before ``acknowledge`` is called.

It rests until its next connect is due, or has one ``Link``, which is connecting, probing or open
(``Link.Stage``). The owner waits for what ``fileno``, ``wants_write`` and ``next_at`` say, and then
calls ``handle``, which returns what came; ``Pump`` does that waiting. paho itself never adds jitter
to its pauses, and resets them at each success: both are mended here (docs/decisions.md).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.protocol.errors import HwsyncError, TooLarge
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.transport.connecting import PEEK, Attempt, attempts
from hwsync.transport.failed import Failed, Taken, WrongVersion
from hwsync.transport.link import Link, Stage
from hwsync.transport.paho_wire import PahoWire
from hwsync.transport.signals import (
    Connected,
    Delivery,
    Disconnected,
    PassedOver,
    Signal,
    Subscription,
    Will,
)
from hwsync.transport.takeovers import MINUTE_S, Takeovers
from hwsync.transport.wire import WireMaker

log = logging.getLogger("hwsync.transport")

MAX_TOPIC: Final = 1_024  # bytes; far above root/user/kind/id, far below MQTT's own limit
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0
STABLE_S: Final = 10.0  # a connection that lived so long resets the backoff

_BUG: Final = "an error inside hwsync"


class Connection:
    """One client of the broker, which connects again and again from ``start`` until it leaves.

    Not for two threads at a time. Moments are monotonic seconds. A broker that is not there, or
    goes, raises nothing: ``handle`` returns ``Disconnected``, and the next connect comes by itself,
    after a pause that doubles from ``BACKOFF_FIRST_S`` to ``BACKOFF_MAX_S``, less up to half of it
    by chance. Whoever publishes says all that is due again when ``Subscribed`` comes
    (docs/protocol.md, section 2, "Publishing").
    """

    def __init__(
        self,
        url: BrokerUrl,
        client_id: str,
        *,
        subscriptions: Sequence[Subscription],
        will: Will | None = None,
        clean_session: bool = True,
        prefer_v5: bool = False,
        guest: bool = False,
        takeover_hint: str = "",
        address: Callable[[], BrokerUrl] | None = None,
        wire: WireMaker = PahoWire,
        monotonic: Callable[[], float] = time.monotonic,
        dice: random.Random | None = None,
    ) -> None:
        """What a connection is, as long as it lives.

        ``subscriptions``: asked for at each connect, all at once. ``will``: what the broker says
        for us where we vanish. ``clean_session``: false where the broker is to keep what comes at
        QoS 1 while we are away. ``prefer_v5``: try MQTT 5 first, 3.1.1 where that is refused or not
        answered. ``guest``: not under a name of which the broker keeps a session, which we would
        end. ``takeover_hint``: what the log says is to be done where a second client has our id.
        ``address``: what ``url`` is to be at each connect, with the login of that moment. ``wire``
        makes what carries one link; ``dice`` draws the pauses.
        """
        self.url = url
        self.client_id = client_id
        self.subscriptions = tuple(subscriptions)
        self.clean_session = clean_session
        self.is_over = False  # it has left, and does not come back
        self._address = address
        self._will = will
        self._prefer_v5 = prefer_v5
        self._guest = guest
        self._takeover_hint = takeover_hint
        self._link: Link | None = None
        self._is_open = False  # the broker accepted the link
        self._attempts: list[Attempt] = []  # what is left of this connect
        self._numbers = 0
        self._worked = 0  # the version of MQTT of the last connection; 0: try the best one
        self._connect_at: float | None = None  # while it rests; None: it does not
        self._pause = BACKOFF_FIRST_S
        self._is_leaving = False
        self._takeovers = Takeovers()
        self._passed_over = 0
        self._passed_over_at: float | None = None  # when that was last said
        self.wire, self.monotonic = wire, monotonic
        self._dice = dice or random.Random()
        self._signals: list[Signal] = []  # that ``handle`` returns next

    # What its owner waits for.

    def fileno(self) -> int | None:
        """What is to be watched; None: nothing."""
        return None if self._link is None else self._link.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether ``handle`` has something to do as soon as ``fileno`` can be written."""
        return self._link is not None and self._link.wants_write

    @property
    def next_at(self) -> float | None:
        """When ``handle`` has something to do by itself; None: never."""
        return self._connect_at if self._link is None else self._link.next_at

    def handle(self, now: float, readable: bool = False) -> list[Signal]:
        """Go on as far as that is possible without waiting; what came, in order.

        ``readable``: the descriptor of ``fileno`` can be read, or is broken. Raises nothing: what
        fails here is a bug, which is logged and ends the connection like a fault of the network. A
        ``Delivery`` that nobody acknowledges comes again, at QoS 1.
        """
        try:
            self._go_on(now, readable)
        except Exception:
            log.exception("hwsync failed on its connection to %s; this is a bug", self.url)
            self._break(now)
        signals, self._signals = self._signals, []
        return signals

    # What it is told.

    def start(self) -> None:
        """Connect at the next ``handle``, and from then on whenever a connection has ended."""
        self._connect_at = self.monotonic()

    def leave(self) -> None:
        """Leave without a will, and do not come back: ``is_over`` then, after some ``handle``."""
        self._is_leaving = True
        self._connect_at = None
        if self._link is None:
            self.is_over = True
        else:
            self._link.leave(self.monotonic())

    def close(self) -> None:
        """The end, now: with a DISCONNECT, so without a will, where that does not block."""
        self._is_leaving = self.is_over = True
        self._connect_at = None
        self._is_open = False
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    def reconnect(self, reason: str) -> None:
        """End the connection, or the attempt under way; the next one begins at once.

        ``reason`` is for the log. What was begun before has the address of before.
        """
        link = self._link
        if self._connect_at is not None:
            self._connect_at = self.monotonic()
        elif link is not None and self._is_open:
            link.reason, link.explained, link.by_us = reason, True, True
            self._is_open = False
            link.leave(self.monotonic())
        elif link is not None and not link.closing:
            log.info("the connection to %s is begun anew: %s", self.url, reason)
            self._link = None
            link.drop()
            self._connect_at = self.monotonic()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        """Send with the next ``write``; False when not connected: it is dropped then.

        True promises nothing: ``all_acknowledged`` says whether the broker has it, and a
        ``Disconnected`` names what it never acknowledged. ``correlation``: MQTT 5's data of that
        name (3.3.2.3.6). Raises ``TooLarge`` above ``MAX_MESSAGE`` bytes or ``MAX_TOPIC`` of the
        topic, and ``HwsyncError`` for a topic that is empty, has a wildcard or is not UTF-8.
        Nothing is sent then, and the connection goes on.
        """
        if len(payload) > MAX_MESSAGE:
            raise TooLarge(
                f"a message of {len(payload)} bytes on {topic[:80]}", f"at most {MAX_MESSAGE}"
            )
        if len(topic.encode(errors="replace")) > MAX_TOPIC:
            raise TooLarge(f"a topic of {len(topic)} characters", f"at most {MAX_TOPIC} bytes")
        link = self._link
        if link is None or not self._is_open:
            return False
        try:
            return link.publish(topic, payload, qos, retain, correlation)
        except (ValueError, UnicodeError) as error:
            raise HwsyncError(f"cannot publish on {topic[:80]!r}: {error}") from None

    def subscribe(self, more: Sequence[Subscription]) -> None:
        """Hear these too, at once and after each connect; ``Subscribed`` comes again then."""
        new = tuple(one for one in more if one not in self.subscriptions)
        self.subscriptions += new
        if new and self._link is not None and self._is_open:
            self._link.subscribe_too(new)

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that it need not send this again (PUBACK): once what follows is saved.

        Nothing for a delivery of an earlier connection: it comes again on this one.
        """
        if self.connection == delivery.connection and delivery.qos and self._link is not None:
            self._link.acknowledge(delivery.mid, delivery.qos)

    def write(self) -> None:
        """Write what was said, as much as the kernel takes; ``handle`` writes the rest."""
        if self._link is not None:
            self._link.write()

    # What is known of it.

    @property
    def connection(self) -> int:
        """The number of the present connection; 0: there is none."""
        return self._link.number if self._link is not None and self._is_open else 0

    @property
    def backlog(self) -> int:
        """Bytes that were published on this connection and not acknowledged by the broker."""
        return self._link.window.backlog if self._link is not None and self._is_open else 0

    @property
    def is_full(self) -> bool:
        """Whether something that was published waits until the broker has acknowledged more."""
        return self._link is not None and self._is_open and self._link.window.is_full

    @property
    def all_acknowledged(self) -> bool:
        """Whether the broker has acknowledged everything that was sent on this connection."""
        return self._link is not None and self._is_open and self._link.window.is_empty

    def under_way(self, topic: str) -> bool:
        """Whether a message on that topic was sent on this connection and not acknowledged."""
        link = self._link
        return link is not None and link.window.has(topic)

    # From rest to an open link, and back.

    def _go_on(self, now: float, readable: bool) -> None:
        if self._link is None:
            if self._connect_at is not None and now >= self._connect_at:
                self._connect_at = None
                self._connect()
            return
        self._link.handle(now, readable)
        self._look_at(self._link, now)

    def _look_at(self, link: Link, now: float) -> None:
        if link.failure is not None:
            self._link = None
            self._failed(link, link.failure, now)
        elif link.number == 0 and link.connected_at is not None:
            self._peeked(link, now)
        elif link.stage is Stage.OVER:
            self._ended(link, now)

    def _connect(self) -> None:
        """Begin the first attempt: the version that worked is the only one, until it fails."""
        if self._address is not None:
            self.url = self._address()
        worked, self._worked = self._worked, 0
        self._attempts = list(attempts(self.clean_session, self._prefer_v5, worked))
        if self._guest and (self.url.username or self.url.tls.certificate):
            self._link = Link(self, 0, self.client_id, PEEK)
        else:
            self._attempt()

    def _attempt(self) -> None:
        self._numbers += 1
        attempt = self._attempts.pop(0)
        self._link = Link(self, self._numbers, self.client_id, attempt, self._will)

    def _peeked(self, link: Link, now: float) -> None:
        """Go away where the broker keeps a session under the name that it gives us.

        A clean connection would end it. Without an account there is no other name to be given.
        """
        present, secured = link.session_present, link.secured
        self._link = None
        link.drop()
        if self._is_leaving:
            self.is_over = True
        elif present:
            self._signals.append(Connected(True, PEEK.protocol, secured))
            account = self.url.username or "its certificate's owner"
            self._say_failed(
                Taken(
                    f"the broker takes us for {account}, whose session it keeps; "
                    "it was left as it is",
                    "take an operator's file: hwsync operator add NAME makes one",
                )
            )
            self._rest(now)
        else:
            self._attempt()

    def _failed(self, link: Link, failure: Failed, now: float) -> None:
        """An attempt came to nothing."""
        if self._is_leaving:
            self.is_over = True
        elif isinstance(failure, WrongVersion) and self._attempts and link.number:
            log.debug("not MQTT %d with %s: %s", link.protocol, self.url, failure)
            self._attempt()
        else:
            self._say_failed(failure)
            self._rest(now)

    def _say_failed(self, failure: Failed) -> None:
        level = logging.DEBUG if isinstance(failure, Taken) else logging.WARNING
        log.log(level, "no connection to %s: %s", self.url, failure)
        self._signals.append(Disconnected(failure.reason, False, failure.cure))

    def _ended(self, link: Link, now: float) -> None:
        """The link is over, one way or the other."""
        self._link, self._is_open = None, False
        link.drop()
        if link.connected_at is None:
            self.is_over = True  # we left before the broker's answer: else there is a failure
            return
        lived = now - link.connected_at
        if self._is_leaving:
            self.is_over = True
            log.info("disconnected from %s", self.url)
        else:
            log.warning("lost the connection to %s: %s", self.url, link.reason)
            explained = link.explained or link.hung_up
            if self._takeovers.ended(now, lived, named=link.taken_over, explained=explained):
                log.warning(
                    "ANOTHER CLIENT USES THE ID %r on %s: each connect ends the other's "
                    "connection; %s",
                    *(self.client_id, self.url, self._takeover_hint or "stop one of the two"),
                )
            if lived > STABLE_S:
                self._pause = BACKOFF_FIRST_S
            self._rest(now)
        self._signals.append(
            Disconnected(link.reason, True, hung_up=link.hung_up, unanswered=link.window.unanswered)
        )

    def _rest(self, now: float) -> None:
        self._connect_at = now + self._pause * (0.5 + self._dice.random() / 2)
        self._pause = min(2 * self._pause, BACKOFF_MAX_S)

    def _break(self, now: float) -> None:
        """Something of ours failed: begin anew."""
        link, was_open = self._link, self._is_open
        self._link, self._is_open = None, False
        if link is not None:
            link.drop()
        unanswered = link.window.unanswered if link is not None and was_open else ()
        self._signals.append(Disconnected(_BUG, was_open, unanswered=unanswered))
        if self._is_leaving:
            self.is_over = True
        else:
            self._rest(now)

    # What the link says.

    def opened(self, link: Link) -> None:
        """The broker accepted us."""
        if link.number == 0:
            return  # a mere look
        self._is_open = True
        self._worked = link.protocol
        secured = link.secured
        log.info(
            "connected to %s as %s, MQTT %s%s",
            self.url,
            self.client_id,
            "5" if link.protocol == 5 else "3.1.1",
            f", {secured.version}" if secured else "",
        )
        self._signals.append(
            Connected(link.session_present, link.protocol, secured, link.max_packet)
        )
        link.subscribe(self.subscriptions)

    def emit(self, link: Link, signal: Signal) -> None:
        """Something came on it; what comes while it is left is for its next life."""
        if self._is_open:
            self._signals.append(signal)

    def pass_over(self, link: Link, topic: str, reason: str) -> None:
        """A message came that cannot be read, and was acknowledged."""
        self._passed_over += 1
        now = self.monotonic()
        if self._passed_over_at is None or now - self._passed_over_at >= MINUTE_S:
            self._passed_over_at = now
            log.error(
                "a message on %s is passed over: %s (%d so far)", topic, reason, self._passed_over
            )
        self.emit(link, PassedOver(reason))
