"""``hwsync.connect``: the same connection files, accounts and certificates as the command line."""

from __future__ import annotations

import os
from pathlib import Path

from hwsync import connection
from hwsync.api.lab import Lab
from hwsync.api.words import in_python
from hwsync.configfile import PROGRAM
from hwsync.protocol.errors import HwsyncError
from hwsync.protocol.topics import DEFAULT_ROOT, Topics


def connect(
    broker: str | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    root: str | None = None,
    account: str | None = None,
    password: str | None = None,
    credentials: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    allow_plaintext: bool = False,
) -> Lab:
    """Connect to a lab.

        lab = hwsync.connect()                           # as the command hwsync does
        lab = hwsync.connect("mqtt://10.0.0.5:1883")
        lab = hwsync.connect(config="anna.toml")

    Without arguments it takes the connection file and the variables of the command line
    (docs/operations.md, "The connection file"); what is given here wins. ``broker``: its address;
    ``config``: a connection file; ``credentials``: a file of two lines, user and password; ``ca``,
    ``certificate``, ``key``: files, or PEM texts.

    Raises ``UsageError`` for what cannot be meant, and ``NoBroker``: why there is no connection.
    """
    paths = {"credentials": credentials, "ca": ca, "certificate": certificate, "key": key}
    options = {"broker": broker, "root": root, "account": account, "password": password}
    options |= {name: None if path is None else os.fspath(path) for name, path in paths.items()}
    try:
        given = connection.load(
            None if config is None else Path(config),
            options | {"allow_plaintext": allow_plaintext},
            source=PROGRAM,
        )
        return Lab(connection.broker(given), Topics(given.get("root", DEFAULT_ROOT)))
    except HwsyncError as error:
        error.hint = in_python(error.hint)
        raise
