"""What an instant of this machine's clock is in lab time, by which boards begin at one instant.

The law: no two machines' clocks are taken for equal. The coordinator says how lab time stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from hwsync.operator.conversation import Conversation, OnReceived, Talk
from hwsync.protocol.errors import NoCoordinator
from hwsync.protocol.jsons import is_number

ASK_S: Final = 5.0  # for a coordinator to say how lab time stands
AGAIN_S: Final = 1.0


def asking_ahead(
    conversation: Conversation,
    ask: Callable[[], object],
    on_received: OnReceived = lambda _: None,
    wall: Callable[[], float] = time.time,
) -> Talk[float]:
    """By how many seconds lab time is ahead of this clock.

    ``ask``: have the coordinator say how it is. ``on_received`` is given everything that comes
    meanwhile. Raises ``NoCoordinator`` where nobody says how lab time stands.
    """
    limit = conversation.now + ASK_S
    while (now := conversation.now) < limit:
        ask()
        while (heard := (yield from conversation.hearing(min(now + AGAIN_S, limit)))) is not None:
            on_received(heard)
            lab = heard.health.get("lab_time") if heard.health and not heard.kept else None
            if is_number(lab):
                return float(str(lab)) - wall()
    raise NoCoordinator("no coordinator has said how lab time stands", "hwsync doctor looks why")
