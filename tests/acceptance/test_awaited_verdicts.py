"""A verdict that takes long: an analyst that is there and says nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hwsync.protocol.wire.analyst import Offer, encode_offer
from tests.support.fake_boards import FakeBoards
from tests.support.lab import Lab, standing
from tests.support.mqtt import Watcher, publish
from tests.support.waiting import START_PATIENCE

GHOST = ("--analyser", "ghost", "-c")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with standing(tmp_path_factory.mktemp("lab"), 'lab1 = ["pi*"]\n') as lab:
        boards = FakeBoards(lab.broker.port, ["pi1", "pi2"])
        boards.start()
        offer = encode_offer(Offer(True, {"ghost": "1"}, 0.0))
        publish(lab.broker, "hw/@hwsync/analysts/ghost", offer, retain=True)
        yield lab
        boards.stop()


def test_ctrl_c_leaves_the_verdict_and_the_program_has_ended_as_it_did(lab: Lab) -> None:
    watcher = Watcher(lab.broker, "hw/pi1/status")
    run = lab.cli("run", "pi1", "--id", "c1", "--wait-for-board", *GHOST, "fail boom")
    watcher.wait_for_state("pi1", 3, START_PATIENCE, id="c1")
    run.interrupt()
    assert run.wait(START_PATIENCE) == 1, run.account()
    assert "the verdict is not waited for: hwsync show c1 has it later" in run.stderr
    assert "no analysis" not in run.stderr
    watcher.close()
