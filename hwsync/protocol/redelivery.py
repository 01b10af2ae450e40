"""What the broker sends again of messages without an id (docs/protocol.md, section 2).

The law: a message that is marked as sent again (DUP), with the packet identifier, topic and text of
one that was handled, is answered as the first time and not performed again. Whatever names an id
needs no memory: its repeats are copies by their id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsync.protocol import limits
from hwsync.protocol.events import Message


@dataclass(frozen=True, slots=True)
class Handled:
    """What the last message without an id under a packet identifier was, and its error."""

    topic: str  # as far as it is kept
    digest: bytes  # SHA-256 of the payload
    error: bytes | None


def handled(message: Message, error: bytes | None) -> Handled:
    """What is remembered of a message; ``error``: what was published about it."""
    digest = hashlib.sha256(message.payload).digest()
    return Handled(message.topic[: limits.KEPT_TOPIC], digest, error)


@dataclass(slots=True)
class Memory:
    """By packet identifier. ``saved``: those heard longest ago first; ``changed``: None: forgotten.

    ``new_session``: the broker began to count anew, so that what is saved says nothing any more.
    """

    saved: Mapping[int, Handled]
    changed: dict[int, Handled | None] = field(default_factory=dict)
    new_session: bool = False

    def find(self, message: Message, id: str | None) -> Handled | None:
        """What was remembered of a message that comes again; None: it is to be handled."""
        if not message.dup or id is not None:
            return None
        before = self.changed.get(message.mid)
        if before is None and not self.new_session:
            before = self.saved.get(message.mid)
        same = before is not None and before == handled(message, before.error)
        return before if same else None

    def note(self, message: Message, error: bytes | None, *, named: bool) -> None:
        """Remember a message without an id.

        Any other message (``named``) that takes over the packet identifier ends that.
        """
        if not message.mid:
            return
        if not named:
            self.changed[message.mid] = handled(message, error)
        elif message.mid in self.saved or message.mid in self.changed:
            self.changed[message.mid] = None

    def shorten(self) -> None:
        """Forget those that were heard longest ago, where there are more than may be.

        No broker sends them again: it has sent ``limits.PACKETS`` others since.
        """
        saved = () if self.new_session else self.saved
        old = [mid for mid in saved if mid not in self.changed]
        new = sum(one is not None for one in self.changed.values())
        for mid in old[: max(len(old) + new - limits.PACKETS, 0)]:
            self.changed[mid] = None
