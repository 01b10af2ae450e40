"""A class: six boards, of which one is dead, one is busy and one fails; each wish is one command.

The commands of the teacher and of the pupil are those of docs/groups.md, typed in their order.
"""

from __future__ import annotations

import csv
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from hwsync.cli.past import COLUMNS
from hwsync.lab.accounts import OperatorRights
from tests.support.account_lab import OBSERVER, AccountLab, account_lab
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC
from tests.support.processes import CHECKOUT, Process

BOARDS: Final = ("pi1", "pi2", "pi3", "pi4", "pi5", "pi6")
FAILING, BUSY, DEAD = "pi4", "pi5", "pi6"
FINE: Final = ("pi1", "pi2", "pi3")
OPERATORS: Final = {
    "anna": OperatorRights(("pi1", "pi2")),
    "bert": OperatorRights(("pi1", "pi5")),
    "teacher": OperatorRights(None, history=True),
}
MEASURE: Final = """\
import os, pathlib
pathlib.Path("plot.svg").write_text(f"<svg><!-- {os.environ['BOARD']} --></svg>")
print("measured by", os.environ["BOARD"])
print("mean", 21 / int(os.environ["SENSORS"]))
"""
DAY_S: Final = 86_400.0
CHAPTER: Final = "## 3. A lesson, and the evening after it"


@dataclass
class Person:
    """Somebody at a machine that has nothing but the file of his own account."""

    name: str
    home: Path
    start: Callable[..., Process]

    def type(self, line: str) -> Process:
        """It is noon where they live: midnight must not come between two lines."""
        zone = f"LAB{time.gmtime().tm_hour - 12:+d}"
        process = self.start(["bash", "-c", f"exec {line}"], directory=self.home, name="typed",
                             variables={"TZ": zone})  # fmt: skip
        process.wait(60)
        assert "Traceback" not in process.stderr.replace(": Traceback", "")
        assert "this is a bug" not in process.stderr
        return process


@pytest.fixture
def people(start: Callable[..., Process], tmp_path: Path) -> Iterator[dict[str, Person]]:
    """In a lab with all six boards, before the lesson; pi6 has just lost its power."""
    with account_lab("mosquitto", BOARDS, OPERATORS, start=False) as lab:
        lab.folder.set_group("class", ("pi?",))
        lab.add_observer()
        lab.start()
        coordinator = start(
            [*HWSYNC, "coordinator", "--config", str(lab.path / "lab/coordinator.toml"), "--settle",
             "0", "--db", str(tmp_path / "h.db")], name="coordinator",
        )  # fmt: skip
        devices = [begin(lab, board, start, tmp_path) for board in BOARDS]
        coordinator.wait_for_log(r"\bready\b")
        for device in devices:
            device.wait_for_log("connected to")
        made = {name: at_home(lab, name, start, tmp_path) for name in OPERATORS}
        yesterday(made, tmp_path)
        devices[-1].kill()
        observer = lab.come_in(OBSERVER)
        observer.subscribe(["hw/@class/members"])
        observer.until(lambda told: f'"{DEAD}":false' in told.text, "the dead board's will")
        observer.close()
        yield made


def begin(lab: AccountLab, board: str, start: Callable[..., Process], folder: Path) -> Process:
    file = folder / f"{board}.toml"
    file.touch(0o600)
    sensors = 0 if board == FAILING else 1
    file.write_text(
        (lab.path / f"lab/boards/{board}.toml").read_text()
        + "\n[limits]\nfree_disk_mb = 0\n\n[programs.environment]\n"
        + f'BOARD = "{board}"\nSENSORS = "{sensors}"\n'
    )
    return start([*DEVICE, "--config", str(file), "--state-dir", str(folder / board), *AS_ROOT],
                 name=board)  # fmt: skip


def at_home(lab: AccountLab, name: str, start: Callable[..., Process], folder: Path) -> Person:
    home = folder / f"home-{name}"
    file = home / ".config/hwsync/hwsync.toml"
    file.parent.mkdir(parents=True)
    file.touch(0o600)
    file.write_text((lab.path / f"lab/operators/{name}.toml").read_text())
    (home / "measure.py").write_text(MEASURE)
    return Person(name, home, start)


def yesterday(people: dict[str, Person], folder: Path) -> None:
    """What anna and bert did then: it is done now, and what the database says of it moved."""
    for name, line in (
        ("anna", "hwsync run pi1,pi2 --id anna1 -c 'print(\"by anna\")'"),
        ("bert", "hwsync run pi1 --id bert1 -c 'print(\"by bert\")'"),
    ):
        process = people[name].type(line)
        assert process.wait() == 0, process.account()
    with closing(sqlite3.connect(folder / "h.db", timeout=30)) as db, db:
        db.execute("UPDATE commands SET issued = issued - ?", (DAY_S,))


PAGE: Final = (CHECKOUT / "docs/groups.md").read_text(encoding="utf-8")


def test_each_wish_is_one_command(people: dict[str, Person]) -> None:
    text = PAGE.split(f"{CHAPTER}\n")[1].split("\n## ")[0]
    online, run, show, why, reset, pictures, export, mine = re.findall(r"^\$ (.*)$", text, re.M)
    teacher, anna, bert = people["teacher"], people["anna"], people["bert"]
    # An id of two boards is found on both, also where one has run something else since.
    both = anna.type("hwsync show anna1").stdout
    assert "\n--- pi1: ok, exit 0\nby anna\n--- pi2: ok, exit 0\nby anna\n---" in both
    busy = bert.type(f"hwsync send {BUSY} --id long -c 'import time; time.sleep(60)'")
    assert busy.wait() == 0, busy.account()

    # Who is there.
    said = teacher.type(online).stdout.splitlines()
    there = {board: "offline" if board == DEAD else "online" for board in BOARDS}
    assert dict(line.split()[:2] for line in said[1:]) == there

    # One program to all: its output, and who failed and why.
    done = teacher.type(run)
    assert done.wait() == 1, done.account()
    answers = {f"{board}: mean 21.0" for board in FINE}
    answers |= {f"{board}: measured by {board}" for board in (*FINE, FAILING)}
    assert set(done.stdout.splitlines()) == answers, done.account()
    reasons = {
        FAILING: "exit code 1: ZeroDivisionError: division by zero",
        BUSY: "something runs or waits there (--queue waits behind it)",
        DEAD: "it is offline",
    }
    assert done.stderr.splitlines()[-4:] == [
        "@class: 3 ok, 1 failed, 1 refused, 1 missing",
        f"  error      {FAILING}: {reasons[FAILING]}",
        f"  refused    {BUSY}: {reasons[BUSY]}",
        f"  missing    {DEAD}: {reasons[DEAD]}",
    ], done.account()

    # The answers, one below the other, on one page.
    page = teacher.type(show).stdout
    assert page.startswith("measure.py on @class: 3 ok, 1 failed, 1 refused, 1 missing\n")
    below = dict(re.findall(r"^--- (\w+)[^\n]*\n(.*?)(?=^---|\Z)", page, re.M | re.S))
    assert list(below) == [*BOARDS, "program"]
    for board in FINE:
        assert below[board] == f"measured by {board}\nmean 21.0\n"
    assert below[FAILING].startswith(f"measured by {FAILING}\nTraceback")
    assert below[FAILING].endswith("ZeroDivisionError: division by zero\n")
    assert below[BUSY] == below[DEAD] == ""
    assert below["program"] == MEASURE

    # Who failed, and why, as the page says it.
    *causes, more = teacher.type(why).stdout.splitlines()
    assert causes == text.split(f"$ {why}\n")[1].split("\n```")[0].splitlines()
    assert more.startswith(f"more of one: hwsync why {FAILING} ")

    # Stop all.
    assert teacher.type(reset).stdout == f"@class: stopped 1: {BUSY}\n"

    # A picture from each; the board that was busy is free.
    done = teacher.type(pictures)
    assert done.wait() == 1, done.account()
    assert "@class: 4 ok, 1 failed, 1 missing" in done.stderr
    came = {file.parent.name: file.read_text() for file in teacher.home.glob("pictures/*/plot.svg")}
    drawn = {board: f"<svg><!-- {board} --></svg>" for board in BOARDS if board != DEAD}
    assert came == drawn, done.account()

    # A table for a colleague.
    assert teacher.type(export).stderr == ""
    with (teacher.home / "class.csv").open(newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    assert table.fieldnames == list(COLUMNS)
    stopped = [row for row in rows if row["id"] == "long"]  # wherever that was in its program
    assert [(row["board"], row["by"], row["outcome"]) for row in stopped] == [
        (BUSY, "bert", "cancelled")
    ]
    ends = [(row["board"], row["by"], row["outcome"], row["line"])
            for row in rows if row not in stopped]  # fmt: skip
    measured = [(board, "teacher", "ok", f"measured by {board}") for board in FINE]
    assert sorted(ends) == sorted([
        ("pi1", "anna", "ok", "by anna"), ("pi2", "anna", "ok", "by anna"),
        ("pi1", "bert", "ok", "by bert"), *measured, *measured,
        *[(FAILING, "teacher", "error", f"measured by {FAILING}")] * 2,
        (BUSY, "teacher", "ok", f"measured by {BUSY}"),
    ])  # fmt: skip

    # A pupil's own runs of yesterday, and nobody else's.
    evening = [line.split()[2:5] for line in anna.type(mine).stdout.splitlines()]
    assert evening == [["pi1", "anna", "program.py"], ["pi2", "anna", "program.py"]]
