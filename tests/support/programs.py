"""Programs of the machine that a test needs: their absence skips on a laptop and fails in CI."""

from __future__ import annotations

import os
import shutil

import pytest

# Debian keeps servers in /usr/sbin, outside the PATH of an ordinary user.
SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def require_program(name: str, package: str) -> str:
    """The path of ``name``; where it is missing, fails if ``CI`` is set and skips otherwise."""
    path = shutil.which(name, path=SEARCH)
    if path is not None:
        return path
    message = f"{name} is missing (apt-get install {package})"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
