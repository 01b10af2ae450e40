"""With which key something is signed here: that of the option, else of the connection file."""

from __future__ import annotations

import os
from pathlib import Path

from hwsync.cli.common import Settings
from hwsync.protocol.errors import UsageError
from hwsync.signing import SECRET, SigningKey


def signer_of(settings: Settings, option: Path | None) -> SigningKey | None:
    """The key: the option names its file, the connection file that or the key itself.

    None: there is none. Raises ``UsageError`` where it cannot be used.
    """
    if option is not None:
        if str(option).startswith(SECRET):
            raise UsageError(
                "--signing-key names a file", "a key as argument is seen by everybody here"
            )
        return SigningKey.load(option)
    given = str(settings.given.get("signing_key", ""))
    if not given:
        return None
    # Not shown: it may be a key without its beginning.
    if not given.startswith(SECRET) and not os.path.exists(given):
        source = settings.given.sources["signing_key"]
        raise UsageError(
            f"{source}: signing_key is no key and no file", "hwsync key make FILE makes one"
        )
    return SigningKey.given(given, Path())
