"""Which analysers are offered now, as the broker keeps it: a name that nobody offers is refused.

The law: nothing is sent. The analysts' words come with the subscription; whoever has said nothing
for a moment is not there.
"""

from __future__ import annotations

from typing import Final

from hwsync.operator.conversation import Conversation, Talk
from hwsync.protocol import limits
from hwsync.protocol.errors import NotFound, UsageError
from hwsync.protocol.offers import names_of
from hwsync.protocol.wire.analyst import OWN

OFFERS_S: Final = 1.0  # for what the broker keeps of analysts, where a name is not among it
MOST_NAMED: Final = 20  # in an error


def is_analysts(analyser: str) -> bool:
    """Whether analysts offer it, if anybody does. Raises ``UsageError`` where it is no name."""
    if not limits.is_analyser(analyser):
        raise UsageError(f"{analyser!r} is no name of an analyser: {limits.ANALYSER_FORM}")
    return analyser not in OWN


def awaiting(conversation: Conversation, analyser: str) -> Talk[None]:
    """Until it is known that an analyst offers it; the client was made with ``analysts``.

    Raises ``NotFound`` that says what is offered.
    """
    limit = conversation.now + OFFERS_S
    while analyser not in names_of(conversation.standing.offers):
        if (yield from conversation.hearing(limit)) is None:
            raise nobody_offers(analyser, names_of(conversation.standing.offers))


def nobody_offers(analyser: str, offered: frozenset[str]) -> NotFound:
    """The error for a name that no analyst has; ``offered``: what they have."""
    names = sorted(offered)[:MOST_NAMED]
    more = ", …" if len(offered) > len(names) else ""
    have = f"there are {', '.join(names)}{more}" if names else "no analyst is online"
    return NotFound(
        f"no analyst that is online offers {analyser}",
        f"{have}; hwsync analyst --dir FOLDER offers what is in a folder",
    )
