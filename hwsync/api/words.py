"""Hints that were written for the command line, in the words of Python."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = {"cert": "certificate"}
_OPTION: Final = re.compile(r"--([a-z]+(?:-[a-z]+)*)")


def in_python(hint: str) -> str:
    """``--allow-plaintext`` becomes ``allow_plaintext=``."""
    return _OPTION.sub(lambda found: f"{_NAMES.get(found[1], found[1]).replace('-', '_')}=", hint)
