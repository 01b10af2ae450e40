"""The lab keeper's pages as they stand: master, board and operator on one booted machine.

docs/secure.md from its first line to its last, and what docs/operations.md and docs/device.md have
beside it. One machine goes through all that a lab goes through, since each takes a while to make.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.booted import Booted
from tests.support.pages import PAGE_S, Line, bare, lines, typed
from tests.support.waiting import wait_until

WAITS = ("hwsync doctor", "hwsync device remove")
"""What needs a board that is connected: its unit has just been started, or told to read a file."""
OF_MASTER = (
    *("/etc/hwsync", "/opt/hwsync", "/var/lib/hwsync", "/var/lib/hwsync-broker"),
    *("/etc/systemd/system/hwsync-[bc]*", "/etc/sysusers.d/hwsync*", "/etc/tmpfiles.d/hwsync*"),
)

JUDGED = """
import json
from hwsync.cli.common import Settings
from hwsync.operator.client import Client
from hwsync.operator.run import Run, RunRequest

settings = Settings()
with Client(settings.url, settings.topics, "pi1") as client:
    run = Run(client, RunRequest(program="print(6*7)", analysis="check1"))
    client.wait(run.requesting())
    print(json.dumps(client.wait(run.following())))
"""


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    booted = bare(tmp_path_factory.mktemp("booted"))
    yield booted
    booted.stop()


def status(machine: Booted, unit: str = "hwsync-device@pi1") -> str:
    """What it says of itself; one that is about to start may still say what it said before."""
    said = machine.call("systemctl", "show", "-p", "ActiveState", "-p", "StatusText", unit)
    found = dict(line.split("=", 1) for line in said.splitlines())
    return found["StatusText"] if found["ActiveState"] == "active" else found["ActiveState"]


def connected(machine: Booted) -> None:
    def log() -> str:
        return machine.call("journalctl", "-b", "-o", "cat", "-u", "hwsync*", "-n", "40")

    for unit in ("hwsync-coordinator", "hwsync-device@pi1"):

        def is_connected(unit: str = unit) -> bool:
            return status(machine, unit).startswith("connected")

        wait_until(is_connected, 30.0, log)


def all_typed(machine: Booted, page: list[Line]) -> dict[str, str]:
    """What each line said."""
    said = {}
    for line in page:
        if line.text.startswith(WAITS):
            connected(machine)
        said[line.text] = typed(machine, line)
    return said


def ran(machine: Booted, program: str) -> str:
    connected(machine)
    return machine.call("su", "-", "anna", "-c", f"hwsync run pi1 -c '{program}'").splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(PAGE_S)
def test_a_lab_from_its_first_day_to_another_master(machine: Booted) -> None:
    page = lines("secure.md")
    after = lines("secure.md", "When something happens")
    said = all_typed(machine, [line for line in page if line not in after])
    assert said["hwsync run pi1 -c 'print(6*7)'"].endswith("42\n")
    doctor = said["hwsync doctor pi1"]
    assert "error" not in doctor
    assert "mqtts://master.local:8884" in doctor
    listed = said["hwsync operator list"].splitlines()
    assert listed == ["anna: all, everybody's history, judges", "bert: all, read only", "carl: pi1"]
    nobody_else_comes_in(machine)
    everything_belongs_to_whom_it_should(machine)
    journal = machine.call("journalctl", "-b", "-o", "cat", "-u", "hwsync-coordinator")
    assert "hw_command_request" in journal
    assert journal.count("0 to 1") == 1
    assert "signed with ed25519:" in journal

    what_was_run_is_judged_by_a_service(machine)
    it_is_upgraded_and_comes_back_on_a_new_machine(machine)

    all_typed(machine, after)
    # A board that is removed is gone at once.
    wait_until(lambda: status(machine).startswith("not connected"), 20.0, lambda: status(machine))


def nobody_else_comes_in(machine: Booted) -> None:
    """Nobody without an account, and nothing without TLS."""
    refused = machine.call(
        "bash", "-c",
        "mosquitto_pub -h master.local -p 8884 --cafile /etc/hwsync/ca.crt -t hw/pi1/request -m x; "
        "mosquitto_pub -h master.local -p 8883 -t hw/pi1/command -m x; true",
    )  # fmt: skip
    assert "Connection Refused: not authorised" in refused
    assert "A TLS error occurred" in refused


def everything_belongs_to_whom_it_should(machine: Booted) -> None:
    """What root handed over is its owner's, also the folders; secrets are nobody else's."""
    owned = machine.call("find", "/home/anna", "-printf", "%u %P\\n").splitlines()
    assert "anna .config/hwsync/hwsync.toml" in owned
    assert [line for line in owned if not line.startswith("anna ")] == []
    modes = machine.call("find", "/etc/hwsync", "-type", "f", "-printf", "%m %g %P\\n").splitlines()
    found = [line.split() for line in modes]
    readable = {path for mode, _, path in found if mode[2] != "0"}
    assert readable == {"lab.json", "broker.conf", "ca.crt"}
    assert {group for mode, group, _ in found if mode == "640"} == {"hwsync-broker"}


def what_was_run_is_judged_by_a_service(machine: Booted) -> None:
    """Under an account that reads the analysers, which nobody else does."""
    unit = "hwsync-analyst@check"
    *begin, look = lines("operations.md", "An analyst")
    all_typed(machine, begin)

    def log() -> str:
        return machine.call("journalctl", "-b", "-o", "cat", "-u", unit, "-n", "40")

    wait_until(lambda: status(machine, unit).startswith("connected"), 30.0, log)
    assert f"{unit}.service" in typed(machine, look)
    machine.write("/home/anna/judged.py", JUDGED)
    run = "/opt/hwsync/bin/python3 judged.py"
    judged = json.loads(machine.call("su", "-", "anna", "-c", run).splitlines()[-1])
    assert json.loads(judged["server_analysis"]) == {"passed": True}
    assert judged["analysed_by"]["name"] == "check1"
    refused = machine.call("bash", "-c", "su - anna -c 'cat /etc/hwsync/analysers/check1.py'; true")
    assert "Permission denied" in refused
    machine.call("rm", "/home/anna/judged.py")
    machine.call("hwsync", "analyst", "remove", "check")
    machine.call("hwsync", "service", "uninstall", "analyst", "check")


def it_is_upgraded_and_comes_back_on_a_new_machine(machine: Booted) -> None:
    machine.call("cp", "-r", "/root/hwsync-wheels", "/root/hwsync-wheels-old")
    all_typed(machine, lines("operations.md", "Upgrade"))
    assert ran(machine, "print(1)") == "1"
    all_typed(machine, lines("operations.md", "What to back up"))

    # The master is gone. Its board, on the same machine here, is not.
    machine.call("cp", "/etc/hwsync/device.toml", "/root")
    machine.call("systemctl", "stop", "hwsync-coordinator", "hwsync-broker")
    machine.call(
        "bash", "-c", f"rm -rf {' '.join(OF_MASTER)}; userdel hwsync; userdel hwsync-broker"
    )
    machine.call("systemctl", "daemon-reload")
    all_typed(machine, lines("operations.md", "Restore on a new machine"))
    assert ran(machine, "print(2)") == "2"
    known = machine.call("su", "-", "-c", "hwsync history pi1 --log --db /var/lib/hwsync/hwsync.db")
    assert known.count("hw_command_request") == 4
    owners = machine.call("find", "/var/lib/hwsync", "-printf", "%u %f\\n").splitlines()
    assert {line.split()[0] for line in owners} == {"hwsync"}


@pytest.mark.slow
@pytest.mark.timeout(PAGE_S)
def test_units_by_themselves_and_a_board_that_has_no_more_than_it_needs(machine: Booted) -> None:
    begin = lines("secure.md", "1. The master")[0].number
    all_typed(machine, [line for line in lines("secure.md") if line.number < begin])
    *units, look = lines("operations.md", "systemd")
    all_typed(machine, units)
    connected(machine)
    assert typed(machine, look).count("active (running)") == 3
    machine.call("su", "-", "-c", "hwsync service uninstall device pi1")
    machine.write("/root/device.toml", 'broker = "mqtt://127.0.0.1"\n')
    all_typed(machine, lines("device.md", "Installation on a Raspberry Pi"))
    assert ran(machine, "print(3)") == "3"
