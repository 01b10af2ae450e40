"""Whether this account may be an analyst: it is found out once, at the first connection.

The law: who may not say what it offers judges for nobody, and would wait for ever; so that ends it,
with the line to type. MQTT 5 says that a right is missing. MQTT 3.1.1 does not: there the broker
has to give back what it was told. Moments are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.wire.analyst import read_offer
from hwsync.transport import Delivery, Denied, Disconnected, Signal, Subscribed

GIVEN_BACK_S: Final = 10.0  # a broker gives back what it keeps at once


class Entitled:
    """``topic``: where ``name`` says what it offers.

    entitled = Entitled("hw/@hwsync/analysts/check", "check", time.monotonic)
    entitled.hear(signals)      # raises Refused
    """

    def __init__(self, topic: str, name: str, monotonic: Callable[[], float]) -> None:
        self._topic, self._name, self._monotonic = topic, name, monotonic
        self._until = inf
        self._is_known = False

    def hear(self, signals: Iterable[Signal]) -> None:
        """What came, or that time has passed. Raises ``Refused``."""
        for signal in signals:
            if isinstance(signal, Denied) and signal.topic == self._topic:
                raise self._may_not(f"the broker refuses what it offers: {signal.reason}")
            if isinstance(signal, Disconnected):
                self._until = inf
            elif isinstance(signal, Subscribed) and self._until == inf and not self._is_known:
                self._until = self._monotonic() + GIVEN_BACK_S
            elif isinstance(signal, Delivery) and signal.topic == self._topic:
                self._is_known |= is_online(signal.payload)
        if not self._is_known and self._monotonic() >= self._until:
            raise self._may_not("the broker does not give back what it offers")

    @property
    def patience(self) -> float:
        """Seconds, until there is something to be looked at."""
        return inf if self._is_known else max(self._until - self._monotonic(), 0.0)

    def _may_not(self, why: str) -> Refused:
        return Refused(
            Code.NOT_ALLOWED,
            f"{self._name} may not be an analyst here ({why})",
            "on the lab's machine hwsync analyst add NAME makes an account that may, and its file "
            "analysts/NAME.toml: hwsync analyst --config analysts/NAME.toml --dir …",
        )


def is_online(payload: bytes) -> bool:
    """Whether an analyst says there that it is online; an empty message says that it is not."""
    try:
        return read_offer(payload).online
    except Refused:
        return False
