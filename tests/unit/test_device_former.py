"""A board that has another name than before: a result is told under its command's name, or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwsync.device.former import NAMES
from hwsync.device.journal import Stage
from hwsync.protocol.limits import UNKNOWN_S
from tests.support.board import END, Board


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """It was ``u``, and its journal has a result of the command ``a`` that nobody was told."""
    one = Board(tmp_path)
    one.run()
    one.agent.run_ended(END)
    one.begin(user="v")
    yield one
    one.journal.close()


def results(board: Board) -> list[tuple[str, str]]:
    return [(sent.user, sent.fields["id"]) for sent in board.world.sent if sent.kind == "response"]


def counted(board: Board) -> object:
    board.pass_time(31.0)
    return board.said("heartbeat")[-1].get("former")


def test_it_listens_to_the_earlier_name_alone(board: Board) -> None:
    assert board.agent.former_names == ("u",)
    board.begin(user="u")
    assert board.agent.former_names == ()


def test_nothing_is_told_before_something_is_heard_of_that_name(board: Board) -> None:
    board.agent.connected()
    board.status(9, 0, "", of="v")
    assert counted(board) == {"u": 1}
    assert results(board) == []


def test_it_is_told_under_that_name_until_it_is_settled(board: Board) -> None:
    board.agent.connected()
    board.world.users = {"u", "v"}
    board.status(2, 2, of="u")
    assert results(board) == [("u", "a")]
    board.pass_time(5.0)
    assert set(results(board)) == {("u", "a")}
    assert len(results(board)) > 1
    board.status(3, 3, of="u", settled=[["a", board.journal.name]])
    board.world.sent.clear()
    assert counted(board) is None
    assert results(board) == []
    assert board.journal.unsettled() == []


def test_each_connection_must_hear_of_it_anew(board: Board) -> None:
    board.agent.connected()
    board.world.users = {"u", "v"}
    board.status(2, 2, of="u")
    board.world.users = {"v"}
    board.agent.connected()
    board.pass_time(100.0)
    board.world.users = {"u", "v"}
    board.world.sent.clear()
    board.status(2, 2, of="u")
    assert results(board) == [("u", "a")]


def test_the_own_names_status_settles_nothing_of_another(board: Board) -> None:
    board.agent.connected()
    board.status(9, 0, "", of="v", settled=[["a", board.journal.name]])
    board.status(9, 0, "", of="w", settled=[["a", board.journal.name]])
    assert [entry.id for entry in board.journal.unsettled()] == ["a"]


def test_a_status_of_an_earlier_epoch_settles_nothing(board: Board) -> None:
    """It may be from before the result was lost with a database."""
    board.agent.connected()
    board.status(1, 0, "", of="v", epoch=7)
    board.status(5, 3, of="u", epoch=6, settled=[["a", board.journal.name]])
    assert results(board) == []
    assert [entry.id for entry in board.journal.unsettled()] == ["a"]


def test_its_grant_is_no_grant_here(board: Board) -> None:
    """Neither does its order make the own status a stale one."""
    board.agent.connected()
    board.world.users = {"u", "v"}
    board.status(90, 2, "b", of="u")
    board.envelope("b", 1, user="v")
    assert board.ran() == []
    board.status(2, 2, "b", of="v")
    assert board.ran() == ["b"]


def test_what_was_received_and_not_begun_is_rejected_under_that_name(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.envelope()
    board.begin(user="v")
    assert board.agent.busy is None
    board.world.users = {"u", "v"}
    board.agent.connected()
    board.status(2, 2, of="u")
    assert board.said("collected") == []
    assert board.told() == [("a", "rejected", "no")]
    assert board.said("response")[0]["reason"] == "this board is called v now"
    assert board.stage() is Stage.CLOSED
    board.journal.close()


def test_the_same_id_of_the_new_name_is_another_command(board: Board) -> None:
    """What the journal says of it is the earlier one's, so it is refused and never answered so."""
    board.agent.connected()
    board.envelope("a", 1, user="v")
    board.status(2, 2, "a", of="v")
    assert board.ran() == []
    assert results(board) == [("v", "a")]
    assert board.told() == [("a", "rejected", "no")]
    board.status(3, 3, "a", of="v", settled=[["a", board.journal.name]])
    board.status(4, 0, "a", of="v", settled=[["a", board.journal.name]])
    (kept,) = board.journal.unsettled()
    assert (kept.envelope.user, kept.report and kept.report.outcome) == ("u", "ok")


def test_what_waits_is_said_once_where_nothing_is_heard(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        board.agent.connected()
        board.pass_time(UNKNOWN_S - 1.0)
        assert "wait in its journal" not in caplog.text or _ > 0
        board.pass_time(60.0)
    said = [record for record in caplog.records if "wait in its journal" in record.message]
    assert [record.levelname for record in said] == ["ERROR"]
    assert said[0].message.startswith("1 results of u, as this board was called before")


def test_a_board_that_never_had_another_name_says_nothing_of_it(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.run()
    board.agent.run_ended(END)
    board.begin()
    board.agent.connected()
    board.status(2, 2)
    assert results(board)[0] == ("u", "a")
    assert counted(board) is None
    board.journal.close()


def test_so_many_names_are_listened_to(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for number in range(NAMES + 2):
        board.begin(user=f"u{number}")
        board.envelope(f"c{number}", 2 * number + 1, user=f"u{number}")
        board.status(2 * number + 2, 2, f"c{number}")
        board.agent.run_ended(END)
    board.begin(user="v")
    assert board.agent.former_names == tuple(f"u{number}" for number in range(NAMES + 1, 1, -1))
    board.agent.connected()
    assert len(counted(board) or ()) == NAMES + 2  # type: ignore[arg-type]
    board.journal.close()
