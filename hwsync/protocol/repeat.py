"""How long to wait before something is said again: the same everywhere (docs/protocol.md)."""

from __future__ import annotations

from hwsync.protocol.device.values import pause

__all__ = ["pause"]
