"""What was run, asked for by accounts: a pupil sees his own runs, a teacher everybody's."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.lab.accounts import OperatorRights
from tests.acceptance.test_group_rights import boards
from tests.support.account_lab import account_lab
from tests.support.lab import HWSYNC
from tests.support.processes import Process

OPERATORS = {
    "anna": OperatorRights(("pi1", "pi2")),
    "bert": OperatorRights(("pi1",)),
    "teacher": OperatorRights(None, history=True),
}


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_pupil_sees_his_own_runs_and_a_teacher_all(
    kind: str, start: Callable[..., Process], tmp_path: Path
) -> None:
    with account_lab(kind, ("pi1", "pi2"), OPERATORS) as lab:

        def typed(who: str, *words: str) -> Process:
            config = ["--config", str(lab.path / f"lab/operators/{who}.toml")]
            return start([*HWSYNC, words[0], *config, *words[1:]])

        def said(who: str, *words: str, code: int = 0) -> str:
            done = typed(who, *words)
            assert done.wait(60) == code, done.account()
            return done.stdout

        def ids(who: str, *words: str) -> list[str]:
            rows = said(who, "history", *words, "--json").splitlines()
            return [json.loads(row)["id"] for row in rows]

        clean = ["--clean-session"] if kind == "amqtt" else []
        coordinator = start(
            [*HWSYNC, "coordinator", "--config", str(lab.path / "lab/coordinator.toml"), "--settle",
             "0", "--db", str(tmp_path / "h.db"), *clean], name="coordinator",
        )  # fmt: skip
        coordinator.wait_for_log(r"\bready\b")
        boards(lab, start, tmp_path)
        blink = tmp_path / "blink.py"
        blink.write_text("print(6 * 7)\nprint('more')\n")
        say = "import sys; print('=1+1'); sys.exit(3)"
        said("anna", "run", "pi1", "--id", "a1", "--meta", "course=1b", str(blink))
        said("bert", "run", "pi1", "--id", "b1", "-c", say, code=3)
        said("anna", "run", "pi2", "--id", "a2", "-c", "print('two')")
        # Whose they are, on which boards, and what of them.
        assert ids("anna") == ["a1", "a2"]
        assert ids("bert", "pi1") == ["b1"]
        assert ids("teacher") == ["a1", "b1", "a2"]
        if kind == "amqtt":  # MQTT 3.1.1: whose they are, and who may not, is known there too
            return
        chosen = ["--by", "anna", "--outcome", "ok,open", "--since", "1h", "--meta", "course=1b"]
        assert ids("teacher", *chosen, "--name", "blink.*") == ["a1"]
        lines = [line.split() for line in said("anna", "history", "pi1").splitlines()]
        assert [(one[1:5], one[-2:]) for one in lines] == [
            (["pi1", "anna", "blink.py", "ok"], ["a1", "42"])
        ]
        # One of them.
        page = said("anna", "show", "a1").splitlines()
        assert page[0].startswith("blink.py on pi1: ok, after ")
        assert any(line.split() == ["meta", '{"course":"1b","by":"anna"}'] for line in page)
        assert page[page.index("--- output") + 1 :] == [
            "42", "more", "--- program", *blink.read_text().splitlines(),
        ]  # fmt: skip
        assert said("bert", "logs", "b1") == "=1+1\n"
        assert said("bert", "wait", "b1", code=3).startswith(
            "program.py on pi1: error, exit code 3"
        )
        # For a spreadsheet.
        rows = list(csv.DictReader(said("teacher", "export", "pi1").splitlines()))
        assert [(row["id"], row["by"], row["known_by"], row["exit_code"], row["line"])
                for row in rows] == [("a1", "anna", "reply topic", "0", "42"),
                                     ("b1", "bert", "reply topic", "3", "'=1+1")]  # fmt: skip
        # A board that he may not use is none of his business.
        refused = typed("bert", "history", "pi2")
        assert refused.wait(60) == 1, refused.account()
        assert "the broker does not let us publish for pi2" in refused.stderr
