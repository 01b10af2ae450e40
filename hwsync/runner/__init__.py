"""Run users' programs within limits and say truly how each ended; the only place that starts them.

Nothing here knows the protocol's messages or a journal: a ``Job`` goes in, a ``RunEnd`` comes out,
and between them the caller is told of the ``Group`` that its journal needs to end leftovers.
"""

from hwsync.runner.job import Job, Piece, RunEnd, StopSwitch
from hwsync.runner.processes import Group, end_group
from hwsync.runner.runner import Runner
from hwsync.runner.settings import Isolation, Limits, Settings, Start

__all__ = [
    "Group",
    "Isolation",
    "Job",
    "Limits",
    "Piece",
    "RunEnd",
    "Runner",
    "Settings",
    "Start",
    "StopSwitch",
    "end_group",
]
