"""The lab keeper's pages as they stand: master, board and operator on one booted machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.booted import Booted
from tests.support.pages import PAGE_S, Line, bare, lines, typed
from tests.support.waiting import wait_until

WAITS = ("hwsync doctor", "hwsync device remove")
"""What needs a board that is connected: its unit has just been started, or told to read a file."""


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


@pytest.mark.slow
@pytest.mark.timeout(PAGE_S)
def test_the_page_makes_a_lab_that_works_and_lets_nobody_else_in(machine: Booted) -> None:
    page = lines("secure.md")
    after = lines("secure.md", "When something happens")
    said = all_typed(machine, [line for line in page if line not in after])
    assert said["hwsync run pi1 -c 'print(6*7)'"].endswith("42\n")
    doctor = said["hwsync doctor pi1"]
    assert "error" not in doctor
    assert "mqtts://master.local:8884" in doctor
    listed = said["hwsync operator list"].splitlines()
    assert listed == ["anna: all", "bert: all, read only", "carl: pi1"]
    nobody_else_comes_in(machine)
    everything_belongs_to_whom_it_should(machine)
    journal = machine.call("journalctl", "-b", "-o", "cat", "-u", "hwsync-coordinator")
    assert "hw_command_request" in journal
    assert journal.count("0 to 1") == 1
    assert "signed with ed25519:" in journal

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
