"""What else is said to the coordinator: cancel, query, reset and analysis.

(docs/protocol.md, sections 2 and 3.)
"""

from __future__ import annotations

from typing import Final

from hwsync.protocol.jsons import dumps


def encode_id(id: str | None) -> bytes:
    """A cancel, reset or query: empty, or naming its command."""
    return b"" if id is None else dumps({"id": id}).encode()


def encode_reset(id: str | None, *, queue: bool) -> bytes:
    """A reset, which may empty the queue too."""
    named = {} if id is None else {"id": id}
    return dumps({**named, "queue": True}).encode() if queue else encode_id(id)


FORGET: Final = dumps({"forget": True}).encode()
"""A reset of a user who was a typing error."""


def encode_analysis(text: str, id: str | None) -> bytes:
    """An analysis in text for that command, or for the current one."""
    return dumps({"analysis": text, **({} if id is None else {"id": id})}).encode()
