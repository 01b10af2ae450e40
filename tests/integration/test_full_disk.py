"""A coordinator and a device on a disk that is full for a while: a small tmpfs, really full."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.waiting import wait_until

SIZE = "2m"
SOON_S = 30.0  # for a repetition, which comes after at most 30 s


class SmallDisk:
    """A file system of its own, which can be filled to the last byte and emptied again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                pass

    def empty(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_delays_a_request_and_loses_nothing(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
    disk: SmallDisk,
) -> None:
    lab = Lab(mosquitto, start, tmp_path)
    lab.db = disk.folder / "hwsync.db"
    coordinator = lab.coordinator("--settle", "0")
    watcher = watch(mosquitto)
    lab.pub("request", '{"program":"print(1)","id":"c1"}')
    watcher.wait_for_state("pi1", 1, id="c1")
    disk.fill()
    before = watcher.mark()
    lab.pub("cancel", json.dumps({"id": "c1"}))
    error = watcher.wait_for(
        lambda message: message.json["error"] == "degraded", SOON_S, topic="hw/pi1/error"
    ).json
    assert error["id"] == "c1"
    asked = watcher.mark()
    lab.pub("query")
    watcher.wait_for_state("pi1", 1, after=asked)
    assert {status["state"] for status in watcher.statuses("pi1")} == {1}
    assert coordinator.running
    disk.empty()
    end = watcher.wait_for_state("pi1", 0, SOON_S, id="c1", after=before)
    assert (end["outcome"], end["ran"]) == ("cancelled", "no")
    check = lab.cli("check-db", "--db", str(lab.db))
    assert check.wait() == 0, check.account()
    assert "Traceback" not in coordinator.stderr


def test_a_device_with_a_full_disk_runs_nothing_and_then_everything(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
    disk: SmallDisk,
) -> None:
    lab = Lab(mosquitto, start, tmp_path)
    lab.coordinator("--settle", "0")
    device = lab.device(folder="disk/device")
    watcher = watch(mosquitto)
    wait_until(lambda: watcher.messages("hw/pi1/heartbeat"), what="the device")
    witness = tmp_path / "witness"
    disk.fill()
    program = f"open({str(witness)!r}, 'a').write('ran\\n')"
    lab.pub("request", json.dumps({"program": program, "id": "c1", "expires": 60}))
    wait_until(lambda: "is not kept, it comes again" in device.stderr, what="the refused envelope")
    assert not witness.exists()
    disk.empty()
    end = watcher.wait_for_state("pi1", 3, SOON_S, id="c1")
    assert (end["outcome"], end["ran"]) == ("ok", "yes")
    assert witness.read_text() == "ran\n"
    assert device.running
