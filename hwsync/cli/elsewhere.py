"""Whether the database that a command found by itself is the one of the lab's coordinator.

The law: it is only said, behind what was printed; no broker, and no right to read, is no finding.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from hwsync.cli import say
from hwsync.cli.common import Settings, the_database
from hwsync.operator.client import QUIET_S, Client
from hwsync.protocol.errors import HwsyncError
from hwsync.protocol.topics import ITSELF
from hwsync.protocol.wire.itself import Health


class Own:
    """The database that was named, else the only one here.

    Raises ``UsageError`` where there are two.
    """

    def __init__(self, settings: Settings, db: Path | None) -> None:
        self.path = the_database(db)
        self._settings = settings

    @cached_property
    def health(self) -> Health | None:
        """What the broker keeps of the coordinator's; None: nothing, or we may not see it."""
        settings = self._settings
        with suppress(HwsyncError), Client(settings.url, settings.topics, ITSELF) as operator:
            for heard in operator.hear(QUIET_S):
                if heard.health is not None:
                    return heard.health
        return None


@contextmanager
def own_database(settings: Settings, db: Path | None) -> Iterator[Own]:
    """Where it was not named it may be another coordinator's: that is said behind everything else.

    Raises ``UsageError`` where there are two.
    """
    own = Own(settings, db)
    try:
        yield own
    except HwsyncError:
        _warn(own, db)
        raise
    _warn(own, db)


def _warn(own: Own, db: Path | None) -> None:
    if db is None and (other := the_coordinators(own.path, own.health)):
        say.line(f"hwsync: looked at {own.path}; {other}", err=True)


def the_coordinators(path: Path, said: Health | None) -> str:
    """Words for people where the coordinator with this health has another one; else empty."""
    if said is None:
        return ""
    host, database, here = said.get("host"), said.get("database"), socket.gethostname()
    if not host or not database or (host, database) == (here, str(path.resolve())):
        return ""
    return f"the coordinator's database is {database} on {host}"
