"""An analyser of each kind, run on a run: what comes of it, and what cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwsync.analysers import Run
from hwsync.analysers.engine import Engine, Judgement
from hwsync.analysers.folder import Folder


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(at_once=1) as engine:
        yield engine


def judged(engine: Engine, folder: Path, name: str, run: Run) -> Judgement:
    return engine.judge(Folder(folder).scan()[name], run)


def test_a_function_judges(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "check1.py").write_text("def analyse(run):\n    return run.stdout == '42\\n'\n")
    right = judged(engine, tmp_path, "check1", Run(stdout="42\n"))
    wrong = judged(engine, tmp_path, "check1", Run(stdout="43\n"))
    assert (right.analysis, right.fault) == ({"passed": True}, None)
    assert (wrong.analysis, wrong.fault) == ({"passed": False}, None)
    assert right.version == Folder(tmp_path).scan()["check1"].version
