"""One connection for many talks at a time, served by a thread of its own.

The law: only that thread touches the connection and the talks; whoever else wants something leaves
an order. Nothing that a user has written runs in it. Whatever becomes of the line, each order is
done or told why it is not, and each talk ends: with what it returns, or by being closed.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from typing import Any, Final

from hwsync.address import BrokerUrl
from hwsync.operator.conversation import ANSWER_S, Conversation, Standing, T, Talk
from hwsync.operator.offering import awaiting
from hwsync.operator.reaching import CONNECT_S, LEAVE_S, lab, no_broker, of_lab, of_users
from hwsync.operator.switchboard import Switchboard
from hwsync.protocol.errors import Closed, HwsyncError, NoBroker
from hwsync.protocol.topics import ITSELF, TopicKind, Topics
from hwsync.transport import (
    Connected,
    Connection,
    Delivery,
    Disconnected,
    Pump,
    Signal,
    Subscribed,
    Subscription,
    Waker,
)

log = logging.getLogger("hwsync.operator")

INQUIRE_S: Final = 1.0  # at least, between two questions how the coordinator is
LOOK_S: Final = 0.02  # between two looks whether the broker has something
JOIN_S: Final = LEAVE_S + 2.0  # for the thread to end, when it was told to


class Line:
    """The connection of one program to one lab.

        line = Line(url, Topics("hw"))
        line.open()
        line.order(lambda: line.begin(talk, "pi1"), otherwise=print)
        line.close()

    ``open``, ``order`` and ``close`` are for any thread, all else for orders and talks. The broker
    may go and come back: the connection does so too. Talks that wait for an answer say when they
    have waited long enough.
    """

    def __init__(self, url: BrokerUrl, topics: Topics, client: str = "hwsync-py") -> None:
        """``client``: begins the client id."""
        self.url, self.topics = url, topics
        self.standing = Standing()
        client_id = f"{client}-{secrets.token_hex(6)}"
        self._connection = Connection(
            url, client_id, subscriptions=of_lab(topics), prefer_v5=True, guest=True
        )
        self._waker = Waker()
        self._pump = Pump(self._connection, self._waker)
        self._board = Switchboard(self._connection.acknowledge, user_of=self._user_of)
        self._orders: deque[tuple[Callable[[], object], Callable[[HwsyncError], object]]] = deque()
        self._lock = threading.Lock()  # over orders and end
        self._end: HwsyncError | None = None  # why nothing is taken any more
        self._leaves = False
        self._opened: Future[None] = Future()
        self._asked: set[str] = set()  # users that were subscribed to
        self._hears_analysts = False
        self._heard: set[str] = set()  # and since this connect answered
        self._inquired = -inf
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._serve, name=client_id, daemon=True)

    # For any thread.

    def open(self) -> None:
        """Connect, for at most ``CONNECT_S``. Raises ``NoBroker``: why, and what to do."""
        self._thread.start()
        try:
            self._opened.result(CONNECT_S)
        except TimeoutError:
            self.close()
            raise no_broker(self.url, "no answer", "") from None
        except BaseException:
            self.close()
            raise

    def order(
        self, do: Callable[[], object], otherwise: Callable[[HwsyncError], object] = lambda _: None
    ) -> None:
        """Have the thread do something soon; what it raises, or why it is not done: ``otherwise``.

        Raises ``Closed`` where nothing is taken any more.
        """
        with self._lock:
            if self._process != os.getpid():
                raise Closed("a forked process does not have its parent's connection", "connect()")
            if self._end is not None:
                raise self._end
            self._orders.append((do, otherwise))
            self._waker.wake()

    def ask(self, make: Callable[[], Talk[T]], user: str) -> Future[T]:
        """Have a talk go on as ``begin`` does; the future is what it returns, or raises."""
        told: Future[T] = Future()

        def tell(ended: Future[T]) -> None:
            if ended.cancelled():
                told.set_exception(Closed("the connection to the lab was closed"))
            elif (error := ended.exception()) is not None:
                told.set_exception(error)
            else:
                told.set_result(ended.result())

        self.order(
            lambda: self._board.begin(make(), user).add_done_callback(tell), told.set_exception
        )
        return told

    def close(self) -> None:
        """Leave the broker. What was ordered is still said; nobody waits for an answer to it."""
        if self._process != os.getpid():
            return
        with self._lock:
            if self._end is None:
                self._leaves = True
                self._waker.wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    # For orders and talks.

    def begin(self, talk: Talk[Any], user: str) -> None:
        """Let it go on until it ends; it hears of that user, and of the connection."""
        self._board.begin(talk, user)

    def conversation(self, user: str) -> Conversation:
        """With a user whose topics it hears, or will (``hearing_of``)."""
        return Conversation(
            self.topics,
            user,
            self._say,
            lab=lab(self.url, self.topics, user),
            inquire=self.inquire,
            standing=self.standing,
        )

    def hearing_of(self, user: str) -> Talk[None]:
        """Until nothing that is said of that user is missed.

        Raises ``NoBroker`` where the connection is away for ``ANSWER_S``.
        """
        if user not in self._asked:
            self._asked.add(user)
            self._connection.subscribe(of_users(self.topics, [user], live=True))
        limit = time.monotonic() + ANSWER_S
        while user not in self._heard:
            left = limit - time.monotonic()
            if left <= 0.0:
                raise NoBroker(f"{self.url} has been away for {ANSWER_S:g} s", "is it running?")
            yield left

    def hearing_of_analysts(self, conversation: Conversation, analyser: str) -> Talk[None]:
        """Until one that is online offers it. Raises ``NotFound`` where none does."""
        if not self._hears_analysts:
            self._hears_analysts = True
            self._connection.subscribe([Subscription(self.topics.analyst("+"))])
        yield from awaiting(conversation, analyser)

    def bringing(self, conversation: Conversation, kind: TopicKind, payload: bytes) -> Talk[None]:
        """Until the broker has this, perhaps twice. Raises ``NoBroker`` after ``ANSWER_S``."""
        topic, limit = self.topics.of(conversation.user, kind), time.monotonic() + ANSWER_S
        said = 0  # on which connection
        while not said or said != self._connection.connection or self._connection.under_way(topic):
            if time.monotonic() >= limit:
                raise NoBroker(f"{self.url} did not acknowledge", "try again")
            if said != self._connection.connection and (said := self._connection.connection):
                conversation.publish(kind, payload)
            yield LOOK_S

    def inquire(self) -> None:
        """Have the coordinator say how it is, and whom it hears; at QoS 0, and not too often."""
        now = time.monotonic()
        if now - self._inquired >= INQUIRE_S:
            self._inquired = now
            self._say(self.topics.of(ITSELF, TopicKind.QUERY), b"", qos=0)

    def _say(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        self._connection.publish(topic, payload, qos=qos)

    def _user_of(self, delivery: Delivery) -> str | None:
        user, _ = self.topics.split(delivery.topic)
        return user if user and user != ITSELF else None

    # The thread.

    def _serve(self) -> None:
        end: HwsyncError = Closed("the connection to the lab was closed")
        try:
            self._connection.start()
            self._board.begin(self._listening_to_the_coordinator(), ITSELF)
            while not self._leaves:
                self._take_orders()
                for signal in self._pump.wait(self._board.patience):
                    self._hear(signal)
                if self._board.patience <= 0.0:
                    self._board.hear(None)
            self._take_orders()
            self._pump.leave(LEAVE_S)
        except BaseException:
            log.exception("hwsync failed on its connection to %s; this is a bug", self.url)
            end = Closed("hwsync failed on its connection to the lab", "the log has more")
        finally:
            self._finish(end)

    def _finish(self, end: HwsyncError) -> None:
        self._connection.close()
        with self._lock:
            self._end = end
            left, self._orders = self._orders, deque()
            self._waker.close()
        self._board.close()
        for _, otherwise in left:
            otherwise(end)
        if not self._opened.done():
            self._opened.set_exception(end)

    def _take_orders(self) -> None:
        while self._orders:
            do, otherwise = self._orders.popleft()
            try:
                do()
            except HwsyncError as error:
                otherwise(error)
            except Exception as error:
                log.exception("hwsync failed; this is a bug")
                otherwise(HwsyncError(f"hwsync failed: {error!r}", "the log has more"))

    def _hear(self, signal: Signal) -> None:
        if isinstance(signal, Disconnected):
            self._heard.clear()
            if not signal.was_connected and not self._opened.done():
                self._opened.set_exception(no_broker(self.url, signal.reason, signal.cure))
        elif isinstance(signal, Connected):
            self._heard.clear()
        elif isinstance(signal, Subscribed):
            self._heard |= self._asked
            if not self._opened.done():
                self._opened.set_result(None)
        self._board.hear(signal)

    def _listening_to_the_coordinator(self) -> Talk[None]:
        """``standing`` knows what it says of itself."""
        conversation = self.conversation(ITSELF)
        while True:
            with suppress(HwsyncError):
                yield from conversation.hearing(inf, ())
