"""How a board runs programs: what is the same for every run, as the configuration says it.

Nothing here looks at the machine; whether it can be done is found out by ``Runner``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

MEGABYTE: Final = 1_000_000


class Start(StrEnum):
    """How a Python program is started."""

    WARM = "warm"  # forked from an interpreter that is ready, with the modules of ``preload``
    COLD = "cold"  # in a fresh interpreter


class Isolation(StrEnum):
    """What a program can see and touch beside its limits."""

    NONE = "none"  # whatever its account may
    BWRAP = "bwrap"  # bubblewrap: a system to read, its own folder, no network; always a cold start


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use; None: no limit. A megabyte is 1,000,000 bytes."""

    cpu_s: float | None = None  # processor time of each process
    memory_mb: int | None = None  # resident, of all its processes together
    processes: int | None = None  # with their threads, at the same time
    open_files: int | None = None  # of each process
    file_size_mb: int | None = None  # of each file that it writes
    output_mb: int | None = None  # standard output and standard error together
    free_disk_mb: int | None = None  # must stay free where it runs


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a runner is made with; what can be configured of it is in docs/device.md."""

    directory: Path  # the programs' working directory, which is there
    empty_directory: bool = False  # before and after each run
    environment: Mapping[str, str] | None = None  # the whole; None: that of this process
    start: Start = Start.WARM
    python: str = sys.executable  # the interpreter, Python 3.11 or later
    preload: tuple[str, ...] = ()  # modules that the warm interpreter has imported
    interpreter: tuple[str, ...] = ()  # any other: gets the program's file, then the arguments
    run_as: str | None = None  # account of the programs; only for root
    limits: Limits = field(default_factory=Limits)
    end_grace_s: float = 2.0  # from SIGINT to SIGTERM where a program is ended; 0: ended at once
    isolation: Isolation = Isolation.NONE
    network: bool = False  # with BWRAP
    devices: tuple[str, ...] = ()  # with BWRAP: paths in /dev
    readable: tuple[str, ...] = ()  # with BWRAP: further files and folders to read
