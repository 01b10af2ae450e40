"""``scripts/check --report`` goes the ways that it counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import CHECKOUT


def test_it_names_the_files_that_a_request_and_a_start_cross() -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, CHECKOUT / "scripts" / "report_code.py"],
        env={"PATH": path, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    request = next(number for number, line in enumerate(lines) if line.startswith("a request"))
    start = next(number for number, line in enumerate(lines) if "start on a device" in line)
    assert {"coordinator/loop.py", "store/store.py", "protocol/moves.py"} <= set(
        lines[request + 1].split()
    )
    assert {"device/agent.py", "device/journal.py", "runner/runner.py", "runner/run.py"} <= set(
        lines[start + 1].split()
    )
    assert any("runner/server.py: serve" in line for line in lines)
