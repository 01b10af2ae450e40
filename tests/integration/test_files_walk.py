"""Files through everything: operator, coordinator that signs, broker, device, and back."""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.limits import MAX_COLLECTED_BYTES, MAX_FILES, MAX_FILES_BYTES
from hwsync.signing import SigningKey
from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

EACH = MAX_FILES_BYTES // MAX_FILES
SENT = {f"in/{number:02}.bin": os.urandom(EACH) for number in range(MAX_FILES)}
PROGRAM = f"""
import os
os.mkdir("out")
for number in range({MAX_FILES}):
    data = open(f"in/{{number:02}}.bin", "rb").read()
    with open(f"out/{{number:02}}.bin", "wb") as file:
        file.write((data[::-1] + data)[:{MAX_COLLECTED_BYTES // MAX_FILES}])
open("forgotten.png", "w").write("png")
"""
MEMORY_MB = 60  # that a daemon has at most, of it 27 without files


class Walk(Lab):
    """A lab in which the board runs only what is signed, and somebody who sees every message."""

    def __init__(self, watcher: Watcher, *parts: Any) -> None:
        super().__init__(*parts)
        self.watcher = watcher
        key = SigningKey.make()
        key.save(self.folder / "key")
        (self.folder / "kept").mkdir()
        self.configuration = f'trust = ["{key.public}"]\n[limits]\nfree_disk_mb = 0\n'

    def begin(self, more: str = "") -> Process:
        (self.folder / "device.toml").write_text(self.configuration + more)
        self.coordinator("--signing-key", str(self.folder / "key"))
        device = self.device()
        device.wait_for_log("connected to")
        return device

    def run(self, id: str, program: str, sent: dict[str, bytes], *collect: str,
            **keys: object) -> dict[str, Any]:  # fmt: skip
        """The status at its end."""
        files = {path: b64encode(data).decode() for path, data in sent.items()}
        request = {"id": id, "program": program, "files": files, "collect": collect, **keys}
        self.watcher.publish("hw/pi1/request", json.dumps(request | {"analysis": "outcome"}))
        return self.watcher.wait_for_state("pi1", 0, START_PATIENCE, id=id)

    def fetch(self, id: str, *paths: str) -> dict[str, bytes]:
        """Their bytes, by a query."""
        self.watcher.publish("hw/pi1/query", json.dumps({"id": id, "files": paths}))
        said = self.watcher.wait_for(
            lambda message: any("data" in one for one in message.json["files"].values()),
            topic=f"hw/pi1/result/{id}",
        ).json["files"]
        return {path: b64decode(one["data"]) for path, one in said.items() if "data" in one}


@pytest.fixture
def lab(
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    tmp_path: Path,
    watch: Callable[..., Watcher],
) -> Walk:
    return Walk(watch(mosquitto), mosquitto, start, tmp_path)


def memory(device: Process) -> float:
    """The most that it ever had, in MB."""
    lines = Path(f"/proc/{device.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1000


def test_as_much_as_there_may_be_in_a_signed_lab(lab: Walk) -> None:
    device = lab.begin()
    before = memory(device)
    began = time.monotonic()
    end = lab.run("big", PROGRAM, SENT, "out/*")
    print(f"{time.monotonic() - began:.2f} s; {before} MB, then {memory(device)} MB")
    assert (end["outcome"], end["stderr"]) == ("ok", "")
    assert end["not_kept"] == [{"path": "forgotten.png", "size": 3, "reason": "not asked for"}]
    each = MAX_COLLECTED_BYTES // MAX_FILES
    back = {path.replace("in/", "out/"): (d[::-1] + d)[:each] for path, d in SENT.items()}
    assert end["files"] == {
        path: {"size": each, "sha256": sha256(data).hexdigest()} for path, data in back.items()
    }
    assert lab.fetch("big", "out/07.bin") == {"out/07.bin": back["out/07.bin"]}
    assert memory(device) < MEMORY_MB
    wait_until(lambda: os.listdir(lab.folder / "device/work") == [], what="its folder is empty")


def test_a_start_in_a_folder_that_is_kept(lab: Walk) -> None:
    (lab.folder / "kept/old.csv").write_text("old")
    (lab.folder / "kept/a.csv").write_text("old")
    lab.begin(f'[programs]\ndirectory = "{lab.folder / "kept"}"\n')
    beats = "hw/pi1/heartbeat"
    wait_until(
        lambda: any(one.json.get("clock") for one in lab.watcher.messages(beats)),
        START_PATIENCE,
        "lab time is known",
    )
    program = "print(open('a.csv').read(), end='')\nopen('b.csv', 'w').write('new')"
    start = {"at": round(time.time() + 4, 3), "within": 2}
    end = lab.run("a", program, {"a.csv": b"sent\n"}, "*.csv", start=start)
    assert (end["outcome"], end["hw_response"]) == ("ok", "sent\n")
    assert list(end["files"]) == ["b.csv"]
    assert end["not_kept"] == []
    assert sorted(os.listdir(lab.folder / "kept")) == ["a.csv", "b.csv", "old.csv"]
