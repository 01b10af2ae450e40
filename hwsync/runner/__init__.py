"""Run users' programs within limits and say truly how each ended; the only place that starts them.

Nothing here knows the protocol's messages or a journal: a ``Job`` goes in, a ``RunEnd`` comes out,
and between them the caller is told of the ``Group`` that its journal needs to end leftovers.
"""

from hwsync.runner.cold import ColdRunner
from hwsync.runner.job import Job, RunEnd, StopSwitch
from hwsync.runner.processes import Group, end_group

__all__ = ["ColdRunner", "Group", "Job", "RunEnd", "StopSwitch", "end_group"]
