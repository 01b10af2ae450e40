"""The file of a lab's groups, in TOML: ``lab1 = ["pi1", "pi2", "bench-*"]``.

The law: it is read as a whole, or refused with the file, the key and what to do.
"""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import UsageError
from hwsync.protocol.groups import EXAMPLE, NO_GROUPS, Groups, read_groups
from hwsync.protocol.limits import MAX_GROUPS_FILE

NAME: Final = "groups.toml"  # in a lab's folder


def load(file: Path, *, may_lack: bool = False) -> Groups:
    """The groups that it says; ``may_lack``: none where there is no such file.

    Raises ``UsageError``.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise UsageError(f"{file} is no file", f"a file of groups has lines like {EXAMPLE}")
        with file.open("rb") as opened:
            data = opened.read(MAX_GROUPS_FILE + 1)
    except FileNotFoundError as error:
        if may_lack:
            return NO_GROUPS
        raise UsageError(f"cannot read {file}: {error.strerror}", f"write {EXAMPLE}") from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "who may read it?") from None
    return parse(data, str(file))


def parse(data: bytes, source: str) -> Groups:
    """The groups that a file of these bytes says. Raises ``UsageError``."""
    if len(data) > MAX_GROUPS_FILE:
        raise UsageError(f"{source} is larger than {MAX_GROUPS_FILE:,} bytes")
    try:
        tree = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8 (byte {error.start})") from None
    except ValueError as error:  # also for a number of more digits than Python reads
        raise UsageError(f"{source} is no TOML: {error}", f"like this: {EXAMPLE}") from None
    except RecursionError:
        raise UsageError(f"{source} is no TOML: nested too deeply") from None
    return read_groups(tree, source)
