"""What several unit tests start from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from hwsync.cli import say
from tests.support.coordinator import Lab

MEMORY: Final = Path("/dev/shm")
"""Files that no power cut has to survive: a database there waits for no disk."""


@pytest.fixture(autouse=True)
def _not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--quiet`` is for a whole process, and a test that gives it is not the last one there."""
    monkeypatch.setattr(say, "quiet", False)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """pytest's own, in memory where there is room for it."""
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="hwsync-test-", dir=where) as folder:
        yield Path(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where ``lab`` has its database; without it there is none yet."""
    return tmp_path / "hwsync.db"


@pytest.fixture
def lab(path: Path) -> Iterator[Lab]:
    """A coordinator on a database of its own, before anything happened."""
    with Lab(path) as opened:
        yield opened
