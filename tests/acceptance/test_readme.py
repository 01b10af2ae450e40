"""README's commands, as they stand there. tests/test_docs.py says which test runs which line.

README speaks of port 1883, which may be taken here: mosquitto's clients read another one from
their own configuration files, hwsync from HWSYNC_BROKER.
"""

from __future__ import annotations

import os
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
    """README's middle part: a cycle by hand, then one by ``hwsync run``."""
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
    said = terminal.type("hwsync run --all blink.py --speed 2")
    assert sorted(said.splitlines()) == ["pi1: speed 2", "pi2: speed 2"]
    assert terminal.type("hwsync reset --all") == "@all: stopped 0\n"


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
