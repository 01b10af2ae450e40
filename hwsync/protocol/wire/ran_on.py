"""What a run ran on, as its device says it: an object of a few texts and numbers.

The law: it is for people who compare runs, so nothing is refused for it: what is no such object is
dropped as a whole. Keys are the device's own choice; those of ours stand in ``device.ran_on``.
"""

from __future__ import annotations

import re
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps, is_number, loads
from hwsync.protocol.wire.schema import Form, Json

_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


def is_ran_on(value: Any) -> bool:
    """Whether this is what a run can have run on."""
    if not isinstance(value, dict) or len(value) > limits.MAX_RAN_ON_KEYS:
        return False
    if not all(_KEY.fullmatch(key) and _is_plain(one) for key, one in value.items()):
        return False
    try:
        return len(dumps(value).encode()) <= limits.MAX_RAN_ON
    except ValueError:  # half a character
        return False


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | bool) or is_number(value)


RAN_ON: Final = Form("object", is_ran_on)


def read_ran_on(value: Any) -> str:
    """Compact JSON; empty where it says nothing, or is none."""
    return dumps(value) if value and is_ran_on(value) else ""


def ran_on_json(text: str) -> Json | None:
    """The object of ``read_ran_on``; None: nobody said."""
    return loads(text) if text else None
