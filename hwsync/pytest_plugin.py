"""For tests of programs that run on boards: the fixture ``board``, in every pytest.

    def test_blink(board):
        assert board.run(Path("blink.py"), args=["--speed", "2"]).stdout == "speed 2\\n"

    pytest                       the board is this machine: a lab of its own, begun for the tests
    pytest --hwsync-board pi1    the board pi1 of the lab of your connection file

The law: pytest loads this module with the first of whatever tests its user has, so nothing is
imported and nothing happens before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Unpack

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from hwsync.api.lab import Lab
    from hwsync.api.options import Options, Program
    from hwsync.api.run import Run

OPTION: Final = "--hwsync-board"
START_S: Final = 30.0  # for a lab on this machine
SIMULATED: Final = "board"  # its board


class BoardUnderTest:
    """A board of a lab, as the fixture gives it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name

    def run(self, program: Program, *, check: bool = True, **options: Unpack[Options]) -> Run:
        """Like ``Lab.run``."""
        return self.lab.run(self.name, program, check=check, **options)

    def submit(self, program: Program, **options: Unpack[Options]) -> Run:
        """Like ``Lab.submit``."""
        return self.lab.submit(self.name, program, **options)

    def call(self, function: Any, /, *args: Any, **keywords: Any) -> Any:
        """Like ``Lab.call``."""
        return self.lab.call(function, *args, on=self.name, **keywords)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--hwsync-board NAME``."""
    group = parser.getgroup("hwsync", "tests on boards")
    group.addoption(
        OPTION, metavar="BOARD", default=None,
        help="the board of the fixture board, in the lab of the connection file; without it this "
        "machine is the board",
    )  # fmt: skip


@pytest.fixture(scope="session")
def hwsync_board(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BoardUnderTest]:
    """One connection for all tests, and one lab where this machine is the board."""
    import hwsync

    name = pytestconfig.getoption(OPTION)
    if name is not None:
        with hwsync.connect() as lab:
            yield BoardUnderTest(lab, name)
        return
    for url in _lab_here(tmp_path_factory.mktemp("hwsync")):
        with hwsync.connect(url) as lab:
            yield BoardUnderTest(lab, SIMULATED)


@pytest.fixture
def board(hwsync_board: BoardUnderTest) -> BoardUnderTest:
    """A board on which programs run: ``board.run("print(6*7)").stdout``."""
    return hwsync_board


def _lab_here(folder: Path) -> Iterator[str]:
    """A broker, a coordinator and a device of this machine; the broker's address."""
    import os
    import signal
    import socket
    import subprocess
    import sys
    import time

    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"mqtt://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "hwsync.cli", "up", "--broker", url, "--user", SIMULATED,
               "--db", str(folder / "hwsync.db")]  # fmt: skip
    command += ["--allow-root"] if os.geteuid() == 0 else []
    log = folder / "up.log"
    variables = {name: value for name, value in os.environ.items() if name[:7] != "HWSYNC_"}
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, env=variables,
            start_new_session=True,
        )  # fmt: skip
    try:
        limit = time.monotonic() + START_S
        while b" ready" not in log.read_bytes().rpartition(b"up    ")[2]:
            if process.poll() is not None or time.monotonic() > limit:
                said = log.read_text(errors="replace")
                pytest.fail(f"a lab could not be started on this machine:\n{said}", pytrace=False)
            time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
