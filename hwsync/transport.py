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
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from hwsync.address import BrokerUrl
from hwsync.protocol.errors import HwsyncError, TooLarge
from hwsync.protocol.limits import MAX_MESSAGE

log = logging.getLogger("hwsync.transport")

MAX_TOPIC: Final = 1_024  # bytes; far above root/user/kind/id, far below MQTT's own limit
WINDOW: Final = 20  # QoS 1 publishes under way; a large window makes paho slow
KEEPALIVE_S: Final = 20
CONNECT_S: Final = 5.0  # for one attempt: TCP, then the broker's answer
PROBE_S: Final = 3.0  # for the answer to MQTT 5: some brokers give none
SESSION_S: Final = 7 * 86_400  # how long a broker keeps a persistent session (MQTT 5 asks)
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0
STABLE_S: Final = 10.0  # a connection that lived so long resets the backoff
SHORT_S: Final = 5.0  # a connection that ends sooner may have been taken over
TAKEOVERS: Final = 3  # so many short ones within a minute are no accident
MINUTE_S: Final = 60.0

_UNSUPPORTED_VERSION: Final = 132
_TAKEN_OVER: Final = 142
_FIRST_FAILURE: Final = 128  # reason codes from here on say no


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us when we vanish; QoS 1."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass(frozen=True, slots=True)
class Subscription:
    """A filter; ``no_local`` (not our own publishes) is honoured under MQTT 5 only."""

    topic: str
    qos: int = 1
    no_local: bool = False


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted us; before any delivery of this connection. ``protocol`` is 4 or 5."""

    session_present: bool
    protocol: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """From now on nothing that is published is missed: publish all that is due."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection ended, or (``was_connected`` false) an attempt failed."""

    reason: str
    was_connected: bool


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message; ``connection`` says on which connection, for the acknowledgement."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int
    connection: int


Signal = Connected | Subscribed | Disconnected | Delivery


class _Failed(Exception):
    """An attempt ended without a connection; the message is for people."""


class _WrongVersion(_Failed):
    """The broker does not speak this version of MQTT."""


class _Link:
    """One connection: one paho client from its connect to its end."""

    def __init__(self, owner: Transport, number: int, client_id: str, protocol: int) -> None:
        self.number = number
        self.protocol = protocol
        self.answered = threading.Event()
        self.ended = threading.Event()
        self.refused: int | None = None
        self.reason = "the broker closed the connection"
        self.taken_over = False
        self.closing = False
        self.connected_at: float | None = None
        self._owner = owner
        self._idle = threading.Condition()
        self._under_way = 0
        # paho writes to sockets that another thread may close at that moment: one at a time.
        self._gate = threading.Lock()
        self._released = False
        url = owner.url
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTv5 if protocol == 5 else MQTTv311,
            transport="websockets" if url.scheme == "ws" else "tcp",
            reconnect_on_failure=False,
            manual_ack=True,
            **({} if protocol == 5 else {"clean_session": owner.clean_session}),
        )
        self.client.connect_timeout = CONNECT_S
        self.client.max_inflight_messages_set(WINDOW)
        if url.scheme == "ws":
            self.client.ws_set_options(url.path)
        if url.username is not None:
            self.client.username_pw_set(url.username, url.password)
        self.client.on_socket_open = _no_delay
        self.client.on_connect = self._guard(self._on_connect)
        self.client.on_disconnect = self._guard(self._on_disconnect)
        self.client.on_subscribe = self._guard(self._on_subscribe)
        self.client.on_message = self._guard(self._on_message)
        self.client.on_publish = self._guard(self._on_publish)

    def open(self, *, clean: bool, keep: bool, probe: bool, patience: float) -> None:
        """Connect and wait for the broker's answer. Raises ``_Failed``."""
        properties = None
        if keep:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_S
        v5: dict[str, Any] = {"clean_start": clean, "properties": properties}
        if probe:
            self.client.on_connect = self._guard(self._on_probe)
        url = self._owner.url
        try:
            self.client.connect(
                url.host, url.port, KEEPALIVE_S, **(v5 if self.protocol == 5 else {})
            )
        except OSError as error:
            raise _Failed(error.strerror or str(error) or "no connection") from None
        except ValueError as error:
            raise _Failed(str(error)) from None
        self.client.loop_start()
        self.answered.wait(patience)
        if self.refused is not None:
            text = self.reason
            self.close()
            raise _WrongVersion(text) if self.refused == _UNSUPPORTED_VERSION else _Failed(text)
        if self.connected_at is None:
            self.close()
            silent = f"the broker does not answer to MQTT {'5' if self.protocol == 5 else '3.1.1'}"
            raise _WrongVersion(silent) if self.protocol == 5 else _Failed(silent)

    def close(self) -> None:
        """End the connection: politely where it stands, and the thread with it."""
        self.leave()
        self.release()
        self.ended.set()

    def leave(self) -> None:
        """Tell the broker that we go, so that it publishes no will."""
        self.closing = True
        with self._gate:
            if not self._released:
                self.client.disconnect()

    def release(self) -> None:
        """Wait for paho's thread and close its sockets: else only the garbage collector would."""
        self.client.loop_stop()
        with self._gate:
            self._released = True
            self.client._reset_sockets()

    def alive(self) -> bool:
        """Whether paho's thread runs: a dead one leaves ``is_connected`` true for ever."""
        thread = self.client._thread
        return thread is not None and thread.is_alive()

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> bool:
        with self._gate:
            if self._released:
                return False
            with self._idle:
                self._under_way += 1
            info = self.client.publish(topic, payload, qos, retain)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            return True
        self._done()
        return False

    def acknowledge(self, mid: int, qos: int) -> None:
        with self._gate:
            if not self._released:
                self.client.ack(mid, qos)

    def flush(self, timeout: float) -> bool:
        with self._idle:
            return self._idle.wait_for(lambda: self._under_way <= 0 or self.ended.is_set(), timeout)

    def _done(self) -> None:
        with self._idle:
            self._under_way -= 1
            if self._under_way <= 0:
                self._idle.notify_all()

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback would end paho's thread, silently."""

        def guarded(*args: Any) -> None:
            try:
                callback(*args)
            except Exception:
                log.exception("hwsync failed on something the broker sent; this is a bug")

        return guarded

    def _on_probe(self, _: Client, __: object, ___: object, code: Any, *____: object) -> None:
        self._note(code)
        self.answered.set()

    def _on_connect(self, _: Client, __: object, flags: Any, code: Any, *___: object) -> None:
        self._note(code)
        if self.refused is None and not self.closing:
            self._owner._opened(self, bool(flags.session_present))
        self.answered.set()

    def _note(self, code: Any) -> None:
        if code.value >= _FIRST_FAILURE:
            self.refused = code.value
            self.reason = f"the broker refused the connection ({str(code).lower()})"
        else:
            self.connected_at = time.monotonic()

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        if not subscriptions:
            self._owner._emit(self, Subscribed())
        elif self.protocol == 5:
            self.client.subscribe(
                [
                    (s.topic, SubscribeOptions(s.qos, s.no_local, retainAsPublished=True))
                    for s in subscriptions
                ]
            )
        else:
            self.client.subscribe([(s.topic, s.qos) for s in subscriptions])

    def _on_subscribe(self, _: Client, __: object, ___: int, codes: Any, *____: object) -> None:
        pairs = zip(self._owner.subscriptions, codes, strict=False)
        refused = [sub.topic for sub, code in pairs if code.value >= _FIRST_FAILURE]
        if refused:
            log.error("the broker refuses to let us subscribe to %s", ", ".join(refused))
        self._owner._emit(self, Subscribed())

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("a message on a topic that is not UTF-8 was passed over")
            self.client.ack(message.mid, message.qos)
            return
        self._owner._emit(
            self,
            Delivery(
                topic,
                bytes(message.payload),
                message.qos,
                bool(message.retain),
                bool(message.dup),
                message.mid,
                self.number,
            ),
        )

    def _on_publish(self, _: Client, __: object, ___: int, code: Any, *____: object) -> None:
        if code.value >= _FIRST_FAILURE:
            log.error("the broker refused a message of ours (%s)", str(code).lower())
        self._done()

    def _on_disconnect(self, _: Client, __: object, flags: Any, code: Any, *___: object) -> None:
        if flags.is_disconnect_packet_from_server:
            self.reason = f"the broker closed the connection ({str(code).lower()})"
            self.taken_over = code.value == _TAKEN_OVER
        self.answered.set()
        self.ended.set()
        with self._idle:
            self._idle.notify_all()


def _no_delay(_: Client, __: object, sock: Any) -> None:
    raw = getattr(sock, "_socket", sock)  # paho wraps a websocket's
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


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
        takeover_hint: str = "",
    ) -> None:
        self.url = url
        self.client_id = client_id
        self.subscriptions = tuple(subscriptions)
        self.clean_session = clean_session
        self._on_signal = on_signal
        self._will = will
        self._prefer_v5 = prefer_v5
        self._takeover_hint = takeover_hint
        self._link: _Link | None = None
        self._numbers = 0
        self._stopping = threading.Event()
        self._short: deque[float] = deque(maxlen=TAKEOVERS)
        self._alarmed_at: float | None = None
        self._dice = random.Random()
        self._thread = threading.Thread(target=self._run, name="hwsync-transport", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether a publish would be sent now."""
        link = self._link
        return link is not None and not link.ended.is_set()

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
            self._thread.join(CONNECT_S + PROBE_S)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Send; False when not connected: then it is dropped, publish it at the next connect.

        Raises ``TooLarge`` above ``MAX_MESSAGE`` bytes or for a topic that no broker would take.
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
            return link.publish(topic, payload, qos, retain)
        except (ValueError, UnicodeError) as error:
            link._done()
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
            except _Failed as failure:
                log.warning("no connection to %s: %s", self.url, failure)
                self._tell(Disconnected(str(failure), False))
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

    def _connect(self) -> _Link:
        """A link that the broker accepted, in the best version that it speaks."""
        if self._prefer_v5:
            try:
                if self.clean_session:
                    return self._attempt(5)
                self._probe()
            except _WrongVersion as failure:
                log.debug("MQTT 3.1.1 with %s: %s", self.url, failure)
            else:
                return self._attempt(5)
        return self._attempt(4)

    def _attempt(self, protocol: int) -> _Link:
        self._numbers += 1
        link = _Link(self, self._numbers, self.client_id, protocol)
        if self._will is not None:
            will = self._will
            link.client.will_set(will.topic, will.payload, 1, will.retain)
        keep = protocol == 5 and not self.clean_session
        patience = PROBE_S if protocol == 5 and self.clean_session else CONNECT_S
        link.open(clean=self.clean_session, keep=keep, probe=False, patience=patience)
        return link

    def _probe(self) -> None:
        """Ask for MQTT 5 under another name and without properties.

        amqtt never answers a connect with properties; and a connect under our own name that
        asks for no session would end the one that the broker keeps.
        """
        link = _Link(self, 0, f"hwsync-probe-{secrets.token_hex(6)}", 5)
        link.open(clean=True, keep=False, probe=True, patience=PROBE_S)
        link.close()

    def _opened(self, link: _Link, session_present: bool) -> None:
        self._link = link
        log.info(
            "connected to %s as %s, MQTT %s",
            self.url,
            self.client_id,
            "5" if link.protocol == 5 else "3.1.1",
        )
        self._tell(Connected(session_present, link.protocol))
        link.subscribe(self.subscriptions)

    def _emit(self, link: _Link, signal: Signal) -> None:
        if link is self._link:
            self._tell(signal)

    def _tell(self, signal: Signal) -> None:
        try:
            self._on_signal(signal)
        except Exception:
            log.exception("hwsync failed on a signal of its transport; this is a bug")

    def _watch(self, link: _Link) -> None:
        """Stay until the link ends, one way or the other."""
        while not link.ended.wait(1.0):
            if self._stopping.is_set():
                link.leave()  # stopped while it was connecting
            elif not link.alive():
                link.reason = "the network thread died"
                log.error("%s; connecting anew", link.reason)
                break
        link.closing = True
        self._link = None
        link.release()
        if self._stopping.is_set():
            log.info("disconnected from %s", self.url)
        else:
            log.warning("lost the connection to %s: %s", self.url, link.reason)
            self._suspect(link)
        self._tell(Disconnected(link.reason, True))

    def _suspect(self, link: _Link) -> None:
        """Say it loudly when another client seems to use our id."""
        now = time.monotonic()
        if now - (link.connected_at or now) < SHORT_S:
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
