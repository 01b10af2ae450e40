"""A motor that runs is off afterwards, whatever ends its program: gpiozero with its mock pins.

The pins say in the program's own output what becomes of them, so that it is seen beyond its end. A
pin that was let go is an input, as after gpiozero's own end.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.programs import require_program

MOTOR = """
import time
from gpiozero import Device, Motor
from gpiozero.pins.mock import MockFactory, MockPWMPin

class Pin(MockPWMPin):
    def _set_state(self, value):
        super()._set_state(value)
        print("pin", self.info.name, "drives", float(value))
    def _set_function(self, value):
        super()._set_function(value)
        print("pin", self.info.name, "is an", value)

Device.pin_factory = MockFactory(pin_class=Pin)
motor = Motor(17, 18)
motor.forward()
print("turning", motor.value)
time.sleep(600)
"""
WAYS = {
    "warm": "[programs]\npreload = ['gpiozero']\n",
    "cold": "[programs]\nrunner = 'cold'\n",
    "bwrap": "[isolation]\nkind = 'bwrap'\n",
}
LEAVE_S = 12.0  # seconds for a stop: stop_s, the program's end, and more


@pytest.fixture(params=WAYS)
def lab(
    request: pytest.FixtureRequest,
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
) -> tuple[Lab, Process, Watcher]:
    """A lab, its device, and who watches; a motor turns already."""
    if request.param == "bwrap":
        require_program("bwrap", "bubblewrap")
    configuration = f"stop_s = 0.5\n[limits]\nfree_disk_mb = 0\n{WAYS[request.param]}"
    (tmp_path / "device.toml").write_text(configuration)
    one = Lab(mosquitto, start, tmp_path)
    watcher = watch(mosquitto)
    one.coordinator("--settle", "1")
    return one, one.device(), watcher


def turn(lab: Lab, watcher: Watcher, **keys: object) -> None:
    """Have a motor turn; returns when it does."""
    request = {"program": MOTOR, "id": "motor", "timeout": 60, "name": "motor.py", **keys}
    lab.pub("request", json.dumps(request))
    watcher.wait_for(lambda message: "turning" in message.text, topic="hw/pi1/output")


def pins(end: dict[str, Any]) -> dict[str, str]:
    """What was said last of each pin."""
    said = [line.split(" ", 2) for line in end["hw_response"].splitlines() if line[:3] == "pin"]
    return {name: what for _, name, what in said}


def assert_it_turned_and_is_off(end: dict[str, Any]) -> None:
    assert "turning 1" in end["hw_response"]
    assert " drives 1.0\n" in end["hw_response"]
    last = pins(end)
    assert len(last) == 2, end["hw_response"]
    assert set(last.values()) == {"is an input"}, end["hw_response"]


def test_at_its_time_limit(lab: tuple[Lab, Process, Watcher]) -> None:
    one, _, watcher = lab
    turn(one, watcher, timeout=3)
    end = watcher.wait_for_state("pi1", 3, id="motor")
    assert (end["outcome"], end["reason"]) == ("timeout", "time limit of 3 s")
    assert_it_turned_and_is_off(end)


def test_at_a_cancel(lab: tuple[Lab, Process, Watcher]) -> None:
    one, _, watcher = lab
    turn(one, watcher)
    one.pub("cancel", json.dumps({"id": "motor"}))
    end = watcher.wait_for_state("pi1", 3, id="motor")
    assert (end["outcome"], end["ran"]) == ("cancelled", "yes")
    assert_it_turned_and_is_off(end)


def test_at_the_daemons_stop(lab: tuple[Lab, Process, Watcher]) -> None:
    one, device, watcher = lab
    turn(one, watcher)
    device.send_signal(signal.SIGTERM)
    assert device.wait(LEAVE_S) == 0
    end = watcher.wait_for_state("pi1", 3, id="motor")
    assert (end["outcome"], end["reason"]) == ("interrupted", "the device was stopped")
    assert_it_turned_and_is_off(end)
