"""An evening with grades: what a class has run is judged, and judged anew; no board is touched."""

from __future__ import annotations

import csv
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from hwsync.lab.accounts import OperatorRights
from tests.acceptance.test_group_rights import boards
from tests.support.account_lab import AccountLab, account_lab
from tests.support.lab import HWSYNC, Said, here
from tests.support.processes import Process
from tests.support.waiting import wait_until

OPERATORS: Final = {
    "anna": OperatorRights(("pi1", "pi2")),
    "bert": OperatorRights(("pi1",)),
    "teacher": OperatorRights(None, history=True, analyse=True),
    "reader": OperatorRights(None, history=True),
    "judge": OperatorRights(None, analyse=True),
}
STRICT: Final = """\
def analyse(run):
    return {"passed": run.stdout == "42\\n", "score": 1 if run.stdout == "42\\n" else 0}
"""
FAIR: Final = """\
from hwsync.analysers import Analysis

def analyse(run):
    right = run.stdout.strip() == "42" and run.files.get("out.txt", b"42") == b"42"
    return Analysis(passed=right, score=1.0 if right else 0.0, message=f"by {run.meta['student']}")
"""
SLOW: Final = "import time\n\ndef analyse(run):\n    time.sleep(0.5)\n    return True\n"
BROKEN: Final = """\
def analyse(run):
    print("\\x1b[2Jgot", run.stdout)
    return 1 / 0
"""
IMPATIENT: Final = """
from hwsync.analyst import entitled
from hwsync.cli import app

entitled.GIVEN_BACK_S = 1.0
app.start()
"""
CHOSEN: Final = ("--meta", "assignment=lab3")


@pytest.fixture
def analysers(tmp_path: Path) -> Path:
    folder = tmp_path / "analysers"
    folder.mkdir()
    (folder / "strict.py").write_text(STRICT)
    (folder / "fair.py").write_text(FAIR)
    (folder / "slow.py").write_text(SLOW)
    (folder / "broken.py").write_text(BROKEN)
    return folder


@dataclass(frozen=True, slots=True)
class Evening:
    """A lab in which runs of lab3 have ended; what somebody types there."""

    lab: AccountLab
    start: Callable[..., Process]
    folder: Path

    def words(self, who: str, *words: str) -> list[str]:
        return [words[0], "--config", str(self.lab.path / f"lab/operators/{who}.toml"), *words[1:]]

    def said(self, who: str, *words: str, code: int = 0) -> Said:
        told = here(*self.words(who, *words))
        assert told.exit_code == code, told
        return told

    def run(self, who: str, board: str, id: str, program: str, student: str) -> None:
        meta = [*CHOSEN, "--meta", f"student={student}", "--get", "out.txt"]
        done = self.start([*HWSYNC, *self.words(who, "run", board, "--id", id, *meta, "-c",
                                                program)])  # fmt: skip
        assert done.wait(60) == 0, done.account()

    def analyst(self, who: str, analysers: Path) -> Process:
        """That account's, which is not waited for as long as a slow machine needs."""
        own = "analysts" if who in self.lab.folder.accounts.analysts else "operators"
        file = self.lab.path / f"lab/{own}/{who}.toml"
        words = ["analyst", "--config", str(file), "--dir", str(analysers)]
        return self.start([sys.executable, "-c", IMPATIENT, *words], name=f"analyst-{who}")

    def steps(self) -> int:
        """Changes of a record, and regrades."""
        with closing(sqlite3.connect(self.folder / "h.db")) as database:
            (count,) = database.execute("select count(*) from transitions").fetchone()
        return int(count)


@contextmanager
def evening(kind: str, start: Callable[..., Process], folder: Path) -> Iterator[Evening]:
    with account_lab(kind, ("pi1", "pi2"), OPERATORS, start=False) as lab:
        lab.folder.add_analyst("check")
        lab.start()
        clean = ["--clean-session"] if kind == "amqtt" else []
        coordinator = start(
            [*HWSYNC, "coordinator", "--config", str(lab.path / "lab/coordinator.toml"), "--settle",
             "0", "--db", str(folder / "h.db"), *clean], name="coordinator",
        )  # fmt: skip
        coordinator.wait_for_log(r"\bready\b")
        boards(lab, start, folder)
        yield Evening(lab, start, folder)


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_who_may_not_judge_is_told_so_and_nothing_is_changed(
    kind: str, analysers: Path, start: Callable[..., Process], tmp_path: Path
) -> None:
    """MQTT 3.1.1, which amqtt speaks, does not say that a right is missing."""
    words = ["regrade", *CHOSEN, "--analyser", "strict", "--dir", str(analysers)]
    with evening(kind, start, tmp_path) as lab:
        analysts = {who: lab.analyst(who, analysers) for who in ("check", "judge", "reader")}
        lab.run("anna", "pi1", "a1", "print(42)", "s07")
        before = lab.steps()
        refused = lab.said("reader", *words, code=1)
        assert "you may not judge what pi1 has run" in refused.stderr
        assert refused.stdout == ""
        assert lab.steps() == before
        assert "1 changed" in lab.said("teacher", *words).stderr
        assert lab.steps() == before + 1
        lab.said("anna", "run", "pi1", "--no-analysis", "-c", "print(1)")
        for who, does in (("anna", "who may judge"), ("teacher", "hwsync analyse pi1 TEXT")):
            said = lab.said(who, "why", "pi1").stdout.splitlines()
            assert (f"  {does}" if kind == "mosquitto" else "  who may judge, such as a teacher, "
                    "types hwsync analyse pi1 TEXT") in "\n".join(said)  # fmt: skip
        for who in ("judge", "reader"):  # he has an operator's account
            assert analysts[who].wait(30) == 1, analysts[who].account()
            assert f"hwsync: {who} may not be an analyst here (" in analysts[who].stderr
            assert "hwsync analyst add NAME" in analysts[who].stderr
        analysts["check"].terminate()
        assert analysts["check"].wait(30) == 0, analysts["check"].account()


def table(said: Said) -> list[list[str]]:
    return [line.split() for line in said.stdout.splitlines()[1:]]


def test_stored_results_are_judged_anew_and_twice_is_once(
    analysers: Path, start: Callable[..., Process], tmp_path: Path
) -> None:
    with evening("mosquitto", start, tmp_path) as lab:
        lab.run("anna", "pi1", "a1", "open('out.txt', 'w').write('42'); print(' 42')", "s07")
        lab.run("bert", "pi1", "b1", "print(41)", "s08")
        lab.run("anna", "pi2", "a2", "print(42)", "s07")
        judged_anew(lab, analysers)
        interrupted(lab, analysers)
        graded(lab)


def judged_anew(lab: Evening, analysers: Path) -> None:
    def regrade(name: str, *words: str, who: str = "teacher", code: int = 0) -> Said:
        where = ["--analyser", name, "--dir", str(analysers)]
        return lab.said(who, "regrade", *(words or CHOSEN), *where, code=code)

    # What cannot be done is said before anything is.
    before = lab.steps()
    for name, who, words, code, why in (
        ("strict", "judge", CHOSEN, 1, "judge may read only what judge has asked for"),
        ("nobody", "teacher", CHOSEN, 2, "has no analyser nobody"),
        ("strict", "teacher", ("--meta", "assignment=lab4"), 1, "nothing was run"),
    ):
        refused = regrade(name, *words, who=who, code=code)
        assert why in refused.stderr, refused.stderr
        assert refused.stdout == ""
    where = ["--analyser", "strict", "--dir", str(analysers)]
    assert "which runs?" in lab.said("teacher", "regrade", *where, code=2).stderr
    # Without publishing, and with.
    dry = regrade("strict", "--dry-run", *CHOSEN)
    assert [line[:3] + line[-1:] for line in table(dry)] == [
        ["pi1", "a1", "anna", "changed"], ["pi1", "b1", "bert", "changed"],
        ["pi2", "a2", "anna", "changed"],
    ]  # fmt: skip
    assert "nothing was published (--dry-run)" in dry.stderr
    assert lab.steps() == before
    strict = regrade("strict")
    assert strict.stdout == dry.stdout
    assert [line[4:7] for line in table(strict)] == [
        ["failed", "0", "(strict)"], ["failed", "0", "(strict)"], ["passed", "1", "(strict)"]
    ]  # fmt: skip
    assert lab.steps() == before + 3
    # Old and new beside each other; a file that came back is judged, too.
    fair = regrade("fair", "--json", *CHOSEN)
    rows = [json.loads(line) for line in fair.stdout.splitlines()]
    assert [(row["id"], row["old"]["passed"], row["new"]["passed"], row["changed"],
             row["published"], row["new"]["message"]) for row in rows] == [
        ("a1", False, True, True, True, "by s07"), ("b1", False, False, False, True, "by s08"),
        ("a2", True, True, False, True, "by s07"),
    ]  # fmt: skip
    # Twice is once; what fails itself says nothing.
    again = regrade("fair")
    assert again.stdout == ""
    assert "3 passed over: had it already" in again.stderr
    broken = regrade("broken", code=1)
    assert "printed of pi1 b1:\n  | \\x1b[2Jgot 41\n" in broken.stderr
    assert "3 not judged: the analyser failed, and nothing was said of them" in broken.stderr
    assert broken.stdout.count("ZeroDivisionError") == 3
    assert lab.steps() == before + 6


def interrupted(lab: Evening, analysers: Path) -> None:
    """Ctrl-C, and on."""
    before = lab.steps()
    words = ["regrade", *CHOSEN, "--analyser", "slow", "--dir", str(analysers)]
    running = lab.start([*HWSYNC, *lab.words("teacher", *words)])
    wait_until(lambda: lab.steps() > before, what=lambda: running.account())
    running.interrupt()
    assert running.wait(30) == 130, running.account()
    assert "are left; the same command goes on with them" in running.stderr
    assert "passed over: had it already" in lab.said("teacher", *words).stderr
    assert lab.steps() == before + 3


def graded(lab: Evening) -> None:
    """Of everybody for the teacher, his own for a pupil."""
    told = lab.said("teacher", "grades", *CHOSEN, "--by", "student", "--analyser", "fair", "--csv")
    grades = list(csv.DictReader(told.stdout.splitlines()))
    assert [(row["who"], row["known_by"], row["verdict"], row["score"], row["attempts"], row["id"],
             row["asked_by"]) for row in grades] == [
        ("s07", "claim", "passed", "1.0", "2", "a1", "anna"),
        ("s08", "claim", "failed", "0.0", "1", "b1", "bert"),
    ]  # fmt: skip
    assert "* a claim: the request says so, and nobody has checked it" in told.stderr
    own = lab.said("bert", "grades", "pi1", *CHOSEN, "--analyser", "strict")
    assert [line[:3] for line in table(own)] == [["bert", "failed", "0"]]
    assert "these are the runs that bert asked for" in own.stderr
