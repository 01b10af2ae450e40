"""The bytes of files that a command brought back: asked for by name, and compared with their hash.

The law: what the coordinator cannot give any more is absent, never half. It answers once a second
and board, so a refusal for that is waited out; where the broker takes no message with all of them,
each is asked for by itself (docs/protocol.md, section 5, "Files").
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from hwsync.operator.conversation import Conversation, Talk, raise_refused
from hwsync.protocol import limits
from hwsync.protocol.errors import Code
from hwsync.protocol.files import File, is_path
from hwsync.protocol.topics import TopicKind
from hwsync.protocol.wire.asking import encode_query
from hwsync.protocol.wire.received import Received

TRIES: Final = 10  # refusals that are waited out: others may ask for files of that board, too
DRY: Final = 2  # answers without bytes, until there are none: one may be somebody else's

Told = Mapping[str, Any]


def fetching(
    conversation: Conversation,
    id: str,
    told: Told,
    paths: Iterable[str] | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> Talk[dict[str, bytes]]:
    """The bytes by path, of the files that the command's status or result (``told``) has.

    ``paths``: only these; None: all. What is not kept any more is not there. Raises ``Refused``,
    ``NoCoordinator`` as ``Conversation`` does.
    """
    listed: Told = told.get("files") or {}
    wanted = [path for path in listed if (paths is None or path in set(paths)) and is_path(path)]
    if not wanted:
        return {}
    found = yield from _asked(conversation, id, listed, wanted, waiting)
    for path in wanted if not found and len(wanted) > 1 else ():
        found |= yield from _asked(conversation, id, listed, [path], waiting)
    return found


def _asked(
    conversation: Conversation,
    id: str,
    listed: Told,
    wanted: list[str],
    waiting: Callable[[], None],
) -> Talk[dict[str, bytes]]:
    """One query, as often as it is refused for coming too soon."""
    for _ in range(TRIES):
        dry = 0

        def answer(came: Received) -> bool:
            nonlocal dry
            if came.fields.get("id") != id:
                return False
            if came.result is not None:
                has = _bytes_of(came.fields.get("files"), listed, wanted)
                dry += not has
                return bool(has) or dry >= DRY
            return came.error is not None

        came = yield from conversation.asking(
            TopicKind.QUERY, encode_query(id, wanted), answer, waiting=waiting
        )
        if came.result is not None:
            return _bytes_of(came.fields.get("files"), listed, wanted)
        if came.error is None or came.error["error"] != Code.NOT_ALLOWED:
            break
        yield from _pause(conversation)
    raise_refused(came)
    return {}


def _pause(conversation: Conversation) -> Talk[None]:
    until = conversation.now + limits.FILES_S
    while conversation.now < until:
        yield from conversation.hearing(until)


def _bytes_of(said: Any, listed: Told, wanted: Iterable[str]) -> dict[str, bytes]:
    """What a result has of these files, as far as it is what the hash says."""
    found: dict[str, bytes] = {}
    for path in wanted:
        one = said.get(path) if isinstance(said, dict) else None
        text = one.get("data") if isinstance(one, dict) else None
        if not isinstance(text, str):
            continue
        try:
            data = b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if File.of(path, data).sha256 == listed[path]["sha256"]:
            found[path] = data
    return found
