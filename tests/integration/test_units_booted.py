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
UNITS = (BROKER, COORDINATOR, DEVICE)

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
    for words in (["broker", "--no-mosquitto"], ["coordinator", "device", "pi1"]):
        booted.hwsync("service", "install", *words)
    wait_until(lambda: all_active(booted), 20.0, lambda: said_by_units(booted))
    known = states(booted)
    assert known.keys() == set(UNITS)
    assert "listening on" in known[BROKER]["status"]
    assert "connected to" in known[COORDINATOR]["status"]
    assert {unit["at_boot"] for unit in known.values()} == {"enabled"}

    # Before the output a line may say that the device's heartbeat has not come yet.
    assert "2\nTrue True\n0 True\n" in booted.hwsync("run", "pi1", "-c", PROGRAM)
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

    booted.hwsync("service", "uninstall", "coordinator", "device", "pi1", "broker")
    assert "no unit of hwsync" in booted.hwsync("service", "status", check=False)
    booted.call("test", "-e", "/var/lib/hwsync/hwsync.db")
