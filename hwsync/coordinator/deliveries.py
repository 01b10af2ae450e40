"""What came: as the core hears it, and what of it a new connection does not bring again."""

from __future__ import annotations

from collections.abc import Iterable

from hwsync.protocol.events import Message
from hwsync.protocol.record import Reply, replace
from hwsync.transport import Delivery


def message_of(delivery: Delivery) -> Message:
    """What the core needs of a message that came."""
    reply = Reply(delivery.reply_topic, delivery.correlation) if delivery.reply_topic else None
    return Message(
        delivery.topic, delivery.payload, delivery.retain, delivery.dup, delivery.mid, reply
    )


def still_ours(deliveries: Iterable[Delivery], session_present: bool) -> list[Delivery]:
    """What of these a new connection does not bring again: only we have it.

    Unacknowledged ones come again where the broker kept the session, those of QoS 0 never.
    """
    return [replace(one, mid=0) for one in deliveries if not (session_present and one.qos)]
