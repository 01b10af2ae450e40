"""Rows that wait until all of them came: in memory, and beyond that in a file."""

from __future__ import annotations

from typing import Any

import pytest

from hwsync.cli import spool
from hwsync.cli.spool import Spool


def row(number: int) -> Any:
    return {"id": f"c{number}", "issued": float(number)}


@pytest.mark.parametrize("in_memory", [0, 3, 100])
def test_the_newest_stand_last_wherever_they_waited(
    monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", in_memory)
    rows = Spool()
    rows.add("pi2", [row(6), row(4)])
    rows.add("pi1", [row(5), row(4)])
    rows.add("pi2", [row(2)])
    rows.add("pi1", [])
    told = [("pi2", 2), ("pi1", 4), ("pi2", 4), ("pi1", 5), ("pi2", 6)]
    for _ in range(2):  # as often as one likes
        assert [(user, one["issued"]) for user, one in rows] == told
    assert len(rows) == 5


@pytest.mark.parametrize("in_memory", [0, 100])
def test_only_so_many_of_the_newest_are_shown(
    monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", in_memory)
    rows = Spool(last=2)
    for user in ("pi1", "pi2"):
        rows.add(user, [row(number) for number in (3, 2, 1)])
    assert [(user, one["id"]) for user, one in rows] == [("pi1", "c3"), ("pi2", "c3")]
    assert len(rows) == 2


def test_few_rows_make_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", pytest.fail)
    rows = Spool()
    rows.add("pi1", [row(1)])
    assert list(rows) == [("pi1", row(1))]
