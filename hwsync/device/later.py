"""Modules that others import and a daemon does not need: they are loaded when they are first used.

The law: whoever uses one finds it as it is, only later. In the daemon's own process alone: in that
of ``hwsync.operator`` other people's modules stay as they are.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

NOT_NEEDED: Final = (
    "inspect",  # 1 MB; dataclasses: for a class without a docstring; from Python 3.12 on for each
    "urllib.request",  # 2 MB with http and email; paho: for a proxy, where PySocks is installed
)


class Later(ModuleType):
    """Stands in for a module until somebody asks it for something."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            sys.modules.pop(self.__name__, None)
        return getattr(import_module(self.__name__), name)


def load_later() -> None:
    """Has an effect on those that nobody has imported yet."""
    for name in NOT_NEEDED:
        if name not in sys.modules:
            sys.modules[name] = stand_in = Later(name)
            package, _, last = name.rpartition(".")
            if package:
                setattr(import_module(package), last, stand_in)
