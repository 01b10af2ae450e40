"""What a run ran on, for who compares runs: only what can be read, and never an error."""

from __future__ import annotations

import os
from typing import Any, Final

from hwsync import __version__
from hwsync.device.presence import read_model, read_text, read_throttled
from hwsync.runner import Runner

RELEASE: Final = "/etc/os-release"
LONGEST: Final = 100  # characters of a text


class RanOn:
    """Of one life of a device; its system is looked at once."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        system = os.uname()
        self._fixed = {
            "board": read_model() or system.machine,
            "os": _system(),
            "kernel": f"{system.sysname} {system.release} {system.machine}",
        }

    def now(self) -> dict[str, Any]:
        """``board`` (its model, else its kind of processor), ``os``, ``kernel``, ``python`` and
        ``packages`` of the programs' interpreter where that is Python, ``throttled`` (a Raspberry
        Pi's bits), ``hwsync``: what is known.
        """
        throttled = read_throttled()
        said = {
            **self._fixed,
            "python": self._runner.version,
            "packages": self._runner.packages,
            "hwsync": __version__,
        }
        found: dict[str, Any] = {key: text[:LONGEST] for key, text in said.items() if text}
        return found if throttled is None else {**found, "throttled": throttled}


def _system() -> str:
    for line in read_text(RELEASE).splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip("\"'")
    return ""
