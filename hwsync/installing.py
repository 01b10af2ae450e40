"""How hwsync and its extras get onto a machine: the words of every error that has to say it.

The law: nobody is told to install ``hwsync`` by that name alone.

Why: it is on no package index, so there the name belongs to whoever takes it (docs/operations.md,
"Installing").
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Final

SERVICES: Final = "/opt/hwsync"  # an environment that systemd's services can see
CHECKOUT: Final = "/path/to/hwsync"


def install(extra: str = "") -> str:
    """What to type for the rest of hwsync, or one of its extras: ``sign``, ``tls``, ``schema``…"""
    return f"{_pip(sys.prefix)} install {_source(extra)}{_where()}"


def environment() -> str:
    """What to type for an environment that services can see."""
    made = f"python3 -m venv {SERVICES} && {_pip(SERVICES)} install {_source()}"
    return f"{made}{_where()}"


def _pip(prefix: str) -> str:
    return shlex.quote(os.path.join(prefix, "bin", "pip"))


def _source(extra: str = "") -> str:
    return f"'{CHECKOUT}[{extra}]'" if extra else CHECKOUT


def _where() -> str:
    return f" ({CHECKOUT} being its source; without internet: scripts/wheelhouse)"
