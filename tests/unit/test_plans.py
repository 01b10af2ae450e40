"""However many rows there are: what is asked while people wait is found by an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hwsync.store import statements
from hwsync.store.store import Store

LARGE = ("commands", "transitions", "tags", "refused", "regrades", "contents", "content_uses")

# What looks at everything, and says so: the checks, and the migration of a log without hashes.
EVERYTHING = {"COMMANDS", "ANALYSES", "NOTED", "CHAIN", "LOG_ENDS", "ALL_CONTENTS",
              "MISSING_CONTENTS"}  # fmt: skip
ONE_END = re.compile(r"ORDER BY row DESC LIMIT 1$")  # the first step of a scan is the last row
NAMED = {
    name: text
    for name, text in vars(statements).items()
    if name.isupper()
    and isinstance(text, str)
    and re.match(r"\s*(SELECT|UPDATE|DELETE)", text)
    and not ONE_END.search(text)
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("plans") / "hwsync.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as opened:
        yield opened


def scans(connection: sqlite3.Connection, text: str) -> list[str]:
    """The steps of a statement that go through all of a large table."""
    marks = max([text.count("?"), *map(int, re.findall(r"\?(\d+)", text))])
    plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", (None,) * marks).fetchall()
    aliases = dict(re.findall(r"(?:FROM|JOIN) (\w+) (\w)\b", text))
    found = []
    for *_, step in plan:
        match = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX commands_owed)?$", step)
        if match and aliases.get(match[1], match[1]) in LARGE and "commands_owed" not in step:
            found.append(step)
    return found


@pytest.mark.parametrize("name", sorted(NAMED.keys() - EVERYTHING))
def test_no_statement_goes_through_a_large_table(connection: sqlite3.Connection, name: str) -> None:
    assert scans(connection, NAMED[name]) == []


@pytest.mark.parametrize("name", ["COMMANDS", "CHAIN", "ALL_CONTENTS"])
def test_what_does_would_be_seen(connection: sqlite3.Connection, name: str) -> None:
    assert scans(connection, NAMED[name])


def test_rows_of_a_past_are_found_by_their_indexes(connection: sqlite3.Connection) -> None:
    ways = {
        "PLACES": "commands_user", "PLACE_OF_ID": "sqlite_autoindex_commands_1",
        "PLACES_OF_ASKER": "commands_asked", "COUNT_OF_ASKER": "commands_asked",
        "PLACES_OF_TAG": "PRIMARY KEY", "COUNT_OF_TAG": "PRIMARY KEY",
        "PAST_WITHIN": "commands_issued", "LOG_ROWS_OF": "transitions_command",
        "LOG_OF_COMMAND": "transitions_command", "PRUNE_LOG": "transitions_command",
        "OWED": "commands_owed", "PARTS": "commands_batch",
    }  # fmt: skip
    for name, index in ways.items():
        marks = NAMED[name].count("?")
        plan = connection.execute(f"EXPLAIN QUERY PLAN {NAMED[name]}", (1,) * marks).fetchall()
        assert index in str(plan), name
