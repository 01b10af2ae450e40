"""One connection: one paho client from its connect to its end. Nothing else imports paho.

The law: it has no thread. Its owner calls ``handle`` when ``fileno`` can be read or written, or
``next_at`` has come; what blocks is done in an errand's thread. No exception leaves a callback;
nothing is acknowledged by itself; what is sent while the connection ends is dropped, never queued.

paho is driven by the functions that it has for a foreign loop, over a ``Channel``.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from paho.mqtt.client import PUBACK, PUBLISH, Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from hwsync.address import BrokerUrl
from hwsync.protocol.limits import MAX_PROPERTIES
from hwsync.transport.channel import Channel
from hwsync.transport.connecting import CONNECT_S, Attempt
from hwsync.transport.errand import Errand
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
    Will,
)
from hwsync.transport.subscribing import Subscribing

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("hwsync.transport")

WINDOW: Final = 20  # publishes under way; more gain nothing, and mosquitto allows no more
MID_BYTES: Final = 2  # of a packet identifier
SUCCESS: Final = b"\0"  # MQTT 5: a PUBACK's reason code
KEEPALIVE_S: Final = 20
MISC_S: Final = 1.0  # between two looks whether a ping is due
LEAVE_S: Final = 1.0  # for what still waits to be written, when we go
HANG_UP_S: Final = 5.0  # an end so soon after we sent something may be the answer to it
# How long a broker keeps a persistent session (MQTT 5 asks): without end, since one that is to end
# can crash mosquitto 2.0.11 when its account gets another password (docs/decisions.md, 131).
SESSION_S: Final = 0xFFFF_FFFF

_UNSUPPORTED_VERSION: Final = 132
_PROTOCOL_ERROR: Final = 130
_SILENCE: Final = 141  # the keep-alive ran out: paho's word for a connection that is lost
_TAKEN_OVER: Final = 142
_FIRST_FAILURE: Final = 128  # reason codes from here on say no


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

    def monotonic(self) -> float:
        """Seconds."""

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

    on_acknowledged: Callable[[int], None]  # a PUBACK that refuses nothing
    on_delivery: Callable[[Publish, int, bool, bool], None]  # MQTT 5: QoS, retained, DUP
    begun: socket.socket | None = None
    unreadable = ""  # what the broker sent, upon which the connection was ended here
    _dialled: Any = None  # a socket, or paho's wrapper of a websocket's

    def dial(self) -> None:
        """Have a connected socket ready for ``reconnect``. Blocks; raises ``OSError``."""
        self._dialled = super()._create_socket()

    def channel(self) -> Channel:
        """What was dialled, from now on read and written through this."""
        wrapped = getattr(self._dialled, "_socket", None)
        channel = Channel(self._dialled if wrapped is None else wrapped)
        if wrapped is None:
            self._dialled = channel
        else:
            self._dialled._socket = channel
        return channel

    def _create_socket(self) -> Any:
        return self._dialled

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

    def _packet_read(self) -> MQTTErrorCode:
        """paho makes eight objects of a message, and three of a PUBACK; here are the short ways.

        What is not whole, and all that is rare, takes paho's own; so does a websocket.
        """
        channel = self._sock
        if self._in_packet["command"] or not isinstance(channel, Channel):
            return super()._packet_read()
        if (packet := channel.packet()) is None:
            return super()._packet_read()
        command, body, size = packet
        if command == PUBACK and (len(body) == MID_BYTES or body[MID_BYTES:] == SUCCESS):
            channel.skip(size)
            self._acknowledged(int.from_bytes(body[:MID_BYTES], "big"))
        elif command & 0xF0 == PUBLISH and self._protocol == MQTTv5:
            channel.skip(size)
            if error := self._publish_came(command, body):
                return error
        else:
            return super()._packet_read()
        self._last_bytes_received = time.monotonic()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _acknowledged(self, mid: int) -> None:
        if self._out_messages.pop(mid, None) is not None:
            self.on_acknowledged(mid)

    def _publish_came(self, command: int, body: bytes) -> MQTTErrorCode:
        """paho unpacks the properties of any packet in quadratic time (see ``publish``)."""
        qos = command >> 1 & 3
        try:
            read = read_publish(qos, body)
        except Malformed as error:
            return self._refuse(f"a message that cannot be read: {error}")
        self.on_delivery(read, qos, bool(command & 1), bool(command & 8))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _packet_handle(self) -> MQTTErrorCode:
        command, packet = self._in_packet["command"], self._in_packet["packet"]
        if command & 0xF0 == PUBLISH:
            if self._protocol == MQTTv5:
                return self._publish_came(command, bytes(packet))
        elif len(packet) > MAX_PROPERTIES:  # which it would unpack in quadratic time, too
            return self._refuse(f"a packet of {len(packet)} bytes that is no message")
        return super()._packet_handle()

    def _refuse(self, what: str) -> MQTTErrorCode:
        self.unreadable = what
        return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def give_up(self) -> None:
        """Close what was begun and has led to no connection."""
        if self.begun is not None:
            self.begun.close()


@dataclass(frozen=True, slots=True)
class _Message:
    """One of ours."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    correlation: bytes

    @property
    def sent(self) -> Sent:
        return Sent(self.topic, len(self.payload))


class Link:
    """One connection: one paho client from its connect to its end."""

    def __init__(
        self, owner: Owner, number: int, client_id: str, attempt: Attempt, will: Will | None = None
    ) -> None:
        """Begins to connect at once. ``number``: 0 for one that is only to see a session."""
        self.number = number
        self.attempt = attempt
        self.protocol = protocol = attempt.protocol
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
        self.backlog = 0  # bytes that are under way, or wait for their turn
        self._owner = owner
        self._url = url = owner.url
        self._has_ended = False  # paho said so
        self._under_way: dict[int, Sent] = {}  # by packet identifier, in the order of sending
        self._window = WINDOW
        self._queue: deque[_Message] = deque()  # at QoS 1; what has no room in the window yet
        self._sent_at = 0.0  # monotonic; the last publish
        self._silent = False
        self._answer_by = self._misc_at = self._leave_by = 0.0  # monotonic
        self._channel: Channel | None = None
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
        self.client.max_inflight_messages_set(0)  # the window is ours
        if url.websockets:
            self.client.ws_set_options(url.path)
        if url.username is not None:
            self.client.username_pw_set(url.username, url.password)
        if will is not None:
            self.client.will_set(will.topic, will.payload, 1, will.retain)
        self.client.on_socket_register_write = _leave_it_to_us
        self.client.on_connect = self._guard(self._on_connect)
        self.client.on_disconnect = self._guard(self._on_disconnect)
        self.client.on_subscribe = self._guard(self._on_subscribe)
        self.client.on_message = self._guard(self._on_message)
        self.client.on_publish = self._guard(self._on_publish)
        self.client.on_acknowledged = self._on_acknowledged
        self.client.on_delivery = self._guard(self._on_delivery)
        self._errand: Errand[Failed | None] | None = Errand(self._connect, self._unwanted)

    # What its owner asks.

    def fileno(self) -> int | None:
        """What is to be watched; None: nothing."""
        if self._errand is not None:
            return self._errand.fileno()
        if self._channel is None or self._channel.sock.fileno() < 0:
            return None
        return self._channel.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether ``handle`` has something to do as soon as ``fileno`` can be written."""
        return self._channel is not None and self._channel.wants_write

    @property
    def next_at(self) -> float | None:
        """When ``handle`` has something to do by itself, monotonic; None: never."""
        if self.stage is Stage.OVER:
            return 0.0  # its owner has not seen it yet
        if self._errand is not None:
            return None
        moments = [self._misc_at]
        if self.stage is Stage.PROBING:
            moments.append(self._answer_by)
        if self.closing:
            moments.append(self._leave_by)
        now = self._owner.monotonic()
        if (wait := self.subscribing.wait(now)) is not None:
            moments.append(now + wait)
        return min(moments)

    @property
    def idle(self) -> bool:
        """Whether the broker has acknowledged everything."""
        return not self._under_way and not self._queue

    @property
    def unanswered(self) -> tuple[Sent, ...]:
        """What has no PUBACK, in the order of sending; more than a window's was not sent yet."""
        return (*self._under_way.values(), *(one.sent for one in self._queue))

    @property
    def hung_up(self) -> bool:
        """Whether the end came right after something unanswered was sent, and not by silence."""
        soon = self._owner.monotonic() - self._sent_at < HANG_UP_S
        return bool(self._under_way) and soon and not (self._silent or self.by_us)

    @property
    def secured(self) -> Secured | None:
        """What protects the connection; None: nothing."""
        if self._channel is None or not self._url.encrypted:
            return None
        from hwsync.transport import tls

        return tls.secured(self._channel.sock)

    # What its owner does.

    def handle(self, now: float, readable: bool) -> None:
        """Go on as far as that is possible now."""
        if self._errand is not None:
            if self._errand.is_done:
                self._errand_is_done(self._errand, now)
            return
        if self.stage is Stage.OVER:
            return
        if readable:
            self._read()
        if now >= self._misc_at:
            self._misc_at = now + MISC_S
            self.client.loop_misc()
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
        channel = self._channel
        if channel is None:
            return
        while not self._has_ended:
            if self.client.want_write():
                self.client.loop_write()
            channel.flush()
            if not (channel.is_flushed and self.client.want_write()):
                return

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
        if self._channel is not None:
            if not self._has_ended:
                self.client.disconnect()
                self.client.loop_write()
            self.client._reset_sockets()
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
        message = _Message(topic, payload, qos, retain, correlation if self.protocol == 5 else b"")
        self.backlog += len(payload)
        self._sent_at = self._owner.monotonic()
        if not qos or len(self._under_way) < self._window:
            self._send(message)
        else:
            self._queue.append(message)
        return True

    def _send(self, message: _Message) -> None:
        properties = None
        if message.correlation:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = message.correlation
        info = self.client.publish(
            message.topic, message.payload, message.qos, message.retain, properties
        )
        self._under_way[info.mid] = message.sent

    def acknowledge(self, mid: int, qos: int) -> None:
        """The broker need not send that again."""
        self.client.ack(mid, qos)

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Ask for these; ``Subscribing`` says what comes of it."""
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

    # From the connect to the broker's answer.

    def _connect(self) -> Failed | None:
        """In the errand's thread: name look-up, TCP, TLS, websocket."""
        url = self._url
        v5: dict[str, Any] = {}
        if self.protocol == 5:
            v5["clean_start"] = self.attempt.clean
            if self.attempt.keep:
                v5["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                v5["properties"].SessionExpiryInterval = SESSION_S
        try:
            if url.encrypted:
                from hwsync.transport import tls

                self.client.tls_set_context(tls.context(url))
            self.client.connect_async(url.host, url.port, KEEPALIVE_S, **v5)
            self.client.dial()
        except OSError as error:
            self.client.give_up()
            return _found(_why, url, error) or Failed(str(error))
        except ValueError as error:
            self.client.give_up()
            return Failed(str(error))
        except Failed as failure:
            return failure
        except Exception:
            log.exception("hwsync failed to connect to %s; this is a bug", url)
            self.client.give_up()
            return Failed("an error inside hwsync")
        return None

    def _unwanted(self, failure: Failed | None) -> None:
        """Nobody waits for what was dialled."""
        if failure is None:
            self.client.give_up()

    def _errand_is_done(self, errand: Errand[Failed | None], now: float) -> None:
        self._errand = None
        self.failure = errand.take()
        if self.failure is not None:
            self.stage = Stage.OVER
            return
        self._channel = self.client.channel()
        self.stage = Stage.PROBING
        self._answer_by, self._misc_at = now + self.attempt.patience, now + MISC_S
        self.client.reconnect()  # sends CONNECT through what was dialled
        self.write()

    def _probe(self, now: float) -> None:
        """What became of the CONNECT."""
        if self.refused is not None:
            kind = WrongVersion if self.refused == _UNSUPPORTED_VERSION else Failed
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
                url, self.stage = self._url, Stage.ASKING_WHY
                self._errand = Errand(lambda: _found(_hung_up, url) or Failed(silent))

    def _fail(self, failure: Failed) -> None:
        self.drop()
        self.failure = failure

    def _leave(self, now: float) -> None:
        if self._errand is not None or self.stage is Stage.OVER:
            self.drop()
            return
        self.write()
        channel = self._channel
        assert channel is not None  # there is one wherever no errand is under way
        if self._has_ended or now >= self._leave_by or channel.is_flushed:
            self.drop()

    def _read(self) -> None:
        """Have paho handle all that has come."""
        channel = self._channel
        assert channel is not None
        channel.fill()
        while not self._has_ended and (channel.has_come or channel.is_over):
            before = channel.has_come
            self.client.loop_read()
            if channel.has_come == before:
                return  # a part of a packet

    # What paho calls.

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback would leave paho in the middle of a packet."""

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
            return
        self.connected_at = self._owner.monotonic()
        self.session_present = bool(flags.session_present)
        self.max_packet = getattr(properties, "MaximumPacketSize", None)
        self._window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
        if not self.closing:
            self._owner.opened(self)

    def _on_subscribe(self, _: Client, __: object, ___: int, codes: Any, *____: object) -> None:
        granted = (code.value < _FIRST_FAILURE for code in codes)
        told = self.subscribing.answered(granted, self._owner.monotonic())
        if told is not None:
            self._owner.emit(self, told)

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        """MQTT 3.1.1."""
        read = Publish(message._topic, message.mid, bytes(message.payload))
        self._on_delivery(read, message.qos, bool(message.retain), bool(message.dup))

    def _on_delivery(self, read: Publish, qos: int, retain: bool, dup: bool) -> None:
        trouble = read.trouble
        try:
            topic = read.topic.decode()
        except UnicodeDecodeError:
            topic, trouble = "?", "its topic is not UTF-8"
        if trouble:
            if qos:
                self.client.ack(read.mid, qos)
            self._owner.pass_over(self, topic, trouble)
            return
        self._owner.emit(
            self,
            Delivery(
                *(topic, read.payload, qos, retain, dup, read.mid, self.number),
                *(read.reply_topic, read.correlation),
            ),
        )

    def _on_publish(self, _: Client, __: object, mid: int, code: Any, *___: object) -> None:
        if code.value >= _FIRST_FAILURE:
            reason = str(code).lower()
            log.warning("the broker refused a message of ours (%s)", reason)
            self._owner.emit(self, Denied(reason))
        self._on_acknowledged(mid)

    def _on_acknowledged(self, mid: int) -> None:
        if (sent := self._under_way.pop(mid, None)) is None:
            return
        self.backlog -= sent.size
        if self._queue and len(self._under_way) < self._window and not self._has_ended:
            self._send(self._queue.popleft())

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
        self._has_ended = True


def _found(look: Callable[..., Failed | None], *about: Any) -> Failed | None:
    """What a further look at the broker finds; it may fail itself."""
    try:
        return look(*about)
    except Failed as failure:
        return failure
    except Exception:
        log.exception("hwsync failed to find out why; this is a bug")
        return None


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


def _leave_it_to_us(*_: object) -> None:
    """That there is such a callback keeps paho from writing each packet by itself."""
