"""What ``import hwsync`` gives (docs/python.md): a lab, its boards and their programs as Python."""

from __future__ import annotations

from hwsync.api.board import Board
from hwsync.api.connecting import connect
from hwsync.api.errors import (
    Cancelled,
    Expired,
    Failed,
    Interrupted,
    Killed,
    Lost,
    NotOk,
    Rejected,
    TimedOut,
)
from hwsync.api.lab import Lab
from hwsync.api.run import Run
from hwsync.api.runs import Runs
from hwsync.protocol.errors import (
    Closed,
    HwsyncError,
    NoBroker,
    NoCoordinator,
    Refused,
    TooLarge,
    Unreachable,
    UsageError,
)

__all__ = [
    "Board",
    "Cancelled",
    "Closed",
    "Expired",
    "Failed",
    "HwsyncError",
    "Interrupted",
    "Killed",
    "Lab",
    "Lost",
    "NoBroker",
    "NoCoordinator",
    "NotOk",
    "Refused",
    "Rejected",
    "Run",
    "Runs",
    "TimedOut",
    "TooLarge",
    "Unreachable",
    "UsageError",
    "connect",
]

for _one in (Board, Cancelled, Expired, Failed, Interrupted, Killed, Lab, Lost, NotOk, Rejected,
             Run, Runs, TimedOut):  # fmt: skip
    _one.__module__ = "hwsync"  # as who reads a traceback imports it
