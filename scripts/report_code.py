"""Figures of the code, for ``scripts/check --report``: sizes, branches, and how far a way is.

A way is counted as it is gone: a request through the coordinator's ``step`` on a real database, and
a program's start on a device, from its envelope to the moment before its first instruction.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import hwsync
from tests.support import ways

PACKAGE: Final = Path(hwsync.__file__).parent
BRANCHED: Final = 15
REQUEST_FILES: Final = 12  # what one request should cross at most
START_FILES: Final = 10  # and a program's start
MODULE: Final = 400  # lines that a module should have at most


def main() -> None:
    sizes()
    branched()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        way(
            "a request, from step to its publishes",
            ways.a_request(path),
            REQUEST_FILES,
            ways.REQUEST,
        )
        way(
            "a program's start on a device",
            a_start(path),
            START_FILES,
            ways.ENVELOPE,
            ways.GRANT,
            ways.SESSION,
        )


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


def way(name: str, calls: list[ways.Call], most: int, *lists: int) -> None:
    """``lists``: those of docs/architecture.md that it is."""
    files = {file for file, _ in calls}
    listed = {file for number in lists for file, _ in ways.listed()[number]} & files
    print(
        f"{name}: {len(files)} files (aim: {most}), of which {len(listed)} decide something of it"
    )
    print(f"         {' '.join(sorted(files))}")
    lines = sum(len((PACKAGE / file).read_text().splitlines()) for file in files)
    print(f"         {lines:,} lines, of {MODULE} at most in a module: {lines / MODULE:.0f} files")


def a_start(folder: Path) -> list[ways.Call]:
    """Until the program may begin: its session is written down."""
    with ways.Device(folder, "") as device, ways.Watch() as watch:
        device.hear_envelope()
        device.hear_status()
        device.do_next()
        calls = watch.take()
        device.do_all()
    return calls


if __name__ == "__main__":
    main()
