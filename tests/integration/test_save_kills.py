"""A coordinator that dies while it saves a file of 1 MiB: all of it is there then, or nothing.

Each message is sent once. It stays at the broker until it is acknowledged, so each life gets it
again, and dies at another point of its save.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.protocol.limits import MAX_FILES_BYTES
from hwsync.store.checking import check
from tests.support import killed_coordinator
from tests.support.brokers import MosquittoBroker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE, wait_until

KILLED: Final = [sys.executable, killed_coordinator.__file__]
POINTS: Final = (
    "statement INTO transitions",  # when the bytes were already handed to SQLite
    "statement COMMIT",
    "bytes 30000",  # of 1,060,000: 257 pages and more
    "bytes 1050000",
)
"""In this order, then ``after``: only what was committed counts."""

DATA: Final = os.urandom(MAX_FILES_BYTES)
HASH: Final = sha256(DATA).hexdigest()
SENT: Final = {
    "id": "c1",
    "program": "p",
    "collect": ["*.bin"],
    "files": {"sent.bin": b64encode(DATA).decode()},
}
BACK: Final = {"size": len(DATA), "sha256": sha256(DATA[::-1]).hexdigest()}
RESULT: Final = {
    "id": "c1", "journal": "j1", "boot": 1, "outcome": "ok",
    "files": {"back.bin": {**BACK, "data": b64encode(DATA[::-1]).decode()}},
}  # fmt: skip


def read(db: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute(statement)]


class Victim:
    """Lives of one coordinator on one database."""

    def __init__(self, lab: Lab, start: Callable[..., Process]) -> None:
        self.lab, self._start = lab, start

    def dies(self, point: str) -> None:
        """A life that ends at that point."""
        command = [*KILLED, point, "coordinator", "--broker", self.lab.url, "--settle", "0"]
        process = self._start([*command, "--db", str(self.lab.db)], name="killed")
        died = -signal.SIGXFSZ if point.startswith("bytes") else -signal.SIGKILL
        assert process.wait(START_PATIENCE) == died, process.account()
        assert list(check(self.lab.db)) == []

    def dies_everywhere(self, nothing: Callable[[], None], whole: Callable[[], None]) -> None:
        """At each point of the save of one message."""
        for point in POINTS:
            self.dies(point)
            nothing()
        self.dies("after")
        whole()


@pytest.fixture
def lab(mosquitto: MosquittoBroker, start: Callable[..., Process], tmp_path: Path) -> Lab:
    return Lab(mosquitto, start, tmp_path)


def test_a_request_and_a_result_are_there_whole_or_not_at_all(
    lab: Lab,
    mosquitto: MosquittoBroker,
    start: Callable[..., Process],
    watch: Callable[..., Watcher],
) -> None:
    watcher, victim = watch(mosquitto), Victim(lab, start)

    def contents() -> set[str]:
        return set(read(lab.db, "SELECT sha256 FROM contents"))

    def states() -> list[tuple[int, str]]:
        ends = read(lab.db, "SELECT outcome FROM commands")
        return [
            (state, end)
            for state, end in zip(read(lab.db, "SELECT state FROM hw_status"), ends, strict=True)
        ]

    def not_asked() -> None:
        assert contents() == set()
        assert read(lab.db, "SELECT count(*) FROM commands") == [0]
        assert read(lab.db, "SELECT count(*) FROM transitions") == [0]

    def asked() -> None:
        assert contents() == {HASH}
        assert states() == [(1, None)]

    def not_answered() -> None:
        assert contents() == {HASH}
        assert states() == [(2, None)]
        assert read(lab.db, "SELECT returned FROM commands") == ["[]"]

    def answered() -> None:
        assert contents() == {HASH, BACK["sha256"]}
        assert states() == [(3, "ok")]

    first = lab.coordinator("--settle", "0")  # so that the broker keeps what comes for it
    first.stop()
    watcher.publish("hw/pi1/request", json.dumps(SENT))
    victim.dies_everywhere(not_asked, asked)

    second = lab.coordinator("--settle", "0")
    envelope = watcher.wait_for(lambda message: True, topic="hw/pi1/command").json
    assert envelope["files"] == SENT["files"]
    watcher.publish("hw/pi1/collected", json.dumps({"id": "c1", "journal": "j1", "boot": 1}))
    watcher.wait_for_state("pi1", 2, id="c1")
    second.stop()
    watcher.publish("hw/pi1/response", json.dumps(RESULT))
    victim.dies_everywhere(not_answered, answered)

    last = lab.coordinator("--settle", "0")
    assert watcher.wait_for_state("pi1", 3, id="c1")["files"] == {"back.bin": BACK}
    watcher.publish("hw/pi1/query", json.dumps({"id": "c1", "files": ["back.bin"]}))
    wait_until(
        lambda: any(
            one.json["files"] == RESULT["files"] for one in watcher.messages("hw/pi1/result/c1")
        ),
        START_PATIENCE,
        "the bytes",
    )
    last.stop()
    assert list(check(lab.db)) == []
