"""Who asked for a command, as far as anybody can know (docs/protocol.md, section 4).

The law: MQTT tells the coordinator no account, so nothing here is proved. A response topic below
``replies/<account>/`` says who gets the answer; a claim says what its sender wrote; else nobody is
named. Nothing is refused for it.
"""

from __future__ import annotations

from typing import Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import loads, size
from hwsync.protocol.record import Asker, KnownBy, Reply, Request

REPLIES: Final = "replies"  # with accounts, only <account> may read below replies/<account>
CLAIM: Final = "by"  # the key of a request's ``meta``


def asker_of(request: Request, reply: Reply | None) -> Asker | None:
    """Who asked; where both are given, the response topic counts more than the claim."""
    if reply is not None:
        first, _, rest = reply.topic.partition("/")
        account = rest.partition("/")[0]
        if first == REPLIES and limits.is_user(account):
            return Asker(account, KnownBy.REPLY_TOPIC)
    meta = loads(request.meta)
    claim = meta.get(CLAIM) if isinstance(meta, dict) else None
    if isinstance(claim, str) and 0 < size(claim) <= limits.MAX_CLAIM:
        return Asker(claim, KnownBy.CLAIM)
    return None
