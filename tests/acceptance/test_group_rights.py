"""A lab with accounts: who was given a group sends programs to it, and nobody grades himself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.lab.accounts import OperatorRights
from tests.support.account_lab import AccountLab, account_lab
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC
from tests.support.processes import Process


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_who_was_given_a_group_needs_no_right_to_its_boards(
    kind: str, start: Callable[..., Process], tmp_path: Path
) -> None:
    operators = {"alice": OperatorRights(("pi1",)), "teacher": OperatorRights(None, analyse=True)}
    with account_lab(kind, ("pi1", "pi2"), operators) as lab:
        lab.folder.set_group("lab1", ("pi?",))
        lab.folder.add_operator("greta", OperatorRights((), groups=("lab1",)))
        lab.folder.reload()

        def typed(who: str, *words: str) -> Process:
            return start([*HWSYNC, *words, "--config", str(lab.path / f"lab/operators/{who}.toml")])

        clean = ["--clean-session"] if kind == "amqtt" else []
        coordinator = start(
            [*HWSYNC, "coordinator", "--config", str(lab.path / "lab/coordinator.toml"), "--settle",
             "0", "--db", str(tmp_path / "h.db"), *clean], name="coordinator",
        )  # fmt: skip
        coordinator.wait_for_log(r"groups: lab1 \(1\)")
        coordinator.wait_for_log(r"\bready\b")
        boards(lab, start, tmp_path)
        for who in ("greta", "teacher"):
            done = typed(who, "run", "@lab1", "-c", "print(6*7)")
            assert done.wait(60) == 0, done.account()
            assert sorted(done.stdout.splitlines()) == ["pi1: 42", "pi2: 42"]
        if kind == "mosquitto":  # who may not ask its boards sees what the broker keeps of them
            shown = typed("greta", "show", "@lab1", "--output")
            assert shown.wait(60) == 0, shown.account()
            assert shown.stdout == "pi1: 42\npi2: 42\n"
        told = start([*HWSYNC, "group", "set", "lab1", "pi1,pi2"],
                     variables={"HWSYNC_LAB": str(lab.folder.path)})  # fmt: skip
        assert told.wait(30) == 0, told.account()
        assert told.stdout.splitlines() == [
            "@lab1: pi1, pi2", "the broker has been told", "the coordinator has been told",
        ]  # fmt: skip
        coordinator.wait_for_log(r"groups: lab1 \(2\)")
        stopped = typed("greta", "reset", "@lab1")
        assert stopped.wait(30) == 0, stopped.account()
        # Boards that are named need a right to each of them.
        both = typed("teacher", "run", "pi1,pi2", "-c", "print(1)")
        assert both.wait(60) == 0, both.account()
        refused = typed("greta", "run", "pi2", "-c", "print(1)")
        other = typed("alice", "run", "@lab1", "-c", "print(1)")
        assert refused.wait(60) == other.wait(60) == 125
        assert refused.stdout == other.stdout == ""
        nobody_grades_himself(typed)


def nobody_grades_himself(typed: Callable[..., Process]) -> None:
    """He is told who may, and the result waits for somebody who does; also with MQTT 3.1.1."""
    run = typed("alice", "run", "pi1", "-c", "print(1)", "--id", "own", "--analysis", "passed")
    assert run.wait(20) == 0, run.account()
    assert "the analysis was refused: you may not judge what pi1 has run" in run.stderr
    assert "--analyse" in run.stderr
    assert "pi1 waits for an analysis of own; without one: hwsync reset pi1" in run.stderr
    judged = typed("alice", "analyse", "pi1", "passed")
    assert judged.wait(20) == 1, judged.account()
    assert "may not judge what pi1 has run" in judged.stderr, judged.account()
    well = typed("teacher", "analyse", "pi1", "well done", "--json")
    assert well.wait(20) == 0, well.account()
    assert json.loads(well.stdout)["server_analysis"] == "well done"


def boards(lab: AccountLab, start: Callable[..., Process], folder: Path) -> None:
    for board in ("pi1", "pi2"):
        file = folder / f"{board}.toml"
        text = (lab.path / f"lab/boards/{board}.toml").read_text()
        file.touch(0o600)
        file.write_text(text + "\n[limits]\nfree_disk_mb = 0\n")
        device = start([*DEVICE, "--config", str(file), "--state-dir", str(folder / board),
                        *AS_ROOT], name=board)  # fmt: skip
        device.wait_for_log("connected to")
