"""What several unit tests start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.coordinator import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A coordinator on a database of its own, before anything happened."""
    with Lab(tmp_path / "hwsync.db") as opened:
        yield opened
