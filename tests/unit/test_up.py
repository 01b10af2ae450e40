"""How ``hwsync up`` ends its parts."""

from __future__ import annotations

import queue
import subprocess
import sys
from pathlib import Path

import pytest

from hwsync.cli import up
from tests.support.processes import environment
from tests.support.waiting import PATIENCE, wait_until

# Ends at the second SIGTERM, as a device does whose program does not end by itself.
PATIENT = """
import pathlib, signal, sys
here = pathlib.Path(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
(here / "ready").touch()
signal.sigwait({signal.SIGTERM})
signal.sigwait({signal.SIGTERM})
(here / "told").touch()
"""


def test_a_part_that_goes_on_is_asked_again_before_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "STOP_S", 2.0)
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    command = [sys.executable, "-c", PATIENT, str(tmp_path)]
    part = up._Part("device", command, ended, {})
    wait_until((tmp_path / "ready").exists, what="it has started")
    part.stop()
    assert ended.get(timeout=PATIENCE) == "device"
    assert part._process.stdout is not None
    part._process.stdout.close()
    assert not part.running
    assert (tmp_path / "told").exists(), "it was killed"


def test_a_module_in_the_folder_where_it_was_typed_is_not_imported(tmp_path: Path) -> None:
    for name in ("select.py", "queue.py", "hwsync.py"):
        (tmp_path / name).write_text("raise SystemExit('this is mine')\n")
    done = subprocess.run(
        [*up.PYTHON, "hwsync.cli", "--version"], cwd=tmp_path, capture_output=True,
        text=True, timeout=60, check=False, env=environment(tmp_path),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
