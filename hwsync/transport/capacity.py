"""How large a message the broker takes, as far as that is known.

The law: what the broker announces and what the keeper configured is believed; what was learned from
being cut off is believed for an hour, since it may have been chance. MQTT 3.1.1 announces nothing,
and mosquitto's ``message_size_limit`` is announced to nobody (docs/decisions.md).
"""

from __future__ import annotations

from typing import Final

from hwsync.protocol.limits import KIB, MAX_MESSAGE, MAX_REPLY_TOPIC

FLOOR: Final = KIB  # bytes; no message is made smaller than that
SMALL: Final = 8 * KIB  # bytes; no broker is known to refuse that for its size
HEADER: Final = 2 * MAX_REPLY_TOPIC + 64  # of a packet: topic, correlation data, lengths
_PACKETS: Final = (1024, 256, 128, 64, 32, 16, 8, 4, 2)  # KiB; limits that brokers have, and less
LIKELY: Final = (
    MAX_MESSAGE,
    *(KIB * size - min(HEADER, KIB * size // 4) for size in _PACKETS),
    FLOOR,
)  # bytes of payloads that a broker may take
LEARNED_S: Final = 3_600.0


def below(refused: int) -> int:
    """The next smaller payload that a broker may take, in bytes."""
    return next((size for size in LIKELY if size < refused), FLOOR)


class Capacity:
    """In bytes of a payload. ``configured``: the keeper's ``--max-message``."""

    def __init__(self, configured: int = MAX_MESSAGE) -> None:
        self._configured = configured
        self._announced = MAX_MESSAGE
        self._learned: tuple[int, float] | None = None  # bytes, monotonic seconds

    def told(self, payload: int) -> None:
        """What another client of this broker has found out, in bytes of a payload."""
        self._announced = max(FLOOR, min(payload, MAX_MESSAGE))

    def connected(self, max_packet: int | None) -> None:
        """What the broker says of its largest packet, in bytes; None: nothing."""
        self._announced = max(FLOOR, (max_packet or MAX_MESSAGE + HEADER) - HEADER)

    def learn(self, refused: int, now: float) -> None:
        """A message of so many bytes was not taken: one of the next step may be."""
        self._learned = (below(min(refused, self.bytes(now))), now)

    @property
    def sure(self) -> int:
        """Bytes that were announced or configured, whatever was learned."""
        return min(self._configured, self._announced, MAX_MESSAGE)

    def bytes(self, now: float) -> int:
        """The most that is sent; ``now``: monotonic seconds."""
        if self._learned is None or now - self._learned[1] >= LEARNED_S:
            return self.sure
        return min(self.sure, self._learned[0])
