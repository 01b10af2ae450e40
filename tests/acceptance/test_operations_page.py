"""docs/operations.md and docs/device.md as they stand: units, an upgrade, a new machine."""

from __future__ import annotations

import pytest

from tests.acceptance.test_secure_page import all_typed, connected, machine
from tests.support.booted import Booted
from tests.support.pages import PAGE_S, lines, typed

__all__ = ["machine"]
OF_MASTER = (
    *("/etc/hwsync", "/opt/hwsync", "/var/lib/hwsync", "/var/lib/hwsync-broker"),
    *("/etc/systemd/system/hwsync-[bc]*", "/etc/sysusers.d/hwsync*", "/etc/tmpfiles.d/hwsync*"),
)


def ran(machine: Booted, program: str) -> str:
    connected(machine)
    return machine.call("su", "-", "anna", "-c", f"hwsync run pi1 -c '{program}'").splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(PAGE_S)
def test_an_upgrade_the_way_back_and_a_new_machine(machine: Booted) -> None:
    after = lines("secure.md", "When something happens")[0].number
    all_typed(machine, [line for line in lines("secure.md") if line.number < after])
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
    known = machine.call("su", "-", "-c", "hwsync history pi1 --db /var/lib/hwsync/hwsync.db")
    assert known.count("hw_command_request") == 3
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
