"""The request: what an operator asks for (docs/protocol.md, section 4)."""

from __future__ import annotations

from hwsync.protocol.jsons import dumps


def encode_request(program: str, **keys: object) -> bytes:
    """A structured request; the keys are those of docs/protocol.md, section 4."""
    return dumps({"program": program, **keys}).encode()
