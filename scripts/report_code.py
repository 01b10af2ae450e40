"""Figures of the code, for ``scripts/check --report``: sizes, branches, and how far a way is.

A way is counted as it is gone: a request through the coordinator's ``step`` on a real database, and
a program's start on a device, from its envelope to the moment before its first instruction.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import hwsync
from hwsync.device.agent import Agent
from hwsync.device.journal import Journal
from hwsync.device.outside import Calls, Outside
from hwsync.protocol.jsons import dumps
from hwsync.protocol.topics import Topics
from hwsync.runner import Settings
from tests.support.board import envelope
from tests.support.coordinator import Lab, request

PACKAGE: Final = Path(hwsync.__file__).parent
BRANCHED: Final = 15
REQUEST_FILES: Final = 12  # what one request should cross at most
START_FILES: Final = 10  # and a program's start
START_S: Final = 30.0


def main() -> None:
    sizes()
    branched()
    with tempfile.TemporaryDirectory() as folder:
        way("a request, from step to its publishes", a_request(Path(folder)), REQUEST_FILES)
        way("a program's start on a device", a_start(Path(folder)), START_FILES)


def sizes() -> None:
    files = list(PACKAGE.rglob("*.py"))
    lines = {path: len(path.read_text().splitlines()) for path in files}
    print(f"files    {len(files)}, {sum(lines.values()):,} lines, "
          f"median {statistics.median(lines.values()):.0f}")  # fmt: skip
    for path in sorted(files, key=lambda path: -lines[path])[:5]:
        print(f"         {lines[path]:4} {path.relative_to(PACKAGE)}")
    functions = [
        (node.end_lineno - node.lineno + 1, f"{path.relative_to(PACKAGE)}: {node.name}")
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    ]
    lengths = [length for length, _ in functions]
    print(f"functions {len(functions)}, median {statistics.median(lengths):.0f} lines, longest:")
    for length, name in sorted(functions, reverse=True)[:5]:
        print(f"         {length:4} {name}")


def branched() -> None:
    """Functions with more branches than that, by ruff, whatever the settings allow."""
    found = subprocess.run(
        ["ruff", "check", "--isolated", "--select", "C901", "--output-format", "concise",
         "--config", f"lint.mccabe.max-complexity={BRANCHED}", PACKAGE],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    lines = [line for line in found.splitlines() if "C901" in line]
    print(f"more than {BRANCHED} branches: {len(lines)}")
    for line in lines:
        print(f"         {line.replace(f'{PACKAGE}/', '')}")


def way(name: str, files: set[str], most: int) -> None:
    print(f"{name}: {len(files)} files (aim: {most})")
    print(f"         {' '.join(sorted(files))}")


def crossed(act: Callable[[], object]) -> set[str]:
    """The files of hwsync that are entered meanwhile, in this thread and those that it starts."""
    seen: set[str] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code.co_filename)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        act()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return {str(Path(name).relative_to(PACKAGE)) for name in seen if name.startswith(f"{PACKAGE}/")}


def a_request(folder: Path) -> set[str]:
    with Lab(folder / "hwsync.db") as lab:
        lab.device(3, "c0")
        lab.hear("analysis", b"fine")
        delivery = lab.delivery("request", request("c1"))
        return crossed(lambda: lab.coordinator.step([delivery]))


def a_start(folder: Path) -> set[str]:
    """Until the program may begin: its session is written down."""
    came = threading.Semaphore(0)
    calls = Calls(came.release)
    settings = Settings(directory=folder / "programs")
    settings.directory.mkdir()
    outside = Outside(settings, folder, calls)
    outside.runner.start()
    journal = Journal(folder / "journal", machine="m")
    outside.agent = agent = Agent("u", Topics(), journal, outside)
    grant = {"id": "a", "state": 2, "epoch": 0, "seq": 2, "start_at": None, "settled": [],
             "journal": journal.name, "boot": journal.boot, "cancelling": False}  # fmt: skip

    def do_next() -> None:
        assert came.acquire(timeout=START_S)
        for call in calls.take():
            call()

    def start() -> None:
        agent.received("hw/u/command", dumps(envelope(program="")).encode(), lambda: None)
        agent.received("hw/u/status", dumps(grant).encode(), lambda: None)
        do_next()

    try:
        return crossed(start)
    finally:
        do_next()  # it has ended
        outside.runner.close()
        journal.close()


if __name__ == "__main__":
    main()
