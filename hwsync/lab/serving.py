"""Brokers of this machine that serve a lab: found by how they were started, told by a signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def reload(file: Path) -> tuple[list[int], list[int]]:
    """Have the brokers that serve this configuration read their files again.

    Returns the processes that were told, and those that may not be told by this account.
    """
    told: list[int] = []
    denied: list[int] = []
    conf = os.path.realpath(file)
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        if not _serves(pid, conf):
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
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    words = [os.fsdecode(word) for word in line.split(b"\0") if word]
    ours = "broker" in words[1:4]  # hwsync broker, perhaps by way of an interpreter
    if not words or not (os.path.basename(words[0]) == "mosquitto" or ours):
        return False
    try:
        folder = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        folder = "/"  # another account's: an absolute path is all that we understand
    return any(os.path.realpath(os.path.join(folder, word)) == conf for word in words[1:])
