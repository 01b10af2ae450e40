"""What one command of an operator is called."""

from __future__ import annotations

import secrets


def fresh_id() -> str:
    """An id for a command of the command line."""
    return f"cli-{secrets.token_hex(8)}"
