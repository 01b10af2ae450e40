"""Topics that an answer may go to: MQTT 5's response topics, and those that a payload names.

The law: never one under the root, where the sender of the request may not be allowed to write
(docs/protocol.md, section 3). One that a payload names, for who has no MQTT 5, is
``replies/<account>`` or below it.
"""

from __future__ import annotations

from typing import Final

from hwsync.protocol import limits
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.record import Reply
from hwsync.protocol.topics import TopicKind, is_publishable

REPLIES: Final = "replies"  # with accounts, only <account> may read below replies/<account>


def check(reply: Reply, root: str, id: str | None) -> None:
    """Raises ``Refused`` where the coordinator must not, or cannot, write."""
    topic = reply.topic
    if topic == root or topic.startswith(f"{root}/") or topic.startswith("$"):
        raise Refused(
            Code.NOT_ALLOWED,
            f"the response topic {topic[:80]!r} is hwsync's own, or the broker's",
            "take one outside of it, such as replies/NAME",
            id=id,
        )
    if not is_publishable(topic) or len(topic.encode()) > limits.MAX_REPLY_TOPIC:
        raise Refused(
            Code.BAD_PAYLOAD,
            f"the response topic {topic[:80]!r} is no topic that every broker takes",
            f"1 to {limits.MAX_REPLY_TOPIC} bytes in at most {limits.MAX_TOPIC_LEVELS} levels, "
            "without + and # and control characters",
            id=id,
        )
    if len(reply.correlation) > limits.MAX_CORRELATION:
        raise Refused(
            Code.TOO_LARGE,
            f"the correlation data has {len(reply.correlation)} bytes",
            f"at most {limits.MAX_CORRELATION} bytes",
            id=id,
        )


def account_of(reply: Reply) -> str | None:
    """Who alone may read there, where the broker has accounts; None: nobody's."""
    first, _, rest = reply.topic.partition("/")
    account = rest.partition("/")[0]
    return account if first == REPLIES and limits.is_user(account) else None


def check_named(reply: Reply, root: str, id: str | None) -> None:
    """The same for one that a payload names; it must be an account's. Raises ``Refused``."""
    if account_of(reply) is None:
        raise Refused(
            Code.NOT_ALLOWED,
            f"nothing is said to {reply.topic[:80]!r}: that is no account's",
            f"'reply' is {REPLIES}/NAME or below it, NAME being your account",
            id=id,
        )
    check(reply, root, id)


def of_refused(reply: Reply | None, kind: TopicKind | None, root: str) -> Reply | None:
    """Who is told of a refused message: only a request's sender, and only where one may write."""
    if reply is None or kind not in (TopicKind.REQUEST, TopicKind.ENVELOPE):
        return None
    try:
        check(reply, root, None)
    except Refused:
        return None
    return reply
