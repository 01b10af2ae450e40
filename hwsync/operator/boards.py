"""Which boards there are and how they stand, by what the broker keeps and the coordinator says."""

from __future__ import annotations

import time
from typing import Final

from hwsync.operator.client import QUIET_S, Client
from hwsync.protocol.wire.heartbeat import Heartbeat
from hwsync.protocol.wire.itself import Boards
from hwsync.protocol.wire.status import Status

LISTEN_S: Final = 2.0  # at most, for the retained statuses of everybody, and for the coordinator


class Kept:
    """What the broker keeps of the boards, and the coordinator's list of boards."""

    def __init__(self) -> None:
        self.records: dict[str, Status] = {}
        self.beats: dict[str, Heartbeat] = {}
        self.boards: Boards | None = None

    @property
    def users(self) -> set[str]:
        """Of whom anything is kept."""
        return self.records.keys() | self.beats.keys()

    def hear(self, operator: Client, *, until_boards: bool, seconds: float = LISTEN_S) -> None:
        """Until nothing comes any more, for so many seconds at most."""
        limit = time.monotonic() + seconds
        more = True
        while (more or (until_boards and self.boards is None)) and time.monotonic() < limit:
            more = False
            for heard in operator.hear(QUIET_S):
                more = True
                if (status := heard.status) is not None:
                    self.records[heard.user] = status
                elif (beat := heard.heartbeat) is not None:
                    self.beats[heard.user] = beat
                elif heard.boards is not None:
                    self.boards = heard.boards
