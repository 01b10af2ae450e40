"""The units on a real systemd: installed by ``hwsync service``, closed as they are, and at work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.booted import Booted
from tests.support.waiting import wait_until

BROKER, COORDINATOR = "hwsync-broker.service", "hwsync-coordinator.service"
DEVICE = "hwsync-device@pi1.service"
ANALYST = "hwsync-analyst@check.service"
UNITS = (BROKER, COORDINATOR, DEVICE, ANALYST)

PROGRAM = """
import ctypes, mmap, multiprocessing, os, subprocess, tempfile
print(ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1)(1))
mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
multiprocessing.Lock()
tempfile.TemporaryFile().close()
open("file", "w").close()
print(int(open("/proc/meminfo").readline().split()[1]) > 0, os.path.exists("/sys/class/net"))
print(subprocess.run(["true"]).returncode, os.path.exists("/etc/hwsync"))
"""


ANALYSER = """
import ctypes, os, subprocess, tempfile
def analyse(run):
    tempfile.TemporaryFile().close()
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1)
    there = [os.path.exists("/etc/hwsync/analysers"), os.path.exists("/home/anna")]
    return [run.stdout, call(1), subprocess.run(["true"]).returncode, *there]
"""
JUDGED = """
import json, sys
from hwsync.protocol.wire.request import encode_request
from paho.mqtt.publish import single
single("hw/pi1/request", encode_request("print(6*7)", id="judged", analysis="check1"), qos=1)
"""


@pytest.fixture
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    machine = Booted(tmp_path_factory.mktemp("booted"))
    yield machine
    machine.stop()


def states(machine: Booted) -> dict[str, dict[str, Any]]:
    said = machine.hwsync("service", "status", "--json", check=False)
    return {unit["unit"]: unit for unit in map(json.loads, said.splitlines())}


def shown(machine: Booted, what: str, *units: str) -> list[str]:
    """Quicker than ``hwsync service status``, for what is waited for."""
    return machine.call("systemctl", "show", "--value", "-p", what, *units).split()


def said_by_units(machine: Booted) -> str:
    return machine.call("journalctl", "-b", "-o", "cat", "-u", "hwsync*", "-n", "40")


def all_active(machine: Booted) -> bool:
    return shown(machine, "ActiveState", *UNITS) == ["active"] * len(UNITS)


@pytest.mark.slow
def test_the_closed_units_do_their_work(booted: Booted) -> None:
    booted.write("/home/anna/own", "")
    for words in (
        ["broker", "--no-mosquitto"],
        ["coordinator", "device", "pi1", "analyst", "check"],
    ):
        booted.hwsync("service", "install", *words)
    booted.write("/etc/hwsync/analysers/check1.py", ANALYSER)
    wait_until(lambda: all_active(booted), 20.0, lambda: said_by_units(booted))
    known = states(booted)
    assert known.keys() == set(UNITS)
    assert "listening on" in known[BROKER]["status"]
    assert "connected to" in known[COORDINATOR]["status"]
    assert {unit["at_boot"] for unit in known.values()} == {"enabled"}

    # Before the output a line may say that the device's heartbeat has not come yet.
    assert "2\nTrue True\n0 True\n" in booted.hwsync("run", "pi1", "-c", PROGRAM)
    an_analyst_judges(booted)
    # A new configuration, root's alone, is handed over where the device ends by itself.
    booted.write("/etc/hwsync/device.toml", '[isolation]\nkind = "bwrap"\n', mode="0600")
    booted.call("systemctl", "reload", DEVICE)
    booted.call("systemctl", "reload", COORDINATOR)
    for unit in (DEVICE, COORDINATOR):
        wait_until(lambda unit=unit: shown(booted, "NRestarts", unit) == ["1"], 20.0)  # type: ignore[misc]
    wait_until(lambda: all_active(booted), 10.0)
    assert "2\nTrue False\n0 False\n" in booted.hwsync("run", "pi1", "-c", PROGRAM)

    # Also where systemd leaves no other /proc in the unit's namespace, as 252 does.
    (main,) = shown(booted, "MainPID", DEVICE)
    mounts = booted.call("cat", f"/proc/{main}/mountinfo").splitlines()
    over = {line.split()[4] for line in mounts} - {"/proc/sys/fs/binfmt_misc"}  # which is empty
    assert not [path for path in over if path.startswith("/proc/")]

    if "mosquitto" in booted.call("ls", "/usr/sbin"):
        # The same file, served by another program: everybody comes back by himself.
        booted.hwsync("service", "install", "broker")
        booted.call("systemctl", "restart", BROKER)
        main = shown(booted, "MainPID", BROKER)[0]
        assert booted.call("cat", f"/proc/{main}/comm") == "mosquitto\n"
        booted.call("systemctl", "reload", BROKER)
        assert booted.hwsync("run", "pi1", "-c", "print(5)").splitlines()[-1] == "5"
        kept = ["ls", "/var/lib/hwsync-broker"]
        wait_until(lambda: booted.call(*kept) == "mosquitto.db\n", 10.0)

    words = ["coordinator", "device", "pi1", "analyst", "check", "broker"]
    booted.hwsync("service", "uninstall", *words)
    assert "no unit of hwsync" in booted.hwsync("service", "status", check=False)
    booted.call("test", "-e", "/var/lib/hwsync/hwsync.db")


def an_analyst_judges(machine: Booted) -> None:
    """In its unit an analyser can do what it needs, and the folder is closed to others."""
    mode = machine.call("stat", "-c", "%a %U %G", "/etc/hwsync/analysers")
    assert mode == "750 root hwsync-analyst\n"
    machine.call("systemctl", "reload", ANALYST)
    wait_until(
        lambda: "offers check1" in said_by_units(machine), 20.0, lambda: said_by_units(machine)
    )
    machine.call("/opt/hwsync/bin/python3", "-c", JUDGED)

    def judged() -> bool:
        said = json.loads(machine.hwsync("status", "pi1", "--json"))
        return bool(said["id"] == "judged" and said["state"] == 0)

    wait_until(judged, 20.0, lambda: said_by_units(machine))
    said = json.loads(machine.hwsync("show", "judged", "--json"))
    assert json.loads(said["server_analysis"]) == ["42\n", 2, 0, True, False]
    assert said["analysed_by"]["fault"] is None
