"""Files that hwsync writes into a machine's configuration, and knows again.

The law: a file that was not written here, or was changed since, is neither overwritten nor removed.
The first line says so, with a hash over the rest.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from enum import Enum
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import HwsyncError

MODE: Final = 0o644
_MARK: Final = "# Written by `hwsync service`, which leaves alone what was changed since: "


class Found(Enum):
    """What is at a path."""

    NOTHING = "nothing"
    OURS = "written by hwsync service"
    CHANGED = "written by hwsync service, and changed since"
    FOREIGN = "not written by hwsync service"


def marked(text: str) -> str:
    """The text with the line by which it is known again."""
    return f"{_MARK}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n{text}"


def look(path: Path) -> Found:
    """Raises ``HwsyncError`` where it cannot be read."""
    try:
        if path.is_symlink():
            return Found.FOREIGN  # such as a unit that was masked
        text = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return Found.NOTHING
    except OSError as error:
        raise HwsyncError(f"cannot read {path}: {error.strerror}", "what is it?") from None
    if not text.startswith(_MARK):
        return Found.FOREIGN
    return Found.OURS if marked(text.partition("\n")[2]) == text else Found.CHANGED


def write(path: Path, text: str) -> bool:
    """Replace the file as a whole; False: it was so already. Raises ``HwsyncError``."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.exists() and path.read_bytes() == text.encode():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("x", encoding="utf-8") as file:
                os.fchmod(file.fileno(), MODE)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise HwsyncError(f"cannot write {path}: {error.strerror}", "is it read-only?") from None
    return True


def remove(path: Path) -> None:
    """The file, and its folder where that is a unit's own and nothing else is in it."""
    try:
        path.unlink()
        if path.parent.name.endswith(".service.d") and not any(path.parent.iterdir()):
            path.parent.rmdir()
    except OSError as error:
        raise HwsyncError(f"cannot remove {path}: {error.strerror}", "is it read-only?") from None
