"""The fixture ``board`` in a user's own tests, where this machine is the board.

Where hwsync is installed, pytest finds the plugin by itself.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import CHECKOUT

TESTS = """
from pathlib import Path

def test_a_program(board):
    Path("blink.py").write_text("import sys; print('speed', sys.argv[1])")
    assert board.run(Path("blink.py"), args=["2"]).stdout == "speed 2\\n"

def test_a_function(board):
    def double(number):
        return 2 * number
    assert board.call(double, 21) == 42
"""
ASKED = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]


def test_a_users_tests_run_on_a_lab_of_their_own(
    tmp_path: Path, environment_of: Callable[..., dict[str, str]]
) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_it.py").write_text(TESTS)
    variables = environment_of(PYTHONPATH=str(CHECKOUT))
    done = subprocess.run(
        [*ASKED, "-W", "error", str(tests)], cwd=tests, env=variables,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_is_registered_and_loads_nothing_but_pytest() -> None:
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    assert "hwsync = hwsync.pytest_plugin" in setup["options.entry_points"]["pytest11"]
    asks = "import sys, pytest; before = set(sys.modules); import hwsync.pytest_plugin; "
    asks += "print(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", asks], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['hwsync', 'hwsync.pytest_plugin']"
