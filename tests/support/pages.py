"""The lab keeper's pages, typed line by line: what stands in their ``console`` blocks.

A line with ``# `` is root's, one with ``$ `` is a person's, who has logged in as on any Debian.
What a page needs beyond its machine stands in: another machine is this one (``scp``), and where
there is no network, the packages of Debian are there already (``apt-get``).
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hwsync
from tests.support.booted import PACKAGES, Booted
from tests.support.processes import CHECKOUT
from tests.test_docs import blocks

VARIABLE: Final = "HWSYNC_BARE_DEBIAN"
PAGE_S: Final = 900.0 if VARIABLE in os.environ else 240.0  # for all of a page, on a busy machine
LINE_S: Final = PAGE_S / 2  # for one line: pip installs thirty packages
PEOPLE: Final = ("anna", "pi")
WHEEL: Final = f"hwsync-{hwsync.__version__}-py3-none-any.whl"
SCP: Final = """#!/bin/bash
to="/home/${2%%@*}"
[ $# = 2 ] && cp "$1" "$to/" && chown "${2%%@*}" "$to/${1##*/}"
"""
APT: Final = """#!/bin/bash
[ "$1" = install ] && exec dpkg-query -W "${@:3}"
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One command of a page, and whether root types it."""

    text: str
    by_root: bool
    number: int


def lines(page: str, section: str = "") -> list[Line]:
    """The commands of a page of docs/, or of its section with that heading."""
    text = (CHECKOUT / "docs" / page).read_text(encoding="utf-8")
    found, inside, headings = [], not section, {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("## "):
            inside = not section or line == f"## {section}"
        headings[number] = inside
    assert any(headings.values()), f"{page} has no section {section!r}"
    for block in blocks(text):
        if block.tag == "console" and headings[block.line]:
            for number, line in enumerate(block.lines, block.line + 1):
                prompt, _, command = line.strip().partition(" ")
                assert prompt in ("#", "$"), f"{page}, line {number}: who types this? {line!r}"
                found.append(Line(command, prompt == "#", number))
    return found


def bare(folder: Path) -> Booted:
    """A Debian with nothing of hwsync's but the folder of wheels in root's home, and some people.

    With ``HWSYNC_BARE_DEBIAN``, which ``scripts/bare-debian`` sets, it is one that was just
    installed, and the folder is that of ``scripts/wheelhouse``; else it is this machine's files,
    and the folder a stand-in, since both together take minutes and a network.
    """
    files = Path(os.environ.get(VARIABLE, "/"))
    machine = Booted(folder, empty=True, files=files)
    try:
        if files == Path("/"):
            wheels(folder / "wheels")
            machine.copy(folder / "wheels", "/root/hwsync-wheels")
        else:
            machine.call("cp", "-r", "/srv/hwsync-wheels", "/root")
        for person in PEOPLE:
            machine.call("useradd", "-m", "-s", "/bin/bash", person)
        machine.call("bash", "-c", "echo 127.0.0.1 master.local >>/etc/hosts")
        machine.write("/usr/local/bin/scp", SCP, "0755")
        machine.write("/usr/local/sbin/apt-get", APT, "0755")
    except BaseException:
        machine.stop()
        raise
    return machine


def typed(machine: Booted, line: Line, person: str = "anna") -> str:
    """What the line says. Raises ``AssertionError`` that names it, where it fails."""
    who = ["su", "-"] if line.by_root else ["su", "-", person]
    return machine.call(*who, "-c", line.text, within=LINE_S)


def wheels(folder: Path) -> None:
    """hwsync as it is here, in a form that pip takes; what it needs comes from ``PACKAGES``."""
    folder.mkdir()
    info = f"hwsync-{hwsync.__version__}.dist-info"
    scripts = "hwsync = hwsync.cli:main\nhwsync-device = hwsync.device.service:main\n"
    texts = {
        "packages.pth": f"{PACKAGES}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: hwsync\nVersion: {hwsync.__version__}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for path in sorted((CHECKOUT / "hwsync").rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                wheel.write(path, str(path.relative_to(CHECKOUT)))
        for name, text in texts.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in wheel.namelist()))
    for name in ("master", "board", "board-sign"):
        text = f"--no-index\n--find-links .\nhwsync=={hwsync.__version__}\n"
        (folder / f"{name}.txt").write_text(text)
