"""Run users' programs within limits and say truly how each ended; the only place that starts them.

Nothing here knows the protocol's messages or a journal: a ``Job`` goes in, a ``RunEnd`` comes out,
and between them the caller is told of the ``Group`` that its journal needs to end leftovers.
"""

from hwsync.runner.job import Instant, Job, Known, Piece, RunEnd, StopSwitch
from hwsync.runner.page import raw_ns
from hwsync.runner.processes import Group, end_group
from hwsync.runner.runner import Prepared, Runner
from hwsync.runner.settings import Isolation, Limits, Settings, Start

__all__ = [
    "Group",
    "Instant",
    "Isolation",
    "Job",
    "Known",
    "Limits",
    "Piece",
    "Prepared",
    "RunEnd",
    "Runner",
    "Settings",
    "Start",
    "StopSwitch",
    "end_group",
    "raw_ns",
]
