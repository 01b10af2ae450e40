"""What a heartbeat says of the board itself: only what can be read, and never an error."""

from __future__ import annotations

import os
import platform
from glob import glob
from pathlib import Path
from typing import Any, Final

MODELS: Final = ("/proc/device-tree/model", "/sys/class/dmi/id/product_name")
TEMPERATURE: Final = "/sys/class/thermal/thermal_zone0/temp"  # thousandths of a degree
THROTTLED: Final = "/sys/devices/platform/soc*/*/get_throttled"  # a Raspberry Pi's, hexadecimal


def presence(folder: Path, python: str) -> dict[str, Any]:
    """``python`` (version of the programs' interpreter, else the daemon's), ``board``,
    ``temperature`` (°C), ``throttled`` (the firmware's bits; 0: never), ``disk_free_mb`` of the
    folder's disk and ``memory_free_mb``.
    """
    said: dict[str, Any] = {"python": python or platform.python_version()}
    if board := read_model():
        said["board"] = board[:100]
    temperature = read_text(TEMPERATURE).strip()
    if temperature.lstrip("-").isdecimal():
        said["temperature"] = int(temperature) / 1000
    if (throttled := read_throttled()) is not None:
        said["throttled"] = throttled
    try:
        disk = os.statvfs(folder)
        said["disk_free_mb"] = disk.f_bavail * disk.f_frsize // 10**6
    except OSError:
        pass
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            said["memory_free_mb"] = int(line.split()[1]) * 1024 // 10**6
    return said


def read_model() -> str:
    """What the board calls itself; empty: nothing."""
    names = (read_text(path).strip("\0\n ") for path in MODELS)
    return next(filter(None, names), "")


def read_throttled() -> int | None:
    """A Raspberry Pi's own bits; None: it is none."""
    for path in glob(THROTTLED)[:1]:
        try:
            return int(read_text(path), 16)
        except ValueError:
            continue
    return None


def read_text(path: str) -> str:
    """What stands in a file of the system; empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
