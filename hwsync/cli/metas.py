"""What ``--meta`` says, of a request and of a search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from hwsync.protocol.errors import UsageError
from hwsync.protocol.jsons import dumps, loads, size

PAIR: Final = re.compile(r"([A-Za-z0-9_.-]+)=(.*)\Z", re.DOTALL)


def read_meta(texts: Sequence[str]) -> Any:
    """What ``--meta`` says: texts by key, or all of it as JSON. Raises ``UsageError``."""
    if len(texts) == 1 and not PAIR.match(texts[0]):
        try:
            meta = loads(texts[0])
            size(dumps(meta))
        except ValueError as error:
            raise UsageError(
                f"--meta is no JSON: {error}", "such as --meta course=1b, or JSON"
            ) from None
        return meta
    pairs = [PAIR.match(text) for text in texts]
    if None in pairs:
        raise UsageError("--meta is KEY=VALUE, as often as you like, or JSON once")
    return {pair[1]: pair[2] for pair in pairs if pair}
