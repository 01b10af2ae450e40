"""Whether the database that a command found by itself is the one of the lab's coordinator.

The law: it is only said, behind what was printed; no broker, and no right to read, is no finding.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hwsync.cli import say
from hwsync.cli.common import Settings, the_database
from hwsync.operator.client import QUIET_S, Client
from hwsync.protocol.errors import HwsyncError
from hwsync.protocol.published import Health
from hwsync.protocol.topics import ITSELF


@contextmanager
def own_database(settings: Settings, db: Path | None) -> Iterator[Path]:
    """The one that was named, else the only one here, which may be another one's: that is said.

    Raises ``UsageError`` where there are two.
    """
    path = the_database(db)
    try:
        yield path
    except HwsyncError:
        _warn(settings, db, path)
        raise
    _warn(settings, db, path)


def _warn(settings: Settings, db: Path | None, path: Path) -> None:
    if db is None and (other := the_coordinators(path, health(settings))):
        say.line(f"hwsync: looked at {path}; {other}", err=True)


def the_coordinators(path: Path, said: Health | None) -> str:
    """Words for people where the coordinator with this health has another one; else empty."""
    if said is None:
        return ""
    host, database, here = said.get("host"), said.get("database"), socket.gethostname()
    if not host or not database or (host, database) == (here, str(path.resolve())):
        return ""
    return f"the coordinator's database is {database} on {host}"


def health(settings: Settings) -> Health | None:
    """What the broker keeps of the coordinator's; None: nothing, or we may not see it."""
    with suppress(HwsyncError), Client(settings.url, settings.topics, ITSELF) as operator:
        for heard in operator.hear(QUIET_S):
            if heard.health is not None:
                return heard.health
    return None
