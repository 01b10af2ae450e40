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
    for path in MODELS:
        if board := _read(path).strip("\0\n "):
            said["board"] = board[:100]
            break
    temperature = _read(TEMPERATURE).strip()
    if temperature.lstrip("-").isdecimal():
        said["temperature"] = int(temperature) / 1000
    for path in glob(THROTTLED)[:1]:
        try:
            said["throttled"] = int(_read(path), 16)
        except ValueError:
            continue
    try:
        disk = os.statvfs(folder)
        said["disk_free_mb"] = disk.f_bavail * disk.f_frsize // 10**6
    except OSError:
        pass
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            said["memory_free_mb"] = int(line.split()[1]) * 1024 // 10**6
    return said


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
