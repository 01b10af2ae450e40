"""Ways of messages through hwsync, performed with real parts and watched call by call."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import hwsync
from hwsync.device.agent import Agent
from hwsync.device.board_environment import BoardEnvironment, Calls
from hwsync.device.journal import Journal
from hwsync.protocol.jsons import dumps
from hwsync.protocol.topics import Topics
from hwsync.runner import Settings
from tests.support.board import envelope
from tests.support.coordinator import COLLECTED, Lab, request, result
from tests.support.processes import CHECKOUT

PACKAGE: Final = Path(hwsync.__file__).parent
LIMIT_S: Final = 30.0  # for whatever is waited for

Call = tuple[str, str]  # file below the package, and qualified name
Way = Callable[[Path], list[Call]]  # gone in an empty folder


DOCUMENT: Final = CHECKOUT / "docs/architecture.md"
REQUEST, LATE, CANCEL, CANCEL_HEARD, ENVELOPE, GRANT, SESSION = range(7)  # its lists, in order
STEP: Final = re.compile(r"(\d+)\. `(\S+): (\S+)` - \S.*")


def _parts() -> tuple[str, str]:
    """What the document says of the ways, and of what is beside them."""
    part = DOCUMENT.read_text().partition("\n## Four ways\n")[2].partition("\n## ")[0]
    lists, _, beside = part.partition("\n### Beside the ways\n")
    return lists, beside


def listed() -> list[list[Call]]:
    """The document's lists, in their order."""
    found: list[list[Call]] = []
    for line in _parts()[0].splitlines():
        if not re.match(r"\d", line):
            continue
        step = STEP.fullmatch(line)
        assert step is not None, line
        if step[1] == "1":
            found.append([])
        found[-1].append((step[2], step[3]))
        assert int(step[1]) == len(found[-1]), line
    return found


def beside() -> set[str]:
    """The files that a way may cross without being on its list."""
    return set(re.findall(r"`(\S+\.py)`", _parts()[1]))


class Watch:
    """Every call of a function of hwsync, in this thread and those that it starts meanwhile."""

    def __init__(self) -> None:
        self._seen: list[Call] = []
        self._over = False

    def __enter__(self) -> Self:
        threading.setprofile(self._look)
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True  # other threads go on
        sys.setprofile(None)
        threading.setprofile(None)

    def _look(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and not self._over and file.startswith(f"{PACKAGE}/"):
            self._seen.append((file.removeprefix(f"{PACKAGE}/"), frame.f_code.co_qualname))

    def take(self) -> list[Call]:
        """The calls since the last time, in their order."""
        taken = self._seen[:]
        del self._seen[: len(taken)]
        return taken

    def wait_for(self, call: Call) -> None:
        """Until another thread has made it."""
        until = time.monotonic() + LIMIT_S
        while call not in self._seen:
            assert time.monotonic() < until, f"{call} is not called"
            time.sleep(0.005)


def calls_of(act: Callable[[], object]) -> list[Call]:
    """What is called by an act."""
    with Watch() as watch:
        act()
        return watch.take()


# -- on the coordinator --------------------------------------------------------------------------


def a_request(folder: Path) -> list[Call]:
    """It comes to a board at rest, and is published."""
    with Lab(folder / "hwsync.db") as lab:
        lab.device(3, "c0")
        lab.hear("analysis", b"fine")
        delivery = lab.delivery("request", request("c1"))
        return calls_of(lambda: lab.coordinator.step([delivery]))


def a_late_result(folder: Path) -> list[Call]:
    """Another command runs already."""
    with Lab(folder / "hwsync.db") as lab:
        lab.hear("request", request("c1"))
        lab.hear("collected", COLLECTED)
        lab.hear("reset")
        lab.hear("request", request("c2"))
        delivery = lab.delivery("response", result("c1"))
        return calls_of(lambda: lab.coordinator.step([delivery]))


def a_cancel(folder: Path) -> list[Call]:
    """Of a command that runs."""
    with Lab(folder / "hwsync.db") as lab:
        lab.device(2)
        delivery = lab.delivery("cancel", dumps({"id": "c1"}).encode())
        return calls_of(lambda: lab.coordinator.step([delivery]))


# -- on the device -------------------------------------------------------------------------------


class Device:
    """An agent with a real journal and a real runner; its loop is here."""

    def __init__(self, folder: Path, program: str) -> None:
        self._came = threading.Semaphore(0)
        self._calls = Calls(self._came.release)
        settings = Settings(directory=folder / "programs")
        settings.directory.mkdir()
        self._environment = BoardEnvironment(settings, folder, self._calls)
        self._environment.runner.start()
        self._journal = Journal(folder / "journal", machine="m")
        self._environment.agent = self.agent = Agent(
            "u", Topics(), self._journal, self._environment
        )
        self._program = program
        self._seq = 2

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.runner.close()
        self._journal.close()

    def hear_envelope(self) -> None:
        payload = dumps(envelope(program=self._program)).encode()
        self.agent.received("hw/u/command", payload, lambda: None)

    def hear_status(self, *, cancelling: bool = False) -> None:
        """In state 2, granted to this device."""
        journal, self._seq = self._journal, self._seq + 1
        status = {"id": "a", "state": 2, "epoch": 0, "seq": self._seq, "start_at": None,
                  "settled": [], "journal": journal.name, "boot": journal.boot,
                  "cancelling": cancelling}  # fmt: skip
        self.agent.received("hw/u/status", dumps(status).encode(), lambda: None)

    def wait_for_call(self) -> None:
        """Until the run has left something for the loop; it stays there."""
        assert self._came.acquire(timeout=LIMIT_S)
        self._came.release()

    def do_next(self) -> None:
        """What the run has left for the loop."""
        assert self._came.acquire(timeout=LIMIT_S)
        for call in self._calls.take():
            call()

    def do_all(self) -> None:
        """Until the run is over."""
        while self.agent.running:
            self.do_next()
