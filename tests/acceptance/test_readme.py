"""The commands of README, by-hand.md, and the pages to type along, as they stand there.

tests/test_docs.py says which test runs which line of the first two. They speak of port 1883, which
may be taken here: mosquitto's clients read another one from their own configuration files, hwsync
from HWSYNC_BROKER.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import Broker, MosquittoBroker
from tests.support.ports import free_port
from tests.support.processes import CHECKOUT, Process
from tests.support.waiting import wait_until

AS_ROOT = " --allow-root" if os.geteuid() == 0 else ""


BLINK = """import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--speed", type=int)
print("speed", parser.parse_args().speed)
"""


class Terminal:
    """Runs README's lines in a shell, with another port, in a folder that has a ``blink.py``."""

    def __init__(self, start: Callable[..., Process], folder: Path, port: int) -> None:
        self._start, self._folder = start, folder
        (folder / "blink.py").write_text(BLINK)
        config = folder / ".config"
        config.mkdir(exist_ok=True)
        for client in ("mosquitto_pub", "mosquitto_sub"):
            (config / client).write_text(f"-p {port}\n")
        self.variables = {
            "HWSYNC_BROKER": f"mqtt://127.0.0.1:{port}",
            "XDG_CONFIG_HOME": str(config),
        }

    def begin(self, line: str, name: str) -> Process:
        return self._start(["bash", "-c", f"exec {line}"], name=name, variables=self.variables)

    def type(self, line: str, name: str = "typed") -> str:
        process = self.begin(line, name)
        assert process.wait(30) == 0, process.account()
        return process.stdout


def by_hand(terminal: Terminal, watching: Process) -> None:
    """A cycle by hand, then one by ``hwsync run``."""
    wait_until(lambda: "hw/pi1/heartbeat" in watching.stdout, what="the device's heartbeat")
    terminal.type("mosquitto_pub -q 1 -t hw/pi1/command -m 'print(6*7)'")
    wait_until(lambda: '"state":3' in watching.stdout, what="state 3")
    assert "42" in terminal.type("hwsync status pi1")
    terminal.type("mosquitto_pub -q 1 -t hw/pi1/analysis -m right")
    wait_until(lambda: '"server_analysis":"right"' in watching.stdout, what="the analysis")
    assert terminal.type("hwsync run pi1 -c 'print(6*7)'") == "42\n"
    blinking = terminal.type("hwsync run pi1 --timeout 60 blink.py --speed 2")
    assert blinking == "speed 2\n"
    history = terminal.type("hwsync history pi1")
    assert [line.split()[-1] for line in history.splitlines()] == ["42", "42", "2"]
    assert history.splitlines()[2].split()[2:4] == ["blink.py", "ok"] or "blink.py" in history


def test_each_part_by_itself(
    mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path
) -> None:
    terminal = Terminal(start, tmp_path, mosquitto.port)
    watching = terminal.begin("mosquitto_sub -v -t 'hw/pi1/#'", "watching")
    terminal.begin("hwsync coordinator", "coordinator").wait_for_log(r"\bready\b")
    terminal.begin("hwsync-device --user pi1" + AS_ROOT, "device")
    by_hand(terminal, watching)
    assert "at rest" in terminal.type("hwsync why pi1")
    assert "error" not in terminal.type("hwsync doctor pi1")


def test_up_uses_the_broker_that_is_there(
    broker: Broker, start: Callable[..., Process], tmp_path: Path
) -> None:
    terminal = Terminal(start, tmp_path, broker.port)
    watching = terminal.begin("mosquitto_sub -v -t 'hw/pi1/#'", "watching")
    up = terminal.begin("hwsync up --user pi1 --user pi2" + AS_ROOT, "up")
    up.wait_for_log(r"\bready; try:", 30)
    by_hand(terminal, watching)
    up.interrupt()
    assert up.wait() in (0, 130)
    assert "Traceback" not in up.stderr + up.stdout


def test_up_starts_a_broker_where_there_is_none(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    terminal = Terminal(start, tmp_path, free_port())
    up = terminal.begin("hwsync up --user pi1 --user pi2" + AS_ROOT, "up")
    up.wait_for_log(r"\bready; try:", 30)
    said = terminal.type("hwsync run pi1,pi2 -c 'print(6*7)'")
    assert sorted(said.splitlines()) == ["pi1: 42", "pi2: 42"]
    up.interrupt()
    assert up.wait() in (0, 130)
    gone = terminal.begin("mosquitto_pub -q 1 -t x -m x", "gone")
    assert gone.wait() != 0, "the broker lives on"


def test_several_boards(
    mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path
) -> None:
    terminal = Terminal(start, tmp_path, mosquitto.port)
    terminal.begin("hwsync coordinator", "coordinator").wait_for_log(r"\bready\b")
    watching = terminal.begin("mosquitto_sub -v -t 'hw/+/heartbeat'", "watching")
    for board in ("pi1", "pi2"):
        folder = tmp_path / board
        terminal.begin(f"hwsync-device --user {board} --state-dir {folder}{AS_ROOT}", board)
        wait_until(lambda board=board: f"hw/{board}/heartbeat" in watching.stdout)  # type: ignore[misc]
    said = terminal.type("hwsync run pi1,pi2 blink.py --speed 2")
    assert sorted(said.splitlines()) == ["pi1: speed 2", "pi2: speed 2"]
    (tmp_path / "measure.py").write_text("open('result.txt', 'w').write('7')\n")
    terminal.type("hwsync run --all --get result.txt --out results measure.py")
    assert [(tmp_path / f"results/{pi}/result.txt").read_text() for pi in ("pi1", "pi2")] == [
        "7"
    ] * 2
    assert terminal.type("hwsync reset --all") == "@all: stopped 0\n"


class Page:
    """A page of docs whose lines are typed, from its ``hwsync up`` on; that is typed first."""

    def __init__(self, name: str, start: Callable[..., Process], folder: Path) -> None:
        self.text = (CHECKOUT / f"docs/{name}").read_text(encoding="utf-8")
        self.folder, self.terminal = folder, Terminal(start, folder, free_port())
        self.lines = re.findall(r"^\$ (.*)$", self.text, re.MULTILINE)
        for name, text in re.findall(
            r"(?:Save this as|save this in it as|A pupil's program,) `(.*?)`.*?```python\n(.*?)```",
            self.text, re.DOTALL,
        ):  # fmt: skip
            where = folder / "analysers" if "def analyse" in text else folder
            where.mkdir(exist_ok=True)
            (where / name).write_text(text)

    def begin(self, up: str) -> None:
        """Whoever types the next line has seen both boards."""
        self.terminal.begin(up + AS_ROOT, "up").wait_for_log(r"\bready; try:", 30)
        for board in ("pi1", "pi2"):
            self.terminal.type(f"hwsync run --wait-for-board {board} -c pass")

    def type(self, line: str) -> Process:
        """A line, which may write into a file."""
        process = self.terminal.begin(line, "typed")
        process.wait(60)
        return process


def test_the_tutorial(start: Callable[..., Process], tmp_path: Path) -> None:
    """Line by line, but for the installation; the files are those that it has one save."""
    page = Page("tutorial.md", start, tmp_path)
    begin = next(n for n, line in enumerate(page.lines) if line.startswith("hwsync up"))
    page.begin(page.lines[begin])
    said = {line: page.type(line) for line in page.lines[begin + 1 :] if not line.startswith(". ")}
    ends = {command: process.wait() for command, process in said.items()}
    failing = {command: code for command, code in ends.items() if code}
    assert failing == {
        "hwsync run pi1 -c 'print(1/0)'": 1,
        "hwsync run pi1 --timeout 1 -c 'while True: pass'": 124,
    }, [said[command].account() for command in failing]
    out = {command: process.stdout for command, process in said.items()}
    assert out["hwsync run pi1 -c 'print(6*7)'"] == "42\n"
    assert "wave.svg, " in said["hwsync run pi1 wave.py"].stderr
    for picture in ("wave.svg", "pictures/pi1/wave.svg", "pictures/pi2/wave.svg"):
        assert (tmp_path / picture).read_text().endswith("</svg>")
    assert "ZeroDivisionError" in said["hwsync run pi1 -c 'print(1/0)'"].stderr
    assert "exit code 1" in " ".join(out["hwsync why pi1"].split())
    assert out["python both.py"].split() == ["pi1", "42", "pi2", "42"]


def test_a_first_assignment(start: Callable[..., Process], tmp_path: Path) -> None:
    """docs/teaching.md: the teacher and two pupils, and the analyser that is changed."""
    page = Page("teaching.md", start, tmp_path)
    up, *lines = page.lines
    page.begin(up)
    said = list[tuple[str, Process]]()
    for line in lines:
        if line.startswith("hwsync regrade") and not any("regrade" in one for one, _ in said):
            lab3 = tmp_path / "analysers/lab3.py"
            lab3.write_text(lab3.read_text().replace("> 0.1", "> 0.5"))
        said.append((line, page.type(line)))
        assert said[-1][1].wait() == 0, said[-1][1].account()
    verdicts = [one.stderr.partition(": ")[2] for line, one in said if "mean" in line]
    assert [text.partition(": ")[2].rstrip() for text in verdicts] == [
        "passed, score 1: well done",
        "not passed, score 0.5: mean=12 is too far from 21",
        "not passed, score 0.5: mean=21.2 is too far from 21",
    ]
    judged = (
        verdicts[0].split(":")[0],
        next(one.stderr for line, one in said if "--dry-run" in line),
    )
    versions = [re.findall(r"\blab3 ([0-9a-f]{12})\b", text)[0] for text in judged]
    assert versions == list(dict.fromkeys(re.findall(r"\b[0-9a-f]{12}\b", page.text)))
    table, _, dry, _, after = (one.stdout for line, one in said if "assignment=lab3 --" in line
                               and " run " not in line)  # fmt: skip
    columns = [line.split() for line in table.splitlines()[1:]]
    assert [(line[0], "passed" in line) for line in columns] == [("s07", True), ("s12", False)]
    assert [line.endswith("changed") for line in dry.splitlines()[1:4]] == [False, False, True]
    assert ["passed" in line.split() for line in after.splitlines()[1:]] == [True, True]
    assert "s12" in (tmp_path / "lab3.csv").read_text()
    assert "nice" in page.type("hwsync status pi1").stdout


def test_an_experiment(start: Callable[..., Process], tmp_path: Path) -> None:
    """docs/experiments.md, with the id of a run in the place of the page's."""
    page = Page("experiments.md", start, tmp_path)
    page.begin("hwsync up --user pi1 --user pi2")
    (loop,) = [one for one in re.findall(r"```python\n(.*?)```", page.text, re.DOTALL)
               if "hwsync.connect" in one]  # fmt: skip
    (tmp_path / "loop.py").write_text(loop)
    assert page.type("python loop.py").stdout.split() == ["pi1", "ok", "pi2", "ok"] * 2
    said = dict[str, Process]()
    for line in page.lines:
        newest = page.type("hwsync history pi1 --meta exp=heat --last 1 --json").stdout
        id = json.loads(newest)["id"]
        said[line] = page.type(line.replace("cli-4c1b2f8a90d3e7f1", id))
        assert said[line].wait() == 0, said[line].account()
    numbers = (tmp_path / "numbers.csv").read_text()
    assert numbers.count(",temp,") == 4 * 5 + 2 * 5 + 2 * 20
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + 4 + 2 + 2
    assert "==" in (tmp_path / "packages.txt").read_text()
    assert said["hwsync verify run.json"].stdout


@pytest.mark.slow
def test_the_demo_shows_the_whole_cycle(environment_of: Callable[..., dict[str, str]]) -> None:
    done = subprocess.run(
        [CHECKOUT / "scripts" / "demo"],
        env=environment_of(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    states = ["0 rest", "1 requested", "2 collected", "3 returned", "0 rest"]
    shown = [line.split(" s  ")[1] for line in done.stdout.splitlines() if " s  " in line]
    assert shown == states
    assert "42 by Python" in done.stdout
