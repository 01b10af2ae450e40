"""Payloads into events: what the coordinator hears (docs/protocol.md, sections 3 to 5).

The law: the checks run in one order (user, retained, size, UTF-8, JSON and fields, id), the first
that fails names the error, and the error carries the message's id and journal where they can be
read. What is read of each kind stands in its own module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from hwsync.protocol import limits, reply_topics
from hwsync.protocol.errors import Code, Refused
from hwsync.protocol.events import (
    Event,
    HeartbeatReceived,
    Ignored,
    Message,
    Queried,
    Requested,
    StatusReceived,
)
from hwsync.protocol.groups import SIGN
from hwsync.protocol.record import replace
from hwsync.protocol.topics import TopicKind, Topics
from hwsync.protocol.wire.asking import read_analysis, read_cancel, read_query, read_reset
from hwsync.protocol.wire.heartbeat import read_heartbeat
from hwsync.protocol.wire.request import (
    check_of_board,
    check_of_group,
    read_command,
    read_request,
)
from hwsync.protocol.wire.response import read_collected, read_response
from hwsync.protocol.wire.status import read_order

_OF_GROUPS: Final = (TopicKind.REQUEST, TopicKind.CANCEL, TopicKind.RESET, TopicKind.QUERY)

_Read = Event | HeartbeatReceived | StatusReceived | Ignored
_Reader = Callable[[bytes], _Read]


def read(message: Message, topics: Topics) -> _Read:
    """The event that a message means. Raises ``Refused``."""
    user, kind = topics.split(message.topic)
    reader = _READERS.get(kind) if kind else None
    if reader is None:
        return Ignored("not a topic that the coordinator reads")
    of_group = user.startswith(SIGN)
    if of_group and kind not in _OF_GROUPS:
        if kind in (TopicKind.STATUS, TopicKind.HEARTBEAT):
            return Ignored("a group's status is the coordinator's own")
        raise Refused(Code.NOT_ALLOWED, f"{user[:80]!r} is no board", "name one board")
    if not limits.is_user(user.removeprefix(SIGN)):
        raise Refused(
            Code.BAD_USER,
            f"{user[:80]!r} is no {'group' if of_group else 'board'}'s name",
            limits.USER_FORM,
        )
    kept = message.retain and kind not in (TopicKind.HEARTBEAT, TopicKind.STATUS)
    event = _retained(message, kind, reader) if kept else reader(message.payload)
    if isinstance(event, Requested):
        check_of_group(event) if of_group else check_of_board(event)
        if event.reply is not None:
            reply_topics.check_named(event.reply, topics.root, event.id)
        if message.reply:
            reply_topics.check(message.reply, topics.root, event.id)
            event = replace(event, reply=message.reply)
    if isinstance(event, Queried) and event.files and of_group:
        raise Refused(
            Code.BAD_PAYLOAD,
            "the query: 'files' are one board's",
            "ask for them on the topic of each board, with the same id",
            id=event.id,
        )
    return event


def _retained(message: Message, kind: TopicKind | None, reader: _Reader) -> _Read:
    """What a message means that comes again at every reconnect: only what names an id may.

    And no cancel or reset: whoever retained one did not mean every coordinator to come.
    """
    if not message.payload:
        return Ignored("an empty retained message clears one")
    stops = kind in (TopicKind.CANCEL, TopicKind.RESET)
    refusal = Refused(
        Code.RETAINED,
        f"a retained message {'' if stops else 'without an id '}on {message.topic}",
        f"it would be performed again at every reconnect: clear it with mosquitto_pub -r -n "
        f"-q 1 -t {message.topic} (on a broker without MQTT 5 clearing performs a reset, cancel "
        f"or collected once more), and publish without -r",
    )
    try:
        event = reader(message.payload)
    except Refused as error:
        if stops or error.id is None:
            raise refusal.about(error.id) from None
        raise
    if isinstance(event, HeartbeatReceived | StatusReceived | Ignored):
        return event
    if stops or event.id is None:
        raise refusal.about(event.id)
    return event


def named_id(message: Message, topics: Topics) -> str | None:
    """The id that a message names, where it can be read."""
    try:
        event = read(message, topics)
    except Refused as refusal:
        return refusal.id
    return None if isinstance(event, HeartbeatReceived | StatusReceived | Ignored) else event.id


def is_query(message: Message, topics: Topics) -> bool:
    """Whether this is a query that can be read: it changes nothing."""
    _, kind = topics.split(message.topic)
    if kind is not TopicKind.QUERY:
        return False
    try:
        return isinstance(read(message, topics), Queried)
    except Refused:
        return False


_READERS: Final[Mapping[TopicKind, _Reader]] = {
    TopicKind.REQUEST: read_request,
    TopicKind.ENVELOPE: read_command,
    TopicKind.COLLECTED: read_collected,
    TopicKind.RESPONSE: read_response,
    TopicKind.ANALYSIS: read_analysis,
    TopicKind.CANCEL: read_cancel,
    TopicKind.RESET: read_reset,
    TopicKind.QUERY: read_query,
    TopicKind.HEARTBEAT: read_heartbeat,
    TopicKind.STATUS: read_order,
}
