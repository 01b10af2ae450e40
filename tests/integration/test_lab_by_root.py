"""A lab that root makes and serves with mosquitto, which gives up root's rights and is another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.booted import Booted
from tests.support.waiting import wait_until

INIT = ("init", "--host", "localhost")
PROCESSES = """
for one in /proc/[0-9]*; do
    [ "$(cat $one/comm)" != mosquitto ] || stat -c '%U %n' $one
done
"""


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    booted = Booted(tmp_path_factory.mktemp("booted"))
    yield booted
    booted.stop()


def mosquittos(machine: Booted) -> list[list[str]]:
    """Account and number of each process of mosquitto."""
    said = machine.call("bash", "-c", f"exec 2>/dev/null; {PROCESSES}", check=False)
    return [line.replace("/proc/", "").split() for line in said.splitlines()]


def served(machine: Booted, said: str) -> str:
    """Type the line for mosquitto that `hwsync init` printed; whose process it then is."""
    (line,) = [line for line in said.splitlines() if " mosquitto -c " in line]
    command, _, _ = line.strip().partition("  ")
    folder = command.split()[1]
    machine.call("bash", "-c", f"({command}) </dev/null >/tmp/said 2>&1 &")
    try:
        wait_until(
            lambda: "mosquitto.db" in machine.call("ls", folder).split(), 20.0,
            lambda: machine.call("cat", "/tmp/said"),
        )  # fmt: skip
        ((account, _),) = mosquittos(machine)
        return account
    finally:
        for _, number in mosquittos(machine):
            machine.call("kill", number)
        wait_until(lambda: not mosquittos(machine))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_mosquitto_can_read_and_keep_what_it_must(machine: Booted) -> None:
    if "mosquitto" not in machine.call("ls", "/usr/sbin"):
        pytest.skip("mosquitto is missing (apt-get install mosquitto)")
    assert served(machine, machine.hwsync(*INIT, "/srv/lab")) == "mosquitto"

    # Where it can read nothing that is said, since nothing but another folder helps.
    closed = machine.hwsync(*INIT, "/root/lab")
    assert "/root is closed to the account that mosquitto becomes" in closed

    # A lab that is older than the account of its unit is given to it.
    machine.hwsync(*INIT, "/etc/hwsync")
    said = machine.hwsync("service", "install", "broker", "coordinator")
    assert "what the broker reads in /etc/hwsync belongs to its group now" in said
    state = ("systemctl", "show", "--value", "-p", "StatusText", "hwsync-coordinator")
    wait_until(lambda: machine.call(*state).startswith("connected"), 30.0)
    conf = machine.call("cat", "/etc/hwsync/broker.conf")
    assert "\nuser hwsync-broker\n" in conf
    again = machine.hwsync("service", "install", "broker", "coordinator")
    assert "belongs to its group now" not in again
    machine.call("systemctl", "stop", "hwsync-coordinator", "hwsync-broker")

    # And one that is younger is that account's from the beginning, whoever starts mosquitto.
    assert served(machine, machine.hwsync(*INIT, "/srv/younger")) == "hwsync-broker"
