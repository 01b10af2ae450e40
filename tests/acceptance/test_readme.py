"""The commands of README, by-hand.md and tutorial.md, as they stand there.

tests/test_docs.py says which test runs which line of the first two. They speak of port 1883, which
may be taken here: mosquitto's clients read another one from their own configuration files, hwsync
from HWSYNC_BROKER.
"""

from __future__ import annotations

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


def test_the_tutorial(start: Callable[..., Process], tmp_path: Path) -> None:
    """Line by line, but for the installation; the files are those that it has one save."""
    page = (CHECKOUT / "docs/tutorial.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"Save this as `(.*?)`.*?```python\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(text)
    said: dict[str, Process] = {}
    terminal = Terminal(start, tmp_path, free_port())
    begin = next(n for n, line in enumerate(page.splitlines()) if line.startswith("$ hwsync up"))
    for line in page.splitlines()[begin:]:
        command = line.removeprefix("$ ")
        if command == line or command.startswith(". "):
            continue
        if command.startswith("hwsync up"):
            terminal.begin(command + AS_ROOT, "up").wait_for_log(r"\bready; try:", 30)
            for board in ("pi1", "pi2"):
                terminal.type(f"hwsync run --wait-for-board {board} -c pass")
            continue
        said[command] = terminal.begin(command, "typed")
        said[command].wait(60)
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
