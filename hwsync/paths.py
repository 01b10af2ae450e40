"""Where state is kept by default."""

from __future__ import annotations

import os
from pathlib import Path

from hwsync.protocol.errors import UsageError


def state_directory(option: str, below: str = "") -> Path:
    """``$STATE_DIRECTORY`` (systemd's), else ``~/.local/state/hwsync`` and what is ``below`` it.

    Raises ``UsageError`` where there is no home directory either; it names the ``option`` to give.
    """
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given)
    try:
        return Path.home() / ".local/state/hwsync" / below
    except RuntimeError:
        raise UsageError("this account has no home directory", f"give {option}") from None
