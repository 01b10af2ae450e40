"""paho as this project needs it: over a ``Channel``, without its thread. Nothing else imports paho.

The law: no exception leaves a callback, since it would leave paho in the middle of a packet;
nothing is acknowledged by itself; properties are never unpacked by paho where anybody may have
written them (see ``publish``). What it hears it says in plain values to ``WireOwner``.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.client import PUBACK, PUBLISH, Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from hwsync.address import BrokerUrl
from hwsync.protocol.limits import MAX_PROPERTIES
from hwsync.transport.channel import Channel
from hwsync.transport.connecting import CONNECT_S, Attempt
from hwsync.transport.publish import Malformed, read_publish
from hwsync.transport.signals import Subscription, Will
from hwsync.transport.window import WINDOW
from hwsync.transport.wire import WireOwner

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("hwsync.transport")

KEEPALIVE_S: Final = 20
MID_BYTES: Final = 2  # of a packet identifier
SUCCESS: Final = b"\0"  # MQTT 5: a PUBACK's reason code
# How long a broker keeps a persistent session (MQTT 5 asks): without end, since one that is to end
# can crash mosquitto 2.0.11 when its account gets another password (docs/decisions.md, 131).
SESSION_S: Final = 0xFFFF_FFFF

FIRST_FAILURE: Final = 128  # reason codes from here on say no
PROTOCOL_ERROR: Final = 130
UNSUPPORTED_VERSION: Final = 132
SILENCE: Final = 141  # the keep-alive ran out: paho's word for a connection that is lost
TAKEN_OVER: Final = 142


class PahoClient(Client):
    """For one connection. Its owner calls ``dial`` first, in any thread, then all else in one."""

    unreadable = ""  # what the broker sent, upon which the connection was ended here
    has_ended = False

    def __init__(
        self,
        url: BrokerUrl,
        client_id: str,
        attempt: Attempt,
        will: Will | None,
        owner: WireOwner,
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTv5 if attempt.protocol == 5 else MQTTv311,
            transport="websockets" if url.websockets else "tcp",
            reconnect_on_failure=False,
            manual_ack=True,
            **({} if attempt.protocol == 5 else {"clean_session": attempt.clean}),
        )
        self._url, self._attempt, self._owner = url, attempt, owner
        self._dialled: Any = None  # a socket, or paho's wrapper of a websocket's
        self._begun: socket.socket | None = None
        self.connect_timeout = CONNECT_S
        self.max_inflight_messages_set(0)  # the window is the link's
        if url.websockets:
            self.ws_set_options(url.path)
        if url.username is not None:
            self.username_pw_set(url.username, url.password)
        if will is not None:
            self.will_set(will.topic, will.payload, 1, will.retain)
        # That there is such a callback keeps paho from writing each packet by itself.
        self.on_socket_register_write = lambda *_: None
        self.on_connect = self._guard(self._on_connack)
        self.on_disconnect = self._guard(self._on_end)
        self.on_subscribe = self._guard(self._on_suback)
        self.on_publish = self._guard(self._on_puback)

    # What its owner does.

    def dial(self) -> None:
        """Have a connected socket. Blocks; raises ``OSError``, ``ValueError`` and ``Failed``."""
        url, v5 = self._url, dict[str, Any]()
        if self._attempt.protocol == 5:
            v5["clean_start"] = self._attempt.clean
            if self._attempt.keep:  # else none: plain amqtt is silent to them (decision 166)
                v5["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                v5["properties"].SessionExpiryInterval = SESSION_S
                v5["properties"].ReceiveMaximum = WINDOW
        if url.encrypted:
            from hwsync.transport import tls

            self.tls_set_context(tls.context(url))
        self.connect_async(url.host, url.port, KEEPALIVE_S, **v5)
        self._dialled = super()._create_socket()

    def give_up(self) -> None:
        """Close what was begun and has led to no connection."""
        if self._begun is not None:
            self._begun.close()

    def say_hello(self) -> Channel:
        """CONNECT, over what was dialled; from now on that is read and written through this."""
        wrapped = getattr(self._dialled, "_socket", None)
        channel = Channel(self._dialled if wrapped is None else wrapped)
        if wrapped is None:
            self._dialled = channel
        else:
            self._dialled._socket = channel
        self.reconnect()
        return channel

    def say_goodbye(self) -> None:
        """DISCONNECT, and close: ``Channel.close`` still writes it."""
        self.disconnect()
        self.loop_write()

    def close(self) -> None:
        """Close without a word, where it is still open."""
        self._reset_sockets()

    def send(
        self, topic: str, payload: bytes, qos: int, retain: bool, correlation: bytes = b""
    ) -> int:
        """PUBLISH with the next ``loop_write``; its packet identifier."""
        properties = None
        if correlation and self._attempt.protocol == 5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        return self.publish(topic, payload, qos, retain, properties).mid

    def ask_for(self, subscriptions: Sequence[Subscription]) -> None:
        """SUBSCRIBE."""
        if self._attempt.protocol == 5:
            self.subscribe(
                [
                    (one.topic, SubscribeOptions(one.qos, one.no_local, one.as_published))
                    for one in subscriptions
                ]
            )
        else:
            self.subscribe([(one.topic, one.qos) for one in subscriptions])

    # What paho does in another way here.

    def _create_socket(self) -> Any:
        return self._dialled

    def _create_socket_connection(self) -> socket.socket:
        """paho leaves a socket open whose TLS or websocket does not come about."""
        self._begun = super()._create_socket_connection()
        return self._begun

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        """Before 2.2 it waits for a TLS handshake as long as a keepalive."""
        assert self._ssl_context is not None
        self._begun = sock = self._ssl_context.wrap_socket(
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
            mid = int.from_bytes(body[:MID_BYTES], "big")
            if self._out_messages.pop(mid, None) is not None:
                self._owner.acknowledged(mid)
        elif command & 0xF0 == PUBLISH:
            channel.skip(size)
            if error := self._publish_came(command, body):
                return error
        else:
            return super()._packet_read()
        self._last_bytes_received = time.monotonic()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def loop_misc(self) -> MQTTErrorCode:
        """paho waits for the PINGRESP itself, which may stand behind much that was not read yet.

        Whatever came after the ping is an answer to it: the connection lives.
        """
        if self._last_bytes_received > self._ping_t:
            self._ping_t = 0.0
        return super().loop_misc()

    def _packet_handle(self) -> MQTTErrorCode:
        command, packet = self._in_packet["command"], self._in_packet["packet"]
        if command & 0xF0 == PUBLISH:
            return self._publish_came(command, bytes(packet))
        if len(packet) > MAX_PROPERTIES:
            return self._refuse(f"a packet of {len(packet)} bytes that is no message")
        return super()._packet_handle()

    def _publish_came(self, command: int, body: bytes) -> MQTTErrorCode:
        qos = command >> 1 & 3
        try:
            read = read_publish(qos, body, has_properties=self._protocol == MQTTv5)
        except Malformed as error:
            return self._refuse(f"a message that cannot be read: {error}")
        try:
            self._owner.delivered(read, qos, bool(command & 1), bool(command & 8))
        except Exception:
            log.exception(_BUG)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _refuse(self, what: str) -> MQTTErrorCode:
        self.unreadable = what
        return MQTTErrorCode.MQTT_ERR_PROTOCOL

    # What paho calls.

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        def guarded(*args: Any) -> None:
            try:
                callback(*args)
            except Exception:
                log.exception(_BUG)

        return guarded

    def _on_connack(
        self, _: Client, __: object, flags: Any, code: Any, properties: Any, *___: object
    ) -> None:
        if code.value >= FIRST_FAILURE:
            self._owner.turned_away(code.value, str(code).lower())
        else:
            self._owner.accepted(
                bool(flags.session_present),
                getattr(properties, "MaximumPacketSize", None),
                getattr(properties, "ReceiveMaximum", None),
            )

    def _on_suback(self, _: Client, __: object, ___: int, codes: Any, *____: object) -> None:
        self._owner.granted([code.value < FIRST_FAILURE for code in codes])

    def _on_puback(self, _: Client, __: object, mid: int, code: Any, *___: object) -> None:
        if code.value >= FIRST_FAILURE:
            self._owner.denied(mid, str(code).lower())
        else:
            self._owner.acknowledged(mid)

    def _on_end(self, _: Client, __: object, flags: Any, code: Any, *___: object) -> None:
        self.has_ended = True
        by_broker = flags.is_disconnect_packet_from_server
        self._owner.disconnected(code.value, str(code).lower(), by_broker)


_BUG: Final = "hwsync failed on something the broker sent; this is a bug"
