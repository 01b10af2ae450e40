"""The whole daemon under an account that may do little; and that what is left over is found."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.unprivileged import HostileLab, unprivileged
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("hostile")  # as tests/integration/test_hostile.py

CONFIGURATION = """
[limits]
memory_mb = 200
processes = 64
"""


@pytest.fixture
def lab(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    watch: Callable[..., Watcher],
    tmp_path: Path,
) -> Iterator[HostileLab]:
    with unprivileged() as account:
        one = HostileLab(account, CONFIGURATION, watch(mosquitto), mosquitto, start, tmp_path)
        yield one
        print(one.daemon.account())
        one.stop()


def test_a_program_runs_under_the_account(lab: HostileLab) -> None:
    end = lab.run("import os; print(os.getuid(), os.getgroups())")
    user = lab.account.user
    expected = (os.getuid(), os.getgroups()) if user is None else (user, [])
    assert end["hw_response"] == "{} {}\n".format(*expected), end
    lab.assert_nothing_left()
    lab.assert_next_is_normal()


def test_neither_a_fork_bomb_nor_the_death_of_its_parent_leaves_anything(lab: HostileLab) -> None:
    bomb = lab.run("import os\nwhile True:\n    os.fork()", timeout=5)
    assert (bomb["outcome"], bomb["ran"]) == ("killed", "yes")
    lab.assert_nothing_left()
    orphan = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(100)"
    assert lab.run(orphan, timeout=5)["outcome"] in ("killed", "interrupted")
    lab.assert_nothing_left()
    lab.assert_next_is_normal()


def test_what_is_left_over_is_ended_and_fails() -> None:
    started: list[Process] = []

    def leave() -> None:
        with unprivileged() as account:
            started.append(account.start(["-c", "import time; time.sleep(100)"], "escaped"))
            wait_until(lambda: account.living() == [started[0].pid], what="the process is seen")

    with pytest.raises(AssertionError, match=r"left over: .*sleep\(100\)"):
        leave()
    assert started[0].wait() == -signal.SIGKILL
