"""The connection to the broker: the one place with paho.

``Connection`` is a machine without a thread. ``Pump`` waits for it, for an owner with a loop:

    connection = Connection(url, "hwsync-device-pi1", subscriptions=[...])
    pump = Pump(connection)
    connection.start()
    while not over:
        for signal in pump.wait(seconds): ...
    pump.leave(5.0)

``Listener`` brings one signal after the other, for an owner that waits for each.
"""

from __future__ import annotations

from hwsync.transport.connection import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    STABLE_S,
    Connection,
)
from hwsync.transport.listener import Listener
from hwsync.transport.pump import Pump
from hwsync.transport.signals import (
    Connected,
    Delivery,
    Denied,
    Disconnected,
    PassedOver,
    Secured,
    Sent,
    Signal,
    Subscribed,
    Subscription,
    Will,
)
from hwsync.transport.waker import Waker

__all__ = [
    "BACKOFF_FIRST_S", "BACKOFF_MAX_S", "STABLE_S",
    "Connected", "Connection", "Delivery", "Denied", "Disconnected", "Listener", "PassedOver",
    "Pump", "Secured", "Sent", "Signal", "Subscribed", "Subscription", "Waker", "Will",
]  # fmt: skip
