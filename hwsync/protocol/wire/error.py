"""The error: why a message was refused (docs/protocol.md, section 3)."""

from __future__ import annotations

from hwsync.protocol.effects import PublishError
from hwsync.protocol.jsons import dumps


def encode_error(effect: PublishError) -> bytes:
    """Why a message was refused, as it is published (docs/protocol.md, section 3)."""
    refusal = effect.refusal
    return dumps(
        {
            "error": refusal.code,
            "message": refusal.message,
            "hint": refusal.hint,
            "topic": effect.topic,
            "id": refusal.id,
            "journal": refusal.journal,
            "state": int(effect.state),
        }
    ).encode()
