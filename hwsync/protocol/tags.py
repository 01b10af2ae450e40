"""What a ``meta`` says, as numbers by which commands are found again.

The law: who asks for ``assignment=lab3`` finds each command that says so among those that have its
number; whether one does say so is looked at all the same (``history.has_meta``), since two values
may share a number. Of each meta the first ``limits.META_TAGS`` values have one; a longer one is
found under ``MANY``, whatever is asked for.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps, loads

MANY: Final = 0


@lru_cache(maxsize=8)  # a batch has the same meta for thousands of members
def tags_of(meta: str) -> tuple[int, ...]:
    """The numbers of a ``meta`` (compact JSON); of one that is empty there are none."""
    if meta in ("", "{}"):
        return ()
    said = loads(meta)
    if not isinstance(said, dict):
        return ()
    some = list(said.items())[: limits.META_TAGS]
    found = dict.fromkeys(_tag(key, dumps(value)) for key, value in some)
    return (*found, MANY) if len(said) > len(some) else tuple(found)


def tags_asked(key: str, value: Any) -> tuple[int, int, int]:
    """Under which numbers a command may be that has this; a text stands for its JSON, too."""
    text = dumps(value)
    return _tag(key, text), _tag(key, value if isinstance(value, str) else text), MANY


def _tag(key: str, value: str) -> int:
    digest = hashlib.sha256(f"{dumps(key)}:{value}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
