"""A command that its device closes and opens again: what was said of the first offer ends no run.

A real coordinator and a real device, each message by hand. Without the rule (docs/decisions.md, 62)
the same messages do what the rule is there for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import pytest

from hwsync.protocol.record import Outcome, Ran, State
from hwsync.store.backups import back_up
from hwsync.store.restoring import restore
from hwsync.testing.mutants import MUTANTS
from hwsync.testing.switched_off import changed
from hwsync.transport import Connected, Subscribed
from tests.support.board import GROUP, Board
from tests.support.coordinator import Deed, Lab, Sent, request, sent

(MUTANT,) = (one for one in MUTANTS if one.name == "a command opened again has another boot")
RULE: Final = pytest.mark.parametrize("rule", [True, False], ids=["with the rule", "without it"])


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path)
    one.begin(user="pi1")
    yield one
    one.journal.close()


def bring(board: Board, deeds: list[Deed], *kinds: str) -> None:
    """What the coordinator published of these kinds comes to the board, in its order."""
    found = [one for one in deeds if isinstance(one, Sent) and one.kind in kinds]
    assert {one.kind for one in found} == set(kinds)
    for one in found:
        board.hear(one.kind, one.payload)


def said(board: Board) -> list[tuple[str, bytes]]:
    """What the board has said of commands since it was asked last."""
    found = [one for one in board.world.sent if one.kind in ("collected", "response")]
    board.world.sent = []
    return [(one.kind, json.dumps(one.fields).encode()) for one in found]


def end(lab: Lab) -> tuple[Outcome, Ran] | None:
    command = lab.store.command("pi1", "c1")
    assert command is not None
    return (command.report.outcome, command.report.ran) if command.report else None


@RULE
def test_a_no_of_before_a_restore_stops_nothing(
    lab: Lab, board: Board, tmp_path: Path, *, rule: bool
) -> None:
    """The coordinator dies before it acknowledges the request; its backup does not know it.

    The broker sends the request again, and behind it what the board had said by then.
    """
    backup = tmp_path / "backup.db"
    with nullcontext() if rule else changed(MUTANT.edits):
        lab.hear("reset")  # so that the backup has a status of the board
        back_up(lab.path, backup)
        bring(board, lab.hear("request", request(), mid=7), "status", "command")
        ((collected, payload),) = said(board)

        lab.stop()
        restore(backup, lab.path, now=lab.clock.wall())
        lab.start()
        asked = lab.delivery("request", request(), mid=7, dup=True)
        waited = (asked, lab.delivery(collected, payload))
        deeds = lab.step(Connected(True, 5), Subscribed(), *waited)
        assert [one.json["state"] for one in sent(deeds, "status")] == [0, 1, 2]
        bring(board, deeds, "status", "command")
        # It was closed by the first of these, and opened again by the envelope.
        no, again = said(board)
        assert (no[0], again[0]) == ("response", "collected")
        assert board.ran() == ([] if rule else ["c1"])
        if not rule:
            board.agent.run_started(GROUP)

        bring(board, lab.hear(*no), "status")
        assert end(lab) == (Outcome.REJECTED, Ran.MAYBE)  # true of who never began
        assert board.world.stops == (0 if rule else 1)  # and nobody had asked for that


@RULE
def test_a_no_that_comes_twice_is_not_the_answer_to_the_next_grant(
    lab: Lab, board: Board, *, rule: bool
) -> None:
    """A status from before the envelope comes late, and nothing else for 10 s; nobody restores."""
    with nullcontext() if rule else changed(MUTANT.edits):
        before = lab.hear("reset")
        bring(board, lab.hear("request", request(expires=0)), "command")  # its status is lost
        board.pass_time(10.0)
        bring(board, before, "status")
        *lost, no = said(board)
        assert {kind for kind, _ in lost} == {"collected"}
        assert json.loads(no[1])["reason"] == "the coordinator does not know it"

        lab.hear(*no)  # in state 1 it is refused, and settled
        assert (lab.record.state, end(lab)) == (State.REQUESTED, None)
        bring(board, lab.later(1.0), "command")
        ((collected, payload),) = said(board)
        bring(board, lab.hear(collected, payload), "status")
        assert board.ran() == ["c1"]
        board.agent.run_started(GROUP)

        bring(board, lab.hear(*no), "status")  # the broker has brought it twice
        if rule:
            assert (lab.record.state, end(lab), board.world.stops) == (State.COLLECTED, None, 0)
        else:
            assert (end(lab), board.world.stops) == ((Outcome.REJECTED, Ran.NO), 1)
