"""A verdict that takes long: an analyst that is there and says nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hwsync.protocol.record import AnalysedBy
from hwsync.protocol.wire.analyst import Offer, encode_offer
from hwsync.protocol.wire.asking import encode_analysis
from tests.support.fake_boards import FakeBoards
from tests.support.lab import Lab, standing
from tests.support.mqtt import Watcher, publish
from tests.support.waiting import START_PATIENCE, wait_until

GHOST = ("--analyser", "ghost", "-c")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with standing(tmp_path_factory.mktemp("lab"), 'lab1 = ["pi1", "pi2"]\n') as lab:
        boards = FakeBoards(lab.broker.port, ["pi1", "pi2"])
        boards.start()
        offer = encode_offer(Offer(True, {"ghost": "1"}, 0.0))
        publish(lab.broker, "hw/@hwsync/analysts/ghost", offer, retain=True)
        yield lab
        boards.stop()


def judge(lab: Lab, id: str, board: str) -> None:
    said = {"passed": True, "message": "well done"}
    lab.pub("analysis", encode_analysis(said, id, AnalysedBy("ghost", "1")), user=board)


def test_ctrl_c_leaves_the_verdict_and_the_program_has_ended_as_it_did(lab: Lab) -> None:
    watcher = Watcher(lab.broker, "hw/pi1/status")
    run = lab.cli("run", "pi1", "--id", "c1", "--wait-for-board", *GHOST, "fail boom")
    watcher.wait_for_state("pi1", 3, START_PATIENCE, id="c1")
    run.interrupt()
    assert run.wait(START_PATIENCE) == 1, run.account()
    assert "the verdict is not waited for: hwsync show c1 has it later" in run.stderr
    assert "no analysis" not in run.stderr
    judge(lab, "c1", "pi1")
    watcher.wait_for_state("pi1", 0, START_PATIENCE, id="c1")
    watcher.close()


@pytest.mark.parametrize("boards", ["@lab1", "pi1,pi2"])
def test_the_verdicts_of_several_boards_are_waited_for_and_said_together(
    lab: Lab, boards: str
) -> None:
    id = f"all-{boards[0]}".replace("@", "g")
    watcher = Watcher(lab.broker, "hw/+/status")
    run = lab.cli("run", boards, "--id", id, "--wait-for-board", "--json", *GHOST, "print 42")
    for board in ("pi1", "pi2"):
        watcher.wait_for_state(board, 3, START_PATIENCE, id=id)
        assert run.running
        judge(lab, id, board)
    assert run.wait(START_PATIENCE) == 0, run.account()
    *ends, counts = (json.loads(line) for line in run.stdout.splitlines())
    assert sorted((end["user"], end["analysed_by"]["name"]) for end in ends) == [
        ("pi1", "ghost"), ("pi2", "ghost"),
    ]  # fmt: skip
    assert counts["counts"] == {"ok": 2}
    # And without --json, where Ctrl-C leaves the one that is not there yet.
    run = lab.cli("run", boards, "--id", f"{id}-2", "--wait-for-board", *GHOST, "print 42")
    for board in ("pi1", "pi2"):
        watcher.wait_for_state(board, 3, START_PATIENCE, id=f"{id}-2")
    judge(lab, f"{id}-2", "pi1")
    watcher.wait_for_state("pi1", 0, START_PATIENCE, id=f"{id}-2")
    wait_until(lambda: "pi1: 42" in run.stdout, what=lambda: run.account())
    run.interrupt()
    assert run.wait(START_PATIENCE) == 0, run.account()
    assert f"the verdict of pi2 is not waited for: hwsync show {id}-2 has it later" in run.stderr
    assert "\n  pi1: ghost 1: passed: well done\n" in run.stderr
    assert sorted(run.stdout.splitlines()) == ["pi1: 42", "pi2: 42"]
    judge(lab, f"{id}-2", "pi2")
    watcher.wait_for_state("pi2", 0, START_PATIENCE, id=f"{id}-2")
    watcher.close()
