"""MQTT 5 replies: who is told of a command's end.

The law: a response topic gets at least one reply (docs/protocol.md, section 3). Which topics may be
one stands in ``reply_topics``.
"""

from __future__ import annotations

from hwsync.protocol import limits
from hwsync.protocol.effects import Decision, Effect, PublishReplies
from hwsync.protocol.record import Command, Record, Reply, replace


def of(record: Record, command: Command) -> tuple[Effect, ...]:
    """The replies that tell of a command's end, as a status of this record about it."""
    if not command.replies:
        return ()
    ended = replace(record, state=record.state_of(command.id), current=command)
    return (PublishReplies(ended),)


def repeated(
    record: Record, known: Command, reply: Reply | None, effects: tuple[Effect, ...]
) -> Decision:
    """A repeat of a request whose command is known: its reply is owed too, or due now."""
    if reply is None:
        return Decision(record, effects=effects)
    if known.report is not None or len(known.replies) >= limits.MAX_REPLIES:
        return Decision(record, effects=(*effects, *of(record, replace(known, replies=(reply,)))))
    if reply in known.replies:
        return Decision(record, effects=effects)
    changed = replace(known, replies=(*known.replies, reply))
    own = known.id == record.id
    after = replace(record, current=changed) if own else record
    return Decision(after, command=changed, effects=effects)
