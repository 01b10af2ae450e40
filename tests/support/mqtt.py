"""Both ends: ``publish``, as a person types it, and ``Watcher``, which sees everything."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.ports import LOOPBACK
from tests.support.programs import require_program
from tests.support.waiting import PATIENCE, wait_until

LONGEST_ARGUMENT = 100_000  # bytes; Linux allows 128 KiB for one argument of a command
SHOWN = 20  # messages that a failure shows
RECONNECT = 1  # seconds, the shortest that paho takes


class HasPort(Protocol):
    """What listens on a loopback port: a broker of tests.support.brokers, or a proxy before it."""

    @property
    def port(self) -> int: ...


def publish(
    broker: HasPort,
    topic: str,
    payload: str | bytes = "",
    *,
    qos: int = 1,
    retain: bool = False,
    options: Sequence[str] = (),
) -> None:
    """``mosquitto_pub -q 1``: returns after the broker's PUBACK, fails the test without one.

    An empty payload is sent as ``-n``. ``options`` go to the command line (``["-V", "5"]``).
    """
    data = payload.encode() if isinstance(payload, str) else payload
    command = [require_program("mosquitto_pub", "mosquitto-clients")]
    command += ["-h", LOOPBACK, "-p", str(broker.port), "-q", str(qos), "-t", topic]
    command += ["-r"] if retain else []
    stdin = b""
    if not data:
        command += ["-n"]
    elif isinstance(payload, str) and len(data) < LONGEST_ARGUMENT and "\0" not in payload:
        command += ["-m", payload]
    else:
        command += ["-s"]
        stdin = data
    done = subprocess.run(
        [*command, *options], input=stdin, capture_output=True, timeout=PATIENCE, check=False
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"mosquitto_pub -t {topic} ended with {done.returncode}: {said}"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the watcher received it."""

    topic: str
    payload: bytes
    retain: bool  # from the broker's store, at a subscription; never for a live message
    at: float  # seconds, monotonic

    @property
    def text(self) -> str:
        return self.payload.decode("utf-8", errors="replace")

    @property
    def json(self) -> Any:
        """The decoded payload; None where it is no JSON."""
        try:
            return json.loads(self.payload)
        except (ValueError, RecursionError):
            return None


class Watcher:
    """A client that keeps every message of a topic filter from its SUBACK on, in order of arrival.

    It comes back by itself when the broker was restarted; what is published until it has is not
    seen, except for the retained messages. ``ready``: the present connection is subscribed.
    """

    def __init__(
        self,
        broker: HasPort,
        topic_filter: str = "hw/#",
        *,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self._topic_filter = topic_filter
        self._changed = threading.Condition()
        self._messages: list[Message] = []
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.reconnect_delay_set(RECONNECT, RECONNECT)
        if username is not None:
            self._client.username_pw_set(username, password)
        self._client.on_socket_open = _no_delay
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.connect(LOOPBACK, broker.port, keepalive=30)
        self._client.loop_start()
        wait_until(self._ready.is_set, what=f"subscribed to {topic_filter}")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # else the garbage collector does, in another test

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        """QoS 1, on this connection; returns after the broker's PUBACK."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(PATIENCE)

    def messages(self, topic: str | None = None) -> list[Message]:
        """Everything seen so far, of one topic or of all."""
        with self._changed:
            return [seen for seen in self._messages if topic is None or seen.topic == topic]

    def mark(self) -> int:
        """The number of messages so far, for ``after``."""
        with self._changed:
            return len(self._messages)

    def wait_for(
        self,
        predicate: Callable[[Message], object],
        timeout: float = PATIENCE,
        what: str = "",
        *,
        topic: str | None = None,
        after: int = 0,
    ) -> Message:
        """The first message for which ``predicate`` is true, whether it came already or will come.

        ``topic`` looks at one topic only, ``after`` leaves out what came before a ``mark()``. Fails
        the test after ``timeout`` seconds and shows the last messages.
        """
        deadline = time.monotonic() + timeout
        looked_at = after
        with self._changed:
            while True:
                for message in self._messages[looked_at:]:
                    if (topic is None or message.topic == topic) and predicate(message):
                        return message
                looked_at = max(after, len(self._messages))
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            recent = self._messages[-SHOWN:]
        seen = "\n".join(f"  {message.topic} {message.text[:300]}" for message in recent)
        raise AssertionError(
            f"no message within {timeout:g} s: {what or topic or 'see the predicate'}\n"
            f"the last {len(recent)}:\n{seen}"
        )

    def statuses(self, user: str) -> list[dict[str, Any]]:
        """Every status of a user in the order of arrival (the one kept by the broker included)."""
        return [
            message.json
            for message in self.messages(f"hw/{user}/status")
            if isinstance(message.json, dict)
        ]

    def wait_for_status(
        self,
        user: str,
        predicate: Callable[[dict[str, Any]], object],
        timeout: float = PATIENCE,
        what: str = "",
        *,
        after: int = 0,
    ) -> dict[str, Any]:
        """The first status of ``user`` for which ``predicate`` is true."""
        status = self.wait_for(
            lambda message: isinstance(message.json, dict) and predicate(message.json),
            timeout,
            what or f"a status of {user}",
            topic=f"hw/{user}/status",
            after=after,
        ).json
        assert isinstance(status, dict)
        return status

    def wait_for_state(
        self,
        user: str,
        state: int,
        timeout: float = PATIENCE,
        *,
        id: str | None = None,
        after: int = 0,
    ) -> dict[str, Any]:
        """The first status of ``user`` in ``state`` (and with ``id``, where given)."""
        return self.wait_for_status(
            user,
            lambda status: status.get("state") == state and id in (None, status.get("id")),
            timeout,
            f"state {state} of {user}" + ("" if id is None else f" with id {id}"),
            after=after,
        )

    # The network thread calls these; none of them can raise.

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if not reason_code.is_failure:
            client.subscribe(self._topic_filter, qos=1)

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        self._ready.set()

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._ready.clear()

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        seen = Message(message.topic, bytes(message.payload), message.retain, time.monotonic())
        with self._changed:
            self._messages.append(seen)
            self._changed.notify_all()


def _no_delay(client: paho.Client, userdata: Any, connection: Any) -> None:
    # paho leaves Nagle's algorithm on: a QoS 1 message would take 44 ms instead of 0.3.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
