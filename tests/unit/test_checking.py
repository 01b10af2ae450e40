"""What was changed in a database or is missing there is named; nothing else is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hwsync.store.checking import check
from tests.support.coordinator import Lab, change, use


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """With one whole cycle, one refused message and one command under way."""
    use(lab)
    return lab


def test_a_sound_database_is_found_sound_also_while_it_is_used(lab: Lab, path: Path) -> None:
    assert list(check(path)) == []
    lab.hear("cancel", b"")
    assert list(check(path)) == []


CHANGES = [
    ("UPDATE commands SET name = 'b.py' WHERE id = 'c2'", "c2 of pi1: its program"),
    (
        "UPDATE transitions SET payload = x'00' WHERE row = 2",
        "row 2 was changed (board pi1, seq 2)",
    ),
    ("UPDATE transitions SET late = 1 WHERE row = 3", "row 3 was changed"),
    ("UPDATE transitions SET time = time + 1 WHERE row = 1", "row 1 was changed"),
    ("UPDATE transitions SET hash = x'00' WHERE row = 4", "row 4 was changed"),
    ("DELETE FROM transitions WHERE row = 2", "transitions: missing: row 2"),
    ("DELETE FROM transitions WHERE row IN (1, 2, 3)", "missing: row 1 to 3"),
    ("DELETE FROM transitions WHERE row = 5", "pi1 is at seq 5, state 1; its log: seq 4"),
    ("UPDATE hw_status SET state = 2", "pi1 is at seq 5, state 2; its log: seq 5, state 1"),
    ("DELETE FROM hw_status", "pi1 is in the log and has no record"),
    ("DELETE FROM transitions", "its log: nothing"),
    (
        "UPDATE commands SET program = 'x' WHERE id = 'c1'",
        "c1 of pi1: its program, stdin, args, name, start or files",
    ),
    ("UPDATE commands SET response = '43' WHERE id = 'c1'", "c1 of pi1: its response was changed"),
    (
        "UPDATE commands SET program_sha256 = '' WHERE id = 'c1'",
        "c1 of pi1: the hash of its",
    ),
    ("UPDATE commands SET asked_by = 'bob' WHERE id = 'c2'", "c2 of pi1: who asked was changed"),
    ("UPDATE commands SET asked_known_by = 'reply topic' WHERE id = 'c2'", "c2 of pi1: who asked"),
    ("UPDATE commands SET asked_by = NULL WHERE id = 'c2'", "c2 of pi1: who asked was changed"),
    ("UPDATE commands SET asked_by = '' WHERE id = 'c1'", "c1 of pi1: who asked was changed"),
]


@pytest.mark.parametrize(("sql", "named"), CHANGES)
def test_what_was_changed_or_is_missing_is_named(
    lab: Lab, path: Path, sql: str, named: str
) -> None:
    lab.stop()
    change(path, sql)
    found = list(check(path))
    assert any(named in line for line in found), found


def test_only_the_changed_row_is_named(lab: Lab, path: Path) -> None:
    lab.stop()
    change(path, "UPDATE transitions SET note = 'x' WHERE row = 2")
    assert len(list(check(path))) == 1


def test_a_flipped_byte_is_found_and_named(lab: Lab, path: Path) -> None:
    lab.stop()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(truncate)")
    data = path.read_bytes()
    needle = b'"journal":"j1"'  # in the payload of a row of the log
    assert needle in data
    path.write_bytes(data.replace(needle, b'"journal":"k1"', 1))
    assert [line for line in check(path) if "transitions: row" in line and "was changed" in line]


def test_damaged_pages_are_named_and_end_nothing(lab: Lab, path: Path) -> None:
    for _ in range(50):
        lab.hear("cancel", b"x" * 900)
    lab.stop()
    pages = bytearray(path.read_bytes())
    pages[8192:] = b"\xff" * (len(pages) - 8192)
    path.write_bytes(bytes(pages))
    assert list(check(path))
