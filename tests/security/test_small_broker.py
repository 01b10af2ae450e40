"""What the broker refuses ends nothing but that message, in a lab of ``hwsync init`` on mosquitto.

Its two limits at the sizes that other brokers have, put into the lab's own configuration, and a
topic on which mosquitto hangs up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.lab.accounts import OperatorRights
from tests.support.account_lab import AccountLab, account_lab
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC
from tests.support.packets import Told
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE

KIB: Final = 1024
LARGE: Final = "print('\\x01' * 262_000)"  # each character takes six bytes in JSON: 1.5 MB


@pytest.fixture
def made() -> Iterator[AccountLab]:
    """Its files, before the broker is started."""
    with account_lab("mosquitto", ("pi1",), {"teacher": OperatorRights(None)}, start=False) as lab:
        yield lab


@pytest.fixture
def begin(
    made: AccountLab, start: Callable[..., Process], tmp_path: Path
) -> Callable[..., Process]:
    """The part of that account, with its own file."""

    def one(account: str, *typed: str) -> Process:
        file = str(made.folder.file_of(account, made.folder.accounts))
        command = [*HWSYNC, *typed[:1], "--config", file, *typed[1:]]
        if account == "pi1":
            limits = tmp_path / "device.toml"
            limits.write_text(Path(file).read_text() + "\n[limits]\nfree_disk_mb = 0\n")
            limits.chmod(0o600)
            state = str(tmp_path / "device")
            command = [*DEVICE, "--config", str(limits), "--state-dir", state, *AS_ROOT]
        return start(command, name=account)

    return one


def ended(process: Process) -> dict[str, Any]:
    assert process.wait(120.0) == 0, process.account()
    fields: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return fields


@pytest.mark.slow
@pytest.mark.parametrize("limit", [128 * KIB, 1024 * KIB])
@pytest.mark.parametrize("way", ["max_packet_size", "message_size_limit"])
def test_what_is_large_is_cut_and_what_is_small_goes_through(
    made: AccountLab, begin: Callable[..., Process], tmp_path: Path, way: str, limit: int
) -> None:
    conf = made.folder.path / "broker.conf"
    lines = conf.read_text().splitlines()
    others = [line for line in lines if not line.startswith("max_packet_size")]
    assert len(others) == len(lines) - 1
    conf.write_text("\n".join([f"{way} {limit}", *others, ""]))
    made.start()
    statuses = made.come_in("teacher")
    statuses.subscribe(["hw/pi1/status"])
    typed = ("coordinator", "--db", str(tmp_path / "db"), "--settle", "0")
    coordinators = [begin("coordinator", *typed)]
    coordinators[0].wait_for_log(r"\bready\b", START_PATIENCE)
    device = begin("pi1")
    told = ended(
        begin("teacher", "run", "pi1", "--wait-for-board", "-c", LARGE, "--grace", "120", "--json")
    )
    assert (told["outcome"], told["ran"], told["truncated"]) == ("ok", "yes", True)
    assert told["hw_response"].startswith("\x01" * 1_000)
    assert "bytes left out" in told["hw_response"]
    told = ended(begin("teacher", "run", "pi1", "-c", "print(6*7)", "--json"))
    assert (told["hw_response"], told["truncated"]) == ("42\n", False)
    # One that begins anew publishes the record again, and is not cut off for ever.
    coordinators[0].stop()
    coordinators.append(begin("coordinator", *typed))
    coordinators[1].wait_for_log(r"\bready\b", START_PATIENCE)
    told = ended(begin("teacher", "run", "pi1", "-c", "print(6*7)", "--id", "last", "--json"))
    assert told["hw_response"] == "42\n"
    heard = statuses.until(lambda one: '"last"' in one.text and '"outcome":"ok"' in one.text, "it")
    assert len(heard) > 10
    assert all(len(one.text.encode()) <= limit for one in heard)
    for process in (*coordinators, device):
        assert "ANOTHER CLIENT" not in process.stderr


def test_a_deep_response_topic_is_refused_and_cuts_nobody_off(
    made: AccountLab, begin: Callable[..., Process], tmp_path: Path
) -> None:
    made.start()
    coordinator = begin("coordinator", "coordinator", "--db", str(tmp_path / "db"))
    coordinator.wait_for_log(r"\bready\b", START_PATIENCE)
    teacher, guest = made.come_in("teacher"), made.come_in("teacher", version=5)
    teacher.subscribe(["hw/pi1/error"])
    deep = "/".join("d" * 250).encode()
    response_topic = b"\x08" + len(deep).to_bytes(2, "big") + deep
    request = json.dumps({"program": "print(1)", "id": "c1"})
    guest.publish_v5(Told("hw/pi1/request", request), response_topic)
    (*_, error) = teacher.until(lambda one: "bad_payload" in one.text, "the error")
    assert "32 levels" in error.text
    assert "lost the connection" not in coordinator.stderr
