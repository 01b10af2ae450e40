"""What of ours is under way, and what waits for its turn: so many at QoS 1 at a time.

The law: the order stays. What is at QoS 0 needs no turn: nobody acknowledges it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hwsync.transport.signals import Sent

WINDOW: Final = 20  # messages, each way; more gain nothing, and mosquitto allows no more


@dataclass(frozen=True, slots=True)
class Message:
    """One of ours. ``correlation``: MQTT 5's data of that name."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    correlation: bytes

    @property
    def sent(self) -> Sent:
        """What a report of it names."""
        return Sent(self.topic, len(self.payload))


class Window:
    """One connection's. ``send`` publishes one message, and returns its packet identifier.

    ``size``: messages at QoS 1 under way at a time; where the broker allows fewer (MQTT 5's receive
    maximum, 3.2.2.3.3), its owner says so before the first ``put``.
    """

    def __init__(self, send: Callable[[Message], int]) -> None:
        self.size = WINDOW
        self.backlog = 0  # bytes that are under way, or wait
        self._send = send
        self._under_way: dict[int, Sent] = {}  # by packet identifier, in the order of sending
        self._topics: Counter[str] = Counter()  # of both
        self._waiting: deque[Message] = deque()

    @property
    def unanswered(self) -> tuple[Sent, ...]:
        """What has no PUBACK, in the order of sending; the last ones were not sent yet."""
        return (*self._under_way.values(), *(one.sent for one in self._waiting))

    @property
    def is_empty(self) -> bool:
        """Whether everything was acknowledged."""
        return not self._under_way and not self._waiting

    @property
    def is_full(self) -> bool:
        """Whether something waits for its turn."""
        return bool(self._waiting)

    def has(self, topic: str) -> bool:
        """Whether something on that topic has no PUBACK."""
        return topic in self._topics

    def put(self, message: Message) -> None:
        """Send it now, or in its turn."""
        self.backlog += len(message.payload)
        self._topics[message.topic] += 1
        if message.qos and len(self._under_way) >= self.size:
            self._waiting.append(message)
        else:
            self._under_way[self._send(message)] = message.sent

    def acknowledged(self, mid: int) -> Sent | None:
        """A PUBACK came, good or bad: what it was for; the next one is sent.

        None: nothing of that identifier is under way.
        """
        if (sent := self._under_way.pop(mid, None)) is None:
            return None
        self.backlog -= sent.size
        self._topics[sent.topic] -= 1
        if not self._topics[sent.topic]:
            del self._topics[sent.topic]
        if self._waiting and len(self._under_way) < self.size:
            message = self._waiting.popleft()
            self._under_way[self._send(message)] = message.sent
        return sent
