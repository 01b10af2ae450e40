"""The simulation: a hundred thousand steps, no promise broken; the same seed, the same world.

``HWSYNC_SEED``: another first seed than the one that every run of the tests takes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwsync.testing import conductors
from hwsync.testing.faults import FAULTS
from hwsync.testing.mutants import MUTANTS
from hwsync.testing.switched_off import changed
from hwsync.testing.world import World
from tests.support.processes import CHECKOUT
from tests.support.waiting import START_PATIENCE, wait_until

SEED = os.environ.get("HWSYNC_SEED", "1")
SIMULATE = [sys.executable, str(CHECKOUT / "scripts" / "simulate_worlds.py")]


def simulate(*options: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SIMULATE, *options],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def figures(*options: str, hash_seed: str = "0") -> dict[str, Any]:
    done = simulate("--json", *options, hash_seed=hash_seed)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_steps_break_no_promise() -> None:
    said = figures("--steps", "100000", "--seed", SEED)
    print(said)
    assert said["steps"] >= 100_000
    assert said["broken"] == []
    # A world in which nothing happens would break no promise either.
    assert said["ran"]["yes"] > 200
    assert said["ran"]["maybe"] > 20
    kinds = said["faults"].keys()
    assert {"kill", "partition", "loss", "copy", "dup", "database restored"} <= kinds
    points = {kind for kind in kinds if kind.startswith(("kill: before ", "kill: after "))}
    of_analysts = {kind for kind in points if "an analyst" in kind}
    assert len(points - of_analysts) == 16, points
    assert len(of_analysts) >= 3, points  # which are in some of the worlds
    assert said["judged"] > 5


def test_as_it_is_typed(environment_of: Callable[..., dict[str, str]]) -> None:
    """In docs/reliability.md."""
    done = subprocess.run(
        ["scripts/simulate", "--steps", "20000", "--seed", "1"],
        cwd=CHECKOUT,
        env=environment_of(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "violations: 0" in done.stdout


def test_a_seed_is_one_world_in_every_process() -> None:
    runs = [
        figures("--seeds", "2", "--seed", "11", "--jobs", "1", hash_seed=hash_seed)
        for hash_seed in ("1", "2")
    ]
    for said in runs:
        del said["seconds"]
    assert runs[0] == runs[1]


def test_without_faults_everything_is_known() -> None:
    said = figures("--seeds", "4", "--seed", "1", "--faults", "none", "--each", "2000")
    assert said["faults"].keys() <= {"not sent again", "queued with the retain flag"}
    assert "maybe" not in said["ran"]
    assert said["ran"]["yes"] > 50


@pytest.mark.parametrize("kind", FAULTS)
def test_each_kind_of_fault_alone_breaks_no_promise(kind: str, tmp_path: Path) -> None:
    report = World(3, tmp_path, steps=700, faults=[kind]).run()
    assert report.violations == []
    assert report.commands


def test_what_was_named_for_tomorrow_is_taken_back_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after lab time was set back: hwsync waits for it rightly, and somebody must not."""
    monkeypatch.setattr(conductors, "AHEAD", (80_000.0,))
    for seed in (1, 3):  # in the first, operators also take back what they asked for
        path = tmp_path / str(seed)
        path.mkdir()
        report = World(seed, path, steps=300, faults=["none"], instants=True).run()
        assert report.violations == []
        assert report.seconds < 3_600.0


def test_analysts_judge_and_what_they_say_is_looked_at(tmp_path: Path) -> None:
    report = World(1, tmp_path, steps=1_500, faults=["none"], analysts=True).run()
    assert report.violations == []
    assert report.judged
    (mutant,) = (one for one in MUTANTS if one.name == "an analysis says whose it is")
    with changed(mutant.edits):
        (tmp_path / "again").mkdir()
        found = World(1, tmp_path / "again", steps=1_500, faults=["none"], analysts=True).run()
    assert {one.promise for one in found.violations} == {"analysis"}


def test_a_broken_promise_is_said_with_its_seed_and_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT / "scripts"))
    import simulate_worlds

    (mutant,) = (one for one in MUTANTS if one.name.startswith("said after the commit"))
    with changed(mutant.edits):
        code = simulate_worlds.main(["--seeds", "1", "--seed", "7", "--jobs", "1"])
    said = capsys.readouterr().out
    assert code == 1
    assert "VIOLATION saved: " in said
    assert "again: scripts/simulate --seeds 1 --seed 7\n" in said
    assert "coordinator" in said


def test_a_mutant_is_caught_and_one_that_survives_is_named() -> None:
    caught = simulate("--mutant", "another status ends the wait", "--seeds", "10")
    assert caught.returncode == 0, caught.stdout
    assert "survived: 0" in caught.stdout
    survived = simulate("--mutant", "an orphan's no", "--seeds", "1")
    assert survived.returncode == 1
    assert "SURVIVED" in survived.stdout


def test_ctrl_c_ends_it_with_what_was_seen_so_far() -> None:
    process = subprocess.Popen(
        [*SIMULATE, "--steps", "100000000", "--seed", "1"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stderr is not None
        process.stderr.readline()  # the first line of progress
        os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "ended early" in errors
    assert "Traceback" not in errors
    assert "violations: 0" in said


def is_alive(pid: str) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_nothing_is_left_of_a_simulation_that_is_killed() -> None:
    process = subprocess.Popen(
        [*SIMULATE, "--steps", "100000000", "--seed", "1", "--jobs", "2"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with process:
        wait_until(lambda: len(children.read_text().split()) == 2, START_PATIENCE, "its workers")
        workers = children.read_text().split()
        process.kill()
    wait_until(lambda: not any(map(is_alive, workers)), what="its workers end")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--faults", "rain"], "unknown faults rain; there are kill, "),
        (["--steps", "0"], "0 is below 1"),
        (["--steps", "many"], "'many' is no number"),
        (["--broker", "x"], "invalid choice: 'x'"),
    ],
)
def test_bad_options_are_named(options: list[str], said: str) -> None:
    done = simulate(*options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
