"""docs/secure.md as it stands there: master, board and operator on one booted machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.booted import Booted
from tests.support.processes import CHECKOUT
from tests.support.waiting import wait_until

PAGE = (CHECKOUT / "docs/secure.md").read_text()
LINES = [line[2:] for line in PAGE.splitlines() if line.startswith("$ ")]
ANNAS = ("hwsync doctor", "hwsync run")  # who types what needs no sudo
SCP = re.compile(r"scp (\S+) \S+")  # to another machine: here it is this one


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    booted = Booted(tmp_path_factory.mktemp("booted"))
    yield booted
    booted.stop()


def typed(machine: Booted, line: str) -> str:
    """The line as the page has it; root needs no sudo, and is not asked for a password."""
    root = SCP.sub(r"cp \1 .", line.replace("sudo ", ""))
    path = "export PATH=/opt/hwsync/bin:$PATH; cd; "
    if line.startswith(ANNAS):
        return machine.call("runuser", "-u", "anna", "--", "bash", "-c", path + root)
    return machine.call("bash", "-c", path + root)


def status(machine: Booted) -> str:
    return machine.call("systemctl", "show", "--value", "-p", "StatusText", "hwsync-device@pi1")


@pytest.mark.slow
def test_the_page_makes_a_lab_that_works_and_lets_nobody_else_in(machine: Booted) -> None:
    machine.call("useradd", "-m", "anna")
    machine.call("bash", "-c", "echo 127.0.0.1 master.local >>/etc/hosts")
    said = dict.fromkeys(LINES, "")
    for line in LINES:
        if line.startswith("hwsync doctor"):  # the units have just been started
            wait_until(lambda: status(machine).startswith("connected"), 20.0, lambda: str(said))
        said[line] = typed(machine, line)
    assert said["hwsync run pi1 -c 'print(6*7)'"].endswith("42\n")
    doctor = said["hwsync doctor pi1"]
    assert "error" not in doctor
    assert "mqtts://master.local:8884" in doctor
    listed = said["sudo hwsync operator list"].splitlines()
    assert listed == ["anna: all", "bert: all, read only", "carl: pi1"]
    # Nobody without an account, and nothing without TLS.
    refused = machine.call(
        "bash", "-c",
        "mosquitto_pub -h master.local -p 8884 --cafile /etc/hwsync/ca.crt -t hw/pi1/request -m x; "
        "mosquitto_pub -h master.local -p 8883 -t hw/pi1/command -m x; true",
    )  # fmt: skip
    assert "Connection Refused: not authorised" in refused
    assert "A TLS error occurred" in refused
    journal = machine.call("journalctl", "-b", "-o", "cat", "-u", "hwsync-coordinator")
    assert "hw_command_request" in journal
    assert journal.count("0 to 1") == 1
    assert "signed with ed25519:" in journal
    # A board that is removed is gone at once.
    machine.call("bash", "-c", "/opt/hwsync/bin/hwsync device remove pi1")
    wait_until(lambda: status(machine).startswith("not connected"), 20.0)
