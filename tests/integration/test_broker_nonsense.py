"""What a broker must not send: it is passed over where it can be acknowledged, else it ends it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from hwsync.protocol.limits import MAX_PROPERTIES
from hwsync.transport import Delivery, Disconnected, PassedOver, Subscribed
from tests.support.ports import LOOPBACK
from tests.support.proxy import CONNECT, PUBACK, SUBSCRIBE, packets
from tests.support.transports import Client
from tests.support.waiting import PATIENCE

FINE = b"\x32\x08\0\1t\0\7\0ok"  # PUBLISH, QoS 1, identifier 7, no properties
NO_PROPERTY = b"\x32\x0a\0\1t\0\6\2\x27\0no"  # identifier 6; 39 is no property of a message
UNSUBACK = b"\xb0"


class Speaker:
    """Takes each connection as MQTT 5, and says the same on it once it is subscribed to."""

    def __init__(self, words: bytes) -> None:
        self.acknowledged: list[int] = []  # packet identifiers
        self.heard = threading.Condition()
        self._words = words
        self._listener = socket.create_server((LOOPBACK, 0))
        self.url = f"mqtt://{LOOPBACK}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError):
                    self._speak(client)

    def _speak(self, client: socket.socket) -> None:
        for packet in packets(client, True):
            if packet.type == CONNECT:
                client.sendall(b"\x20\x03\0\0\0")
            elif packet.type == SUBSCRIBE:
                client.sendall(b"\x90\x04" + packet.mid.to_bytes(2, "big") + b"\0\1")
                client.sendall(self._words)
            elif packet.type == PUBACK:
                with self.heard:
                    self.acknowledged.append(packet.mid)
                    self.heard.notify_all()


@pytest.fixture
def told(connect: Callable[..., Client]) -> Iterator[Callable[[bytes], tuple[Client, Speaker]]]:
    """A client that is subscribed, and is told these bytes."""
    with ExitStack() as stack:

        def begin(words: bytes) -> tuple[Client, Speaker]:
            speaker = Speaker(words)
            stack.callback(speaker.close)
            client = connect(speaker.url, "c", "t", prefer_v5=True)
            assert client.next(Subscribed) == Subscribed()
            return client, speaker

        yield begin


def test_a_message_whose_properties_are_none_is_acknowledged_and_passed_over(
    told: Callable[[bytes], tuple[Client, Speaker]], caplog: pytest.LogCaptureFixture
) -> None:
    client, speaker = told(NO_PROPERTY * 3 + FINE)
    reason = "a property 39, which no message has"
    assert [client.next(PassedOver) for _ in range(3)] == [PassedOver(reason)] * 3
    delivery = client.next(Delivery)
    assert (delivery.topic, delivery.payload) == ("t", b"ok")
    with speaker.heard:
        assert speaker.heard.wait_for(lambda: speaker.acknowledged == [6] * 3, PATIENCE)
    assert caplog.text.count(f"a message on t is passed over: {reason}") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"\x32\x03\0\1t" + FINE, "a message that cannot be read: a message without its packet"),
        (b"\x34\x06\0\1t\0\1\0" + FINE, "a message that cannot be read: QoS 2"),
        (
            UNSUBACK + b"\x81\x80\x04" + b"\0" * (MAX_PROPERTIES + 1),
            f"a packet of {MAX_PROPERTIES + 1} bytes that is no message",
        ),
    ],
)
def test_what_cannot_be_acknowledged_ends_the_connection_and_it_comes_back(
    told: Callable[[bytes], tuple[Client, Speaker]], words: bytes, reason: str
) -> None:
    client, _ = told(words)
    assert reason in client.next(Disconnected).reason
    client.next(Subscribed)
    assert client.transport.alive
