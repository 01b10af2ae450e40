"""Which tests one worker of pytest-xdist runs, one behind the other.

xdist has a mark for it, ``xdist_group``, which pytest 9.2 does away with unsaid: a test's group was
written into its id, which can no longer be changed. So the groups stand here. A quick test comes
with its whole file: to hand out each by itself takes longer than most of them run, and more so the
more there are.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath
from typing import Final

GROUPS: Final = {
    # One folder for all, which takes most of a minute.
    "tests/acceptance/test_wheelhouse.py": "wheels",
    # One lab for all: its processes take four times as long to start as a test takes with them.
    "tests/acceptance/test_groups_cli.py": "groups",
    # Fork bombs and busy loops, and who counts the processes of an account.
    "tests/integration/test_hostile.py": "hostile",
    "tests/integration/test_runner_cgroup.py": "hostile",
    "tests/integration/test_unprivileged_device.py": "hostile",
    "tests/integration/test_runner_settings.py::test_the_kernel_counts_": "hostile",
}
"""What a test's id begins with -> its group."""

COMPUTING: Final = ("property", "simulation")
WAITING: Final = ("acceptance", "integration", "security")


@cache
def shared(nodeid: str) -> str:
    """What is of one worker with that test: of those with the same name one runs at a time."""
    for begins, group in GROUPS.items():
        if nodeid.startswith(begins):
            return group
    file = nodeid.partition("::")[0]
    return nodeid if PurePosixPath(file).parent.name in COMPUTING + WAITING else file
