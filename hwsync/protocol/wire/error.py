"""The error: why a message was refused (docs/protocol.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, NotRequired, TypedDict

from hwsync.protocol.jsons import dumps
from hwsync.protocol.wire.forms import STATE, Text
from hwsync.protocol.wire.schema import Schema, loose

if TYPE_CHECKING:
    from hwsync.protocol.effects import PublishError


class Error(TypedDict):
    """On ``error``: a refusal."""

    error: Annotated[Text, "a code of the table below"]
    message: Annotated[Text, "a sentence"]
    hint: Annotated[Text, "what to do"]
    topic: Annotated[Text, "of the message that was refused"]
    id: Annotated[Text | None, "that it named"]
    journal: Annotated[Text | None, "that it named"]
    state: NotRequired[Annotated[object, loose(STATE), "of the record"]]


ERROR: Final = Schema.of("the error", Error)


def encode_error(effect: PublishError) -> bytes:
    """Why a message was refused, as it is published."""
    refusal = effect.refusal
    fields: Error = {
        "error": refusal.code,
        "message": refusal.message,
        "hint": refusal.hint,
        "topic": effect.topic,
        "id": refusal.id,
        "journal": refusal.journal,
        "state": int(effect.state),
    }
    return dumps(fields).encode()
