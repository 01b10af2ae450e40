"""Processes of this machine that serve a lab: found by how they were started, told by a signal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

USUAL: Final = "/etc/hwsync"  # whose files systemd hands to a unit
STARTS_S: Final = 5.0  # until a coordinator listens to signals; before, one would end it

Pids = list[int]


def reload(file: Path) -> tuple[Pids, Pids]:
    """Have the brokers that serve this configuration read their files again.

    Returns the processes that were told, and those that may not be told by this account.
    """
    conf = os.path.realpath(file)
    return _tell(lambda pid: _serves(pid, conf))


def reload_coordinator(lab: Path) -> tuple[Pids, Pids]:
    """The same for the coordinators that have their file, or their groups, from this lab."""
    files = {os.path.realpath(lab / name) for name in ("coordinator.toml", "groups.toml")}
    usual = os.path.realpath(lab) == os.path.realpath(USUAL)
    return _tell(lambda pid: _coordinates(pid, files, usual) and _listens(pid))


def _tell(wanted: Callable[[int], bool]) -> tuple[Pids, Pids]:
    told: Pids = []
    denied: Pids = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        if not wanted(pid):
            continue
        try:
            os.kill(pid, signal.SIGHUP)
            told.append(pid)
        except ProcessLookupError:
            pass
        except PermissionError:
            denied.append(pid)
    return told, denied


def _serves(pid: int, conf: str) -> bool:
    """Whether that process was started as a broker with this configuration."""
    words = _words(pid, "cmdline")
    ours = "broker" in words[1:4]  # hwsync broker, perhaps by way of an interpreter
    if not words or not (os.path.basename(words[0]) == "mosquitto" or ours):
        return False
    return conf in _files(pid, words[1:])


def _coordinates(pid: int, files: set[str], usual: bool) -> bool:
    """Whether it was started as a coordinator with one of these; ``usual``: of systemd's lab."""
    words = _words(pid, "cmdline")
    if "coordinator" not in words[1:5]:
        return False
    variables = dict(word.partition("=")[::2] for word in _words(pid, "environ"))
    named = variables.get("HWSYNC_CONFIG", "")
    handed_over = named.startswith(variables.get("CREDENTIALS_DIRECTORY", "\0"))
    values = (word.rpartition("=")[2] for word in words[2:])
    return (usual and handed_over) or not files.isdisjoint(_files(pid, [*values, named]))


def _listens(pid: int) -> bool:
    """Whether a SIGHUP does not end it; waits for one that has just been started."""
    limit = time.monotonic() + STARTS_S
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        except OSError:
            return False
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> signal.SIGHUP - 1 & 1:
            return True
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)


def _words(pid: int, of: str) -> list[str]:
    """None where they are another account's, or the process has ended."""
    try:
        data = Path(f"/proc/{pid}/{of}").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in data.split(b"\0") if word]


def _files(pid: int, words: list[str]) -> Iterator[str]:
    try:
        folder = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        folder = "/"  # another account's: an absolute path is all that we understand
    return (os.path.realpath(os.path.join(folder, word)) for word in words if word)
