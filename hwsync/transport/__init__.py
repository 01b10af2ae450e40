"""The one place with paho: a connection that mends itself, an inbox, acknowledgement by hand.

The law: every connection is a fresh paho client. What a client queued before a disconnect dies with
it, so that no old status can overwrite a newer retained one; whoever publishes does so again when
``Subscribed`` comes. Nothing is acknowledged to the broker before ``acknowledge`` is called.

    inbox = queue.SimpleQueue()
    transport = Transport(url, "hwsync-device-pi1", on_signal=inbox.put, subscriptions=[...])
    transport.start()
    while signal := inbox.get(): ...
    transport.stop()

Signals come from the network thread, in order. paho itself never sets TCP_NODELAY (a round trip
then takes 40 ms), never adds jitter, and lets its thread die with the first exception of a
callback: all three are mended here (docs/decisions.md).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.protocol.errors import HwsyncError, TooLarge
from hwsync.protocol.limits import MAX_MESSAGE
from hwsync.transport.connecting import CONNECT_S, PEEK, V5_ANSWER_S, Attempt, attempts
from hwsync.transport.failed import Failed, Taken, WrongVersion
from hwsync.transport.link import Link
from hwsync.transport.signals import (
    Connected,
    Delivery,
    Denied,
    Disconnected,
    PassedOver,
    Secured,
    Sent,
    Signal,
    Subscribed,
    Subscription,
    Will,
)

__all__ = [
    "Connected", "Delivery", "Denied", "Disconnected", "PassedOver", "Secured", "Sent", "Signal",
    "Subscribed", "Subscription", "Transport", "Will",
]  # fmt: skip

log = logging.getLogger("hwsync.transport")

MAX_TOPIC: Final = 1_024  # bytes; far above root/user/kind/id, far below MQTT's own limit
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0
STABLE_S: Final = 10.0  # a connection that lived so long resets the backoff
LOOK_S: Final = 1.0  # between two looks whether a connection's thread lives
SHORT_S: Final = 5.0  # a connection that ends sooner may have been taken over
TAKEOVERS: Final = 3  # so many short ones within a minute are no accident
MINUTE_S: Final = 60.0


class Transport:
    """A connection to the broker that comes back by itself until ``stop``."""

    def __init__(
        self,
        url: BrokerUrl,
        client_id: str,
        *,
        on_signal: Callable[[Signal], None],
        subscriptions: Sequence[Subscription],
        will: Will | None = None,
        clean_session: bool = True,
        prefer_v5: bool = False,
        guest: bool = False,
        takeover_hint: str = "",
        address: Callable[[], BrokerUrl] | None = None,
    ) -> None:
        """``address``: what ``url`` is to be at each connect, with the login of that moment."""
        self.url = url
        self._address = address
        self.client_id = client_id
        self.subscriptions = tuple(subscriptions)
        self.clean_session = clean_session
        self._on_signal = on_signal
        self._will = will
        self._prefer_v5 = prefer_v5
        self._guest = guest
        self._takeover_hint = takeover_hint
        self._link: Link | None = None
        self._numbers = 0
        self._worked = 0  # the version of MQTT of the last connection; 0: try the best one
        self._stopping = threading.Event()
        # Monotonic; ends of short connections of which the broker did not say why.
        self._short: deque[float] = deque(maxlen=TAKEOVERS)
        self._alarmed_at: float | None = None
        self._passed_over = 0
        self._passed_over_at: float | None = None  # when that was last said, monotonic
        self._dice = random.Random()
        self._thread = threading.Thread(target=self._run, name="hwsync-transport", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether a publish would be sent now."""
        return self.connection != 0

    @property
    def alive(self) -> bool:
        """Whether the threads live that connect, send and receive."""
        link = self._link
        reads = link is None or link.ended.is_set() or link.alive()
        return self._thread.is_alive() and reads

    def start(self) -> None:
        """Begin to connect, in a thread of its own; returns at once."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Wait at most ``timeout`` seconds for what is under way, then leave without a will."""
        if self._link is not None and not self._stopping.is_set():
            self.flush(timeout)
        self._stopping.set()
        link = self._link
        if link is not None:
            link.leave()
            link.ended.wait(1.0)
            link.ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CONNECT_S + V5_ANSWER_S)

    def reconnect(self, reason: str) -> None:
        """End the connection, if there is one; it comes back at once. ``reason`` is for the log."""
        link = self._link
        if link is not None:
            link.reason, link.explained, link.by_us = reason, True, True
            link.leave()
            link.ended.set()

    @property
    def connection(self) -> int:
        """The number of the present connection; 0: there is none."""
        link = self._link
        return 0 if link is None or link.ended.is_set() else link.number

    @property
    def backlog(self) -> int:
        """Bytes that were published on this connection and not acknowledged by the broker."""
        link = self._link
        return 0 if link is None or link.ended.is_set() else link.backlog

    @property
    def settled(self) -> bool:
        """Whether the broker has acknowledged everything that was sent on this connection."""
        link = self._link
        return link is not None and link.idle and not link.ended.is_set()

    def under_way(self, topic: str) -> bool:
        """Whether a message on that topic was sent on this connection and not acknowledged."""
        link = self._link
        return link is not None and any(one.topic == topic for one in link.unanswered)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
    ) -> bool:
        """Send; False when not connected: then it is dropped, publish it at the next connect.

        ``correlation``: MQTT 5\'s data of that name. Raises ``TooLarge`` above ``MAX_MESSAGE``
        bytes or for a topic that no broker would take.
        """
        if len(payload) > MAX_MESSAGE:
            raise TooLarge(
                f"a message of {len(payload)} bytes on {topic[:80]}", f"at most {MAX_MESSAGE}"
            )
        if len(topic.encode(errors="replace")) > MAX_TOPIC:
            raise TooLarge(f"a topic of {len(topic)} characters", f"at most {MAX_TOPIC} bytes")
        link = self._link
        if link is None or link.ended.is_set():
            return False
        try:
            return link.publish(topic, payload, qos, retain, correlation)
        except (ValueError, UnicodeError) as error:
            raise HwsyncError(f"cannot publish on {topic[:80]!r}: {error}") from None

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that it need not send this again; nothing for an earlier connection."""
        link = self._link
        if link is not None and link.number == delivery.connection and delivery.qos:
            link.acknowledge(delivery.mid, delivery.qos)

    def flush(self, timeout: float) -> bool:
        """True when the broker acknowledged every QoS 1 publish of this connection in time."""
        link = self._link
        return link is not None and link.flush(timeout) and not link.ended.is_set()

    def _run(self) -> None:
        pause = BACKOFF_FIRST_S
        while not self._stopping.is_set():
            try:
                link = self._connect()
            except Failed as failure:
                level = logging.DEBUG if isinstance(failure, Taken) else logging.WARNING
                log.log(level, "no connection to %s: %s", self.url, failure)
                self._tell(Disconnected(failure.reason, False, failure.cure))
            except Exception:
                log.exception("hwsync failed to connect to %s; this is a bug", self.url)
                self._tell(Disconnected("an error inside hwsync", False))
            else:
                self._watch(link)
                if time.monotonic() - (link.connected_at or 0.0) > STABLE_S:
                    pause = BACKOFF_FIRST_S
            if self._stopping.wait(pause * (0.5 + self._dice.random() / 2)):
                return
            pause = min(2 * pause, BACKOFF_MAX_S)

    def _connect(self) -> Link:
        """A link that the broker accepted, in the best version that it speaks. Raises ``Failed``.

        The version that worked is the only one that is tried again, until it fails.
        """
        if self._address is not None:
            self.url = self._address()
        if self._guest and (self.url.username or self.url.tls.certificate):
            self._peek()
        worked, self._worked = self._worked, 0
        *others, last = attempts(self.clean_session, self._prefer_v5, worked)
        for attempt in others:
            try:
                return self._attempt(attempt)
            except WrongVersion as failure:
                log.debug("not MQTT %d with %s: %s", attempt.protocol, self.url, failure)
        return self._attempt(last)

    def _attempt(self, attempt: Attempt) -> Link:
        self._numbers += 1
        link = Link(self, self._numbers, self.client_id, attempt)
        if self._will is not None:
            will = self._will
            link.client.will_set(will.topic, will.payload, 1, will.retain)
        link.open()
        self._worked = attempt.protocol
        return link

    def _peek(self) -> None:
        """Raises ``Taken`` where the broker keeps a session under the name that it gives us.

        A clean connection would end it. Without an account there is no other name to be given.
        """
        link = Link(self, 0, self.client_id, PEEK)
        link.open()
        present, secured = link.session_present, link.secured()
        link.close()
        if present:
            self._tell(Connected(True, PEEK.protocol, secured))
            account = self.url.username or "its certificate's owner"
            raise Taken(
                f"the broker takes us for {account}, whose session it keeps; it was left as it is",
                "take an operator's file: hwsync operator add NAME makes one",
            )

    def opened(self, link: Link) -> None:
        """For the link: it stands."""
        if link.number == 0:
            return  # a mere look
        self._link = link
        secured = link.secured()
        log.info(
            "connected to %s as %s, MQTT %s%s",
            self.url,
            self.client_id,
            "5" if link.protocol == 5 else "3.1.1",
            f", {secured.version}" if secured else "",
        )
        self._tell(Connected(link.session_present, link.protocol, secured, link.max_packet))
        link.subscribe(self.subscriptions)

    def emit(self, link: Link, signal: Signal) -> None:
        """For the link: something came on it; what an earlier one still brings is dropped."""
        if link is self._link:
            self._tell(signal)

    def pass_over(self, link: Link, topic: str, reason: str) -> None:
        """For the link: a message came that cannot be read, and was acknowledged."""
        self._passed_over += 1
        now = time.monotonic()
        if self._passed_over_at is None or now - self._passed_over_at >= MINUTE_S:
            self._passed_over_at = now
            log.error(
                "a message on %s is passed over: %s (%d so far)", topic, reason, self._passed_over
            )
        self.emit(link, PassedOver(reason))

    def _tell(self, signal: Signal) -> None:
        try:
            self._on_signal(signal)
        except Exception:
            log.exception("hwsync failed on a signal of its transport; this is a bug")

    def _watch(self, link: Link) -> None:
        """Stay until the link ends, one way or the other."""
        while not link.ended.wait(self._pause(link)):
            if self._stopping.is_set():
                link.leave()  # stopped while it was connecting
            elif not link.alive():
                link.reason = "the network thread died"
                log.error("%s; connecting anew", link.reason)
                break
            elif again := link.subscribing.again(time.monotonic()):
                link.subscribe(again)
        link.closing = True
        self._link = None
        link.release()
        if self._stopping.is_set():
            log.info("disconnected from %s", self.url)
        else:
            log.warning("lost the connection to %s: %s", self.url, link.reason)
            self._suspect(link)
        self._tell(
            Disconnected(link.reason, True, hung_up=link.hung_up, unanswered=link.unanswered)
        )

    def _pause(self, link: Link) -> float:
        wait = link.subscribing.wait(time.monotonic())
        return LOOK_S if wait is None else min(wait, LOOK_S)

    def _suspect(self, link: Link) -> None:
        """Say it loudly when another client seems to use our id.

        Not where the broker gave another reason, or may not have liked a message of ours.
        """
        now = time.monotonic()
        if now - (link.connected_at or now) < SHORT_S and not (link.explained or link.hung_up):
            self._short.append(now)
        often = len(self._short) == TAKEOVERS and now - self._short[0] < MINUTE_S
        quiet = self._alarmed_at is not None and now - self._alarmed_at < MINUTE_S
        if (link.taken_over or often) and not quiet:
            self._alarmed_at = now
            log.warning(
                "ANOTHER CLIENT USES THE ID %r on %s: each connect ends the other's connection; %s",
                self.client_id,
                self.url,
                self._takeover_hint or "stop one of the two",
            )
