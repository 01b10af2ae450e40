"""The database read by another process: history and one command, whatever the writer does."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hwsync.protocol import limits
from hwsync.protocol.errors import DatabaseError, NotFound
from hwsync.store.reader import Reader
from hwsync.store.store import Store
from tests.support.coordinator import COLLECTED, PERSONS, Lab, request, result


def test_history_mixes_changes_and_refused_messages_in_order_of_time(lab: Lab) -> None:
    for kind, payload in [
        ("request", request()), ("request", b"2"), ("collected", COLLECTED), ("analysis", b"\xff"),
        ("response", result()),
    ]:  # fmt: skip
        lab.later(1.0, lab.delivery(kind, payload))
    with Reader(lab.path) as reader:
        rows = list(reader.history("pi1"))
    assert [row.get("command") or row["error"] for row in rows] == [
        "hw_command_request", "busy", "hw_command_retrieval", "bad_payload", "hw_response_provide"
    ]  # fmt: skip
    assert [row["payload"] for row in rows[1:4]] == ["2", COLLECTED.decode(), "�"]


@pytest.mark.parametrize("jump", [1e9, -1e9])
def test_history_is_in_the_order_of_the_log_whatever_the_clock_said(lab: Lab, jump: float) -> None:
    for at, (kind, payload) in enumerate(PERSONS):
        lab.clock.jump = jump * (at % 2)
        lab.hear("reset" if kind == "analysis" else kind, payload if kind != "analysis" else b"")
        lab.hear("cancel", b"{")
    with Reader(lab.path) as reader:
        rows = list(reader.history("pi1"))
    log = [row["seq"] for row in rows if "command" in row]
    refused = [row["row"] for row in rows if "error" in row]
    assert (log, refused) == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_history_tells_how_many_refused_messages_have_no_row(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSED_ROWS", 2)
    lab.hear("reset")
    for _ in range(2):
        lab.hear("cancel")
    with Reader(lab.path) as reader:
        assert len(list(reader.history("pi1"))) == 3
        lab.hear("cancel")
        assert list(reader.history("pi1"))[3:] == [{"user": "pi1", "refused": 3, "kept": 2}]


def test_history_keeps_to_one_user(lab: Lab) -> None:
    lab.hear("request", b"1")
    lab.hear("cancel", b"", user="pi2")
    with Reader(lab.path) as reader:
        assert {row["user"] for row in reader.history("pi1")} == {"pi1"}
        assert {row["user"] for row in reader.history("pi2")} == {"pi2"}
        with pytest.raises(NotFound, match="nothing is recorded of pi3"):
            list(reader.history("pi3"))


def test_show_has_the_whole_command_and_every_message_that_named_it(lab: Lab) -> None:
    lab.hear("request", request(args=["x"], meta={"k": "é"}))
    lab.hear("request", request("c1", "print(0)"))
    lab.hear("collected", COLLECTED)
    with Reader(lab.path) as reader:
        shown = reader.show("pi1", "c1")
    assert (shown["state"], shown["journal"], list(shown["args"])) == (2, "j1", ["x"])
    assert [row.get("command") or row["error"] for row in shown["history"]] == [
        "hw_command_request", "hw_command_retrieval", "id_reused"
    ]  # fmt: skip


def test_show_of_an_earlier_command_says_that_it_rests(lab: Lab) -> None:
    lab.device(3)
    lab.hear("reset")
    lab.hear("request", request("c2"))
    with Reader(lab.path) as reader:
        assert (reader.show("pi1", "c1")["state"], reader.show("pi1", "c2")["state"]) == (0, 1)
        with pytest.raises(NotFound, match="pi1 has no command c3"):
            reader.show("pi1", "c3")
        with pytest.raises(NotFound):
            reader.show("pi2", "c1")


def test_a_reader_sees_what_is_saved_while_it_is_open(lab: Lab) -> None:
    lab.hear("request", request())
    with Reader(lab.path) as reader:
        assert reader.show("pi1", "c1")["state"] == 1
        lab.hear("collected", COLLECTED)
        assert reader.show("pi1", "c1")["state"] == 2


def test_a_reader_cannot_write(lab: Lab) -> None:
    with Reader(lab.path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM hw_status")


def test_a_database_that_nobody_writes_is_read_without_making_files(lab: Lab) -> None:
    lab.hear("request", request())
    lab.stop()
    before = sorted(lab.path.parent.iterdir())
    with Reader(lab.path) as reader:
        assert reader.show("pi1", "c1")["state"] == 1
        assert sorted(lab.path.parent.iterdir()) == before


def test_there_must_be_a_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="there is no database") as error:
        Reader(tmp_path / "none.db")
    assert "--db" in error.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("PRAGMA user_version = 99", r"schema 99, expected"),
        ("PRAGMA application_id = 1", "no database of this hwsync"),
    ],
)
def test_another_schema_and_another_programs_database_are_not_read(
    tmp_path: Path, change: str, said: str
) -> None:
    path = tmp_path / "hwsync.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    with pytest.raises(DatabaseError, match=said):
        Reader(path)


@pytest.mark.parametrize("content", [b"", b"this is no database at all" * 100])
def test_what_is_no_database_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hwsync.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=str(path)):
        Reader(path)


def test_damaged_pages_are_said_to_be_damaged(lab: Lab) -> None:
    for _ in range(300):
        lab.hear("cancel", b"x" * 900)
    lab.stop()
    pages = bytearray(lab.path.read_bytes())
    pages[4096:] = b"\xff" * (len(pages) - 4096)
    lab.path.write_bytes(bytes(pages))
    with Reader(lab.path) as reader:
        with pytest.raises(DatabaseError, match="cannot read the database"):
            list(reader.history("pi1"))
        with pytest.raises(DatabaseError, match="cannot read the database"):
            reader.show("pi1", "c1")
