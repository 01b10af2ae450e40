"""One connection: one paho client from its connect to its end. Nothing else imports paho.

The law: no exception leaves a callback, since it would end paho's thread in silence; nothing is
acknowledged by itself; what is sent while the connection ends is dropped, never queued.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from paho.mqtt.client import PUBLISH, Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from hwsync.address import BrokerUrl
from hwsync.protocol.limits import MAX_PROPERTIES
from hwsync.transport.connecting import CONNECT_S, Attempt
from hwsync.transport.failed import REFUSED, Failed, WrongVersion
from hwsync.transport.publish import Malformed, Publish, read_publish
from hwsync.transport.signals import (
    Delivery,
    Denied,
    Secured,
    Sent,
    Signal,
    Subscribed,
    Subscription,
)
from hwsync.transport.subscribing import Subscribing

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("hwsync.transport")

WINDOW: Final = 20  # QoS 1 publishes under way; a large window makes paho slow
KEEPALIVE_S: Final = 20
HANG_UP_S: Final = 5.0  # an end so soon after we sent something may be the answer to it
# How long a broker keeps a persistent session (MQTT 5 asks): without end, since one that is to end
# can crash mosquitto 2.0.11 when its account gets another password (docs/decisions.md, 131).
SESSION_S: Final = 0xFFFF_FFFF

_UNSUPPORTED_VERSION: Final = 132
_PROTOCOL_ERROR: Final = 130
_SILENCE: Final = 141  # the keep-alive ran out: paho's word for a connection that is lost
_TAKEN_OVER: Final = 142
_FIRST_FAILURE: Final = 128  # reason codes from here on say no


class Owner(Protocol):
    """What a link needs of the transport that it belongs to; called in paho's thread."""

    url: BrokerUrl

    def opened(self, link: Link) -> None:
        """The broker accepted us."""

    def emit(self, link: Link, signal: Signal) -> None:
        """Something came."""

    def pass_over(self, link: Link, topic: str, reason: str) -> None:
        """A message came that cannot be read, and was acknowledged."""


class _Client(Client):
    """paho leaves a socket open whose TLS or websocket does not come about.

    And before 2.2 it waits for a TLS handshake as long as a keepalive.
    """

    begun: socket.socket | None = None
    unreadable = ""  # what the broker sent, upon which the connection was ended here

    def _create_socket_connection(self) -> socket.socket:
        self.begun = super()._create_socket_connection()
        return self.begun

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        assert self._ssl_context is not None
        self.begun = sock = self._ssl_context.wrap_socket(
            tcp_sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        sock.settimeout(CONNECT_S)
        sock.do_handshake()
        return sock

    def _packet_handle(self) -> MQTTErrorCode:
        """paho unpacks the properties of any packet in quadratic time (see ``publish``)."""
        command, packet = self._in_packet["command"], self._in_packet["packet"]
        if command & 0xF0 != PUBLISH:
            if len(packet) > MAX_PROPERTIES:
                return self._refuse(f"a packet of {len(packet)} bytes that is no message")
            return super()._packet_handle()
        if self._protocol != MQTTv5:
            return super()._packet_handle()
        qos = command >> 1 & 3
        try:
            read = read_publish(qos, bytes(packet))
        except Malformed as error:
            return self._refuse(f"a message that cannot be read: {error}")
        message = MQTTMessage(read.mid, read.topic)
        message.payload, message.qos = read.payload, qos
        message.retain, message.dup = bool(command & 1), bool(command & 8)
        message.properties = read  # type: ignore[assignment]
        self._handle_on_message(message)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _refuse(self, what: str) -> MQTTErrorCode:
        self.unreadable = what
        return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def give_up(self) -> None:
        """Close what was begun and has led to no connection."""
        if self.begun is not None:
            self.begun.close()


class Link:
    """One connection: one paho client from its connect to its end."""

    def __init__(self, owner: Owner, number: int, client_id: str, attempt: Attempt) -> None:
        self.number = number
        self.attempt = attempt
        self.protocol = protocol = attempt.protocol
        self.answered = threading.Event()
        self.ended = threading.Event()
        self.refused: int | None = None
        self.reason = "the broker closed the connection"
        self.taken_over = False
        self.explained = False  # it is known why the connection ended
        self.by_us = False  # we ended it
        self.closing = False
        self.connected_at: float | None = None
        self.session_present = False
        self.max_packet: int | None = None  # bytes, where the broker says so
        self._owner = owner
        self.subscribing = Subscribing()
        self._idle = threading.Condition()
        # By packet identifier, in the order of sending; 0 for the one that paho is just given: the
        # broker may end the connection before paho has said its identifier.
        self._under_way: dict[int, Sent] = {}
        self.backlog = 0  # bytes that are under way, or wait for their turn
        self._early: set[int] = set()  # acknowledged before ``publish`` knew their number
        self._sent_at = 0.0  # monotonic; the last publish
        self._silent = False
        # paho writes to sockets that another thread may close at that moment: one at a time.
        self._gate = threading.Lock()
        self._released = False
        url = owner.url
        self.client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTv5 if protocol == 5 else MQTTv311,
            transport="websockets" if url.websockets else "tcp",
            reconnect_on_failure=False,
            manual_ack=True,
            **({} if protocol == 5 else {"clean_session": attempt.clean}),
        )
        self.client.connect_timeout = CONNECT_S
        self.client.max_inflight_messages_set(WINDOW)
        if url.websockets:
            self.client.ws_set_options(url.path)
        if url.username is not None:
            self.client.username_pw_set(url.username, url.password)
        self.client.on_socket_open = _no_delay
        self.client.on_connect = self._guard(self._on_connect)
        self.client.on_disconnect = self._guard(self._on_disconnect)
        self.client.on_subscribe = self._guard(self._on_subscribe)
        self.client.on_message = self._guard(self._on_message)
        self.client.on_publish = self._guard(self._on_publish)

    def open(self) -> None:
        """Connect and wait for the broker's answer. Raises ``Failed``."""
        v5: dict[str, Any] = {}
        if self.protocol == 5:
            v5["clean_start"] = self.attempt.clean
            if self.attempt.keep:
                v5["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                v5["properties"].SessionExpiryInterval = SESSION_S
        url = self._owner.url
        try:
            if url.encrypted:
                from hwsync.transport import tls

                self.client.tls_set_context(tls.context(url))
            self.client.connect(url.host, url.port, KEEPALIVE_S, **v5)
        except OSError as error:
            self.client.give_up()
            raise _why(url, error) from None
        except ValueError as error:
            self.client.give_up()
            raise Failed(str(error)) from None
        self.client.loop_start()
        self.answered.wait(self.attempt.patience)
        if self.refused is not None:
            text = self.reason
            self.close()
            raise WrongVersion(text) if self.refused == _UNSUPPORTED_VERSION else Failed(text)
        if self.connected_at is None:
            hung_up = self.ended.is_set()
            self.close()
            silent = f"the broker does not answer to MQTT {'5' if self.protocol == 5 else '3.1.1'}"
            if self.protocol == 5:
                raise WrongVersion(silent)
            raise (_hung_up(url) if hung_up else None) or Failed(silent)

    def secured(self) -> Secured | None:
        """What protects the connection; None: nothing."""
        if not self._owner.url.encrypted:
            return None
        from hwsync.transport import tls

        sock = self.client.socket()
        return tls.secured(getattr(sock, "_socket", sock))  # paho wraps a websocket's

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

    def publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, correlation: bytes = b""
    ) -> bool:
        properties = None
        if correlation and self.protocol == 5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        with self._gate:
            if self._released:
                return False
            message, mid = Sent(topic, len(payload)), 0
            with self._idle:
                self._under_way[0] = message
                self._sent_at = time.monotonic()
            try:
                info = self.client.publish(topic, payload, qos, retain, properties)
                sent = info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS
                # Not sent: the connection ended meanwhile, perhaps at its first bytes.
                mid = info.mid if sent else -1
            finally:
                with self._idle:
                    del self._under_way[0]
                    if mid and mid not in self._early:
                        self._under_way[mid] = message
                        self.backlog += message.size
                    self._early.discard(mid)
                    self._notify_if_idle()
        return sent

    def acknowledge(self, mid: int, qos: int) -> None:
        with self._gate:
            if not self._released:
                self.client.ack(mid, qos)

    @property
    def idle(self) -> bool:
        return not self._under_way

    @property
    def unanswered(self) -> tuple[Sent, ...]:
        """What has no PUBACK, in the order of sending; more than a window's was not sent yet."""
        with self._idle:
            return tuple(self._under_way.values())

    @property
    def hung_up(self) -> bool:
        """Whether the end came right after something unanswered was sent, and not by silence."""
        soon = time.monotonic() - self._sent_at < HANG_UP_S
        return bool(self._under_way) and soon and not (self._silent or self.by_us)

    def flush(self, timeout: float) -> bool:
        with self._idle:
            return self._idle.wait_for(lambda: self.idle or self.ended.is_set(), timeout)

    def _notify_if_idle(self) -> None:
        if self.idle:
            self._idle.notify_all()

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback would end paho's thread, silently."""

        def guarded(*args: Any) -> None:
            try:
                callback(*args)
            except Exception:
                log.exception("hwsync failed on something the broker sent; this is a bug")

        return guarded

    def _on_connect(
        self, _: Client, __: object, flags: Any, code: Any, properties: Any, *___: object
    ) -> None:
        if code.value >= _FIRST_FAILURE:
            self.refused = code.value
            self.reason = f"the broker {REFUSED} ({str(code).lower()})"
        else:
            self.connected_at = time.monotonic()
            self.session_present = bool(flags.session_present)
            self.max_packet = getattr(properties, "MaximumPacketSize", None)
            if not self.closing:
                self._owner.opened(self)
        self.answered.set()

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        self.subscribing.asked = tuple(subscriptions)
        if not subscriptions:
            self._owner.emit(self, Subscribed())
        elif self.protocol == 5:
            self.client.subscribe(
                [
                    (s.topic, SubscribeOptions(s.qos, s.no_local, s.as_published))
                    for s in subscriptions
                ]
            )
        else:
            self.client.subscribe([(s.topic, s.qos) for s in subscriptions])

    def _on_subscribe(self, _: Client, __: object, ___: int, codes: Any, *____: object) -> None:
        granted = (code.value < _FIRST_FAILURE for code in codes)
        told = self.subscribing.answered(granted, time.monotonic())
        if told is not None:
            self._owner.emit(self, told)

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        read = message.properties if isinstance(message.properties, Publish) else None
        trouble = read.trouble if read else ""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic, trouble = "?", "its topic is not UTF-8"
        if trouble:
            if message.qos:
                self.client.ack(message.mid, message.qos)
            self._owner.pass_over(self, topic, trouble)
            return
        self._owner.emit(
            self,
            Delivery(
                topic,
                bytes(message.payload),
                message.qos,
                bool(message.retain),
                bool(message.dup),
                message.mid,
                self.number,
                read.reply_topic if read else "",
                read.correlation if read else b"",
            ),
        )

    def _on_publish(self, _: Client, __: object, mid: int, code: Any, *___: object) -> None:
        if code.value >= _FIRST_FAILURE:
            reason = str(code).lower()
            log.warning("the broker refused a message of ours (%s)", reason)
            self._owner.emit(self, Denied(reason))
        with self._idle:
            if (sent := self._under_way.pop(mid, None)) is None:
                self._early.add(mid)
            else:
                self.backlog -= sent.size
            self._notify_if_idle()

    def _on_disconnect(self, _: Client, __: object, flags: Any, code: Any, *___: object) -> None:
        if self.refused is not None:
            pass  # why is known; paho calls the end that follows a protocol error
        elif flags.is_disconnect_packet_from_server:
            self.reason = f"the broker closed the connection ({str(code).lower()})"
            self.taken_over = code.value == _TAKEN_OVER
        elif self.client.unreadable:
            self.reason = f"the broker sent {self.client.unreadable}"
            self.explained = True
        elif code.value == _PROTOCOL_ERROR:
            self.reason = "the broker sent what MQTT does not allow"
            self.explained = True
        self._silent = code.value == _SILENCE
        self.answered.set()
        self.ended.set()
        with self._idle:
            self._idle.notify_all()


def _why(url: BrokerUrl, error: OSError) -> Failed:
    """What an attempt that ended with this error says to people."""
    found = None
    if url.encrypted:
        from hwsync.transport import tls

        found = tls.explain(url, error)
    elif isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        found = _hung_up(url)  # a websocket's beginning
    return found or Failed(error.strerror or str(error) or "no connection")


def _hung_up(url: BrokerUrl) -> Failed | None:
    """Why the broker may have ended the connection before any answer; None: nobody knows."""
    from hwsync.transport import tls

    return tls.closed(url)


def _no_delay(_: Client, __: object, sock: Any) -> None:
    raw = getattr(sock, "_socket", sock)  # paho wraps a websocket's
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
