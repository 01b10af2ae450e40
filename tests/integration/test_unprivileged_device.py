"""The whole daemon under an account that may do little; and that what is left over is found."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.unprivileged import HostileLab, unprivileged
from tests.support.waiting import wait_until

# As tests/integration/test_hostile.py.
pytestmark = pytest.mark.starving

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
    assert bomb["outcome"] in ("killed", "error")  # seen by the server, or refused by the kernel
    assert bomb["ran"] == "yes"
    lab.assert_nothing_left()
    orphan = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(100)"
    assert lab.run(orphan, timeout=5)["outcome"] in ("killed", "interrupted")
    lab.assert_nothing_left()
    lab.assert_next_is_normal()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has accounts to give")
def test_a_daemon_of_root_runs_programs_of_an_account_in_its_own_state_folder(
    mosquitto: MosquittoBroker, start: Callable[..., Process], watch: Callable[..., Watcher]
) -> None:
    """Nothing but ``run_as`` is configured; they reach their folder, and nothing beside it."""
    # Not below pytest's own folder: any pytest that starts meanwhile closes that to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        text = '[programs]\nrun_as = "nobody"\n[limits]\nfree_disk_mb = 0\n'
        (folder / "device.toml").write_text(text)
        lab = Lab(mosquitto, start, folder)
        lab.coordinator("--settle", "0")
        watcher = watch(mosquitto)
        state = folder / "device"
        lab.device().wait_for_log("connected to")
        program = f"""
import os
with open(os.path.abspath("module.py"), "w") as file:
    file.write("x = 42")
import module
print(os.getuid(), module.x)
for file in (".", "journal.db", "journal.db-wal", "journal.mark", "lock"):
    try:
        os.open(os.path.join({str(state)!r}, file), os.O_RDONLY)
    except PermissionError:
        print("closed")
"""
        request = {"id": "c1", "program": program, "analysis": "outcome"}
        lab.pub("request", json.dumps(request))
        end = watcher.wait_for_state("pi1", 0, 20.0, id="c1")
        assert end["hw_response"] == "65534 42\n" + "closed\n" * 5, end
        lab.processes["device"].stop()


def test_what_is_left_over_is_ended_and_fails() -> None:
    started: list[Process] = []

    def leave() -> None:
        with unprivileged() as account:
            started.append(account.start(["-c", "import time; time.sleep(100)"], "escaped"))
            wait_until(lambda: account.living() == [started[0].pid], what="the process is seen")

    with pytest.raises(AssertionError, match=r"left over: .*sleep\(100\)"):
        leave()
    assert started[0].wait() == -signal.SIGKILL
