"""Which epochs are believed, and which one follows (docs/protocol.md, section 2, "Epochs").

The law: an epoch only grows, and no clock decides whether it is believed. What bounds it are two
numbers that no clock of this century reaches, the lower one for what a device says.

Why: a coordinator whose clock is years behind would else ignore what everybody has seen, and nobody
would hear it. Without a bound somebody could push it to the end of what can be counted; and after
what a device says, a coordinator must still have a number to say.
"""

from __future__ import annotations

from hwsync.protocol import limits


def is_believed(epoch: int, *, of_device: bool) -> bool:
    """Whether somebody may have begun that epoch; ``of_device``: its word, not a kept status."""
    return epoch <= (limits.MAX_SEEN_EPOCH if of_device else limits.MAX_EPOCH)


def following(known: int, wall: float) -> int:
    """The epoch after ``known``, the highest that is known of; ``wall``: Unix seconds."""
    return max(known + 1, min(int(wall), limits.MAX_SEEN_EPOCH))
