"""What the tests on thousands of images of a disk start from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def memory() -> Iterator[Path]:
    """An empty folder whose flushes cost nothing, where there is one.

    What a disk has lost is in the image that a test puts there: nothing depends on this machine's.
    """
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="hwsync-", dir=place) as folder:
        yield Path(folder)
