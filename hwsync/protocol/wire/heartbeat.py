"""The heartbeat: what a board says of itself (docs/protocol.md, section 3)."""

from __future__ import annotations

from hwsync.protocol.jsons import dumps


def encode_heartbeat(*, online: bool, journal: str, boot: int, **more: object) -> bytes:
    """The retained heartbeat, or (``online`` false) the will."""
    return dumps({"online": online, "journal": journal, "boot": boot, **more}).encode()
