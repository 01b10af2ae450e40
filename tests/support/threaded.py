"""A connection with a thread that pumps it, for tests and benchmarks with threads of their own.

    inbox = queue.SimpleQueue()
    transport = Transport(url, "c", on_signal=inbox.put, subscriptions=[...])
    transport.start()
    while signal := inbox.get(): ...
    transport.stop()

The law: signals come from its thread, in order; any other thread may call it at any time. What such
a thread publishes is written at once; what ``on_signal`` publishes, together when it has returned.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from hwsync.address import BrokerUrl
from hwsync.transport import (
    Connection,
    Delivery,
    Pump,
    Signal,
    Subscription,
    Waker,
    Will,
)

log = logging.getLogger("hwsync.tests")

JOIN_S: Final = 5.0  # for the thread to end, once it has left


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
    ) -> None:
        """As ``Connection``'s."""
        self._connection = Connection(
            url,
            client_id,
            subscriptions=subscriptions,
            will=will,
            clean_session=clean_session,
            prefer_v5=prefer_v5,
            guest=guest,
            takeover_hint=takeover_hint,
        )
        self._on_signal = on_signal
        # Held for each call of the connection; notified when something may have been acknowledged.
        self._changed = threading.Condition()
        self._waker: Waker | None = None  # from ``start`` to the thread's end
        self._thread = threading.Thread(target=self._run, name="hwsync-transport", daemon=True)

    @property
    def url(self) -> BrokerUrl:
        """Where the broker is."""
        return self._connection.url

    @property
    def connected(self) -> bool:
        """Whether a publish would be sent now."""
        return self.connection != 0

    @property
    def alive(self) -> bool:
        """Whether the thread lives that connects, sends and receives."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to connect, in a thread of its own; returns at once."""
        self._waker = Waker()
        self._connection.start()
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Wait at most ``timeout`` seconds for what is under way, then leave without a will."""
        ours = self._thread is threading.current_thread()
        if not ours:
            self.flush(timeout)
        with self._changed:
            self._connection.leave()
            self._wake()
        if self._thread.is_alive() and not ours:
            self._thread.join(JOIN_S)

    @property
    def connection(self) -> int:
        """The number of the present connection; 0: there is none."""
        with self._changed:
            return self._connection.connection

    @property
    def all_acknowledged(self) -> bool:
        """Whether the broker has acknowledged everything that was sent on this connection."""
        with self._changed:
            return self._connection.all_acknowledged

    def under_way(self, topic: str) -> bool:
        """Whether a message on that topic was sent on this connection and not acknowledged."""
        with self._changed:
            return self._connection.under_way(topic)

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

        ``correlation``: MQTT 5's data of that name. Raises ``TooLarge`` above ``MAX_MESSAGE``
        bytes or for a topic that no broker would take.
        """
        with self._changed:
            sent = self._connection.publish(
                topic, payload, qos=qos, retain=retain, correlation=correlation
            )
            self._write()
        return sent

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that it need not send this again; nothing for an earlier connection."""
        with self._changed:
            self._connection.acknowledge(delivery)
            self._write()

    def flush(self, timeout: float) -> bool:
        """True when the broker acknowledged every QoS 1 publish of this connection in time."""
        connection = self._connection
        with self._changed:
            number = connection.connection
            if not number:
                return False
            return self._changed.wait_for(
                lambda: connection.all_acknowledged or connection.connection != number, timeout
            ) and (connection.all_acknowledged and connection.connection == number)

    def _write(self) -> None:
        """What our own thread says goes out together, when it has said all of it."""
        if self._thread is threading.current_thread():
            return
        self._connection.write()
        if self._connection.wants_write:
            self._wake()

    def _wake(self) -> None:
        if self._waker is not None:
            self._waker.wake()

    def _run(self) -> None:
        waker = self._waker
        assert waker is not None
        pump = Pump(self._connection, waker)
        while True:
            with self._changed:
                if self._connection.is_over:
                    waker.close()
                    self._waker = None
                    return
                watched = pump.watched()
            readable = pump.poll(watched)
            with self._changed:
                signals = self._connection.handle(time.monotonic(), readable)
            for signal in signals:
                self._tell(signal)
            with self._changed:
                self._connection.write()
                self._changed.notify_all()

    def _tell(self, signal: Signal) -> None:
        try:
            self._on_signal(signal)
        except Exception:
            log.exception("hwsync failed on a signal of its transport; this is a bug")
