"""Which epochs are believed, and which one follows (docs/protocol.md, section 2, "Epochs").

The law: an epoch only grows, and no clock decides whether it is believed: a coordinator whose clock
is years behind would else ignore what everybody has seen, and nobody would hear it. What bounds it
are two numbers that no clock of this century reaches, so that nobody can push it to the end of what
can be counted: a device not as far as what a coordinator may still say after it.
"""

from __future__ import annotations

from hwsync.protocol import limits


def is_believed(epoch: int, *, of_device: bool) -> bool:
    """Whether somebody may have begun that epoch; ``of_device``: its word, not a kept status."""
    return epoch <= (limits.MAX_SEEN_EPOCH if of_device else limits.MAX_EPOCH)


def following(known: int, wall: float) -> int:
    """The epoch after ``known``, the highest that is known of; ``wall``: Unix seconds."""
    return max(known + 1, min(int(wall), limits.MAX_SEEN_EPOCH))
