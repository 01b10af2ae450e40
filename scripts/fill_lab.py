"""The filling that scripts/fill runs: a real lab, accounts that do their worst, then its sizes.

The law: the files are those of ``hwsync init``, as they are, and nothing is limited that a lab's
keeper would not limit. Exit code 1: something is larger than it may be, or does not work any more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from hwsync.lab.accounts import OperatorRights
from hwsync.store.checking import check
from tests.support.account_lab import FOLDER_MODE, AccountLab
from tests.support.fill import ACCOUNTS, LEFT_OUT, Filler
from tests.support.packets import Client, Closed, Told
from tests.support.processes import Process

MB: Final = 1_000_000
DATABASE: Final = 20 * MB  # with its log, and without what waits in the queue
BROKER: Final = 128 * MB  # the most that mosquitto ever had in memory
LOOK_S: Final = 5.0  # between two looks
REST_S: Final = 120.0  # until everything that was sent is handled
QUIET_S: Final = 3.0  # without a change of the database: it is


class Filling:
    """One lab, and what was measured of it."""

    def __init__(self, folder: Path) -> None:
        self.lab = AccountLab(
            "mosquitto",
            folder,
            ("pi1", "pi2"),
            {
                "alice": OperatorRights(("pi1",)),
                "bob": OperatorRights(("pi2",)),
                "rita": OperatorRights(None, read_only=True),
            },
        )
        self.db = folder / "coordinator" / "hwsync.db"
        self.coordinator: Process | None = None
        self.sizes: list[int] = []  # of the database, one each ``LOOK_S``
        self.answers: list[float] = []  # seconds until bob, who does nothing wrong, was answered
        self.unanswered = 0

    def start(self) -> None:
        self.lab.start()
        self.db.parent.mkdir()
        config = self.lab.folder.path / "coordinator.toml"
        self.coordinator = Process(
            [sys.executable, "-m", "hwsync.cli", "coordinator", "--config", config,
             "--db", self.db, "--settle", "1"],
            directory=self.db.parent, name="coordinator",
        )  # fmt: skip
        self.coordinator.wait_for_log("ready")

    def stop(self) -> None:
        if self.coordinator is not None:
            self.coordinator.stop()
        with contextlib.redirect_stdout(io.StringIO()):
            self.lab.stop()

    def run(self, seconds: float, without: Collection[str]) -> list[Filler]:
        fillers = [Filler(self.lab, account, without) for account in ACCOUNTS]
        for filler in fillers:
            filler.start()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left))
            self.look()
            say(f"{self.sizes[-1] / MB:6.1f} MB, "
                f"{sum(sum(one.sent.values()) for one in fillers):,} messages")  # fmt: skip
        for filler in fillers:
            filler.stop()
        return fillers

    def look(self) -> None:
        """The size now, and whether somebody else is still served."""
        self.sizes.append(self.size())
        began = time.monotonic()
        if self.serves():
            self.answers.append(time.monotonic() - began)
        else:
            self.unanswered += 1

    def serves(self) -> bool:
        """Whether a request of bob's on pi2 is accepted and taken back."""
        id = f"bob-{time.time_ns()}"
        try:
            with self.bob() as client:
                client.subscribe(["hw/pi2/status"])
                # One that was not answered in time may have been accepted later.
                client.publish([Told("hw/pi2/reset", "")])
                for kind, fields in (
                    ("request", {"id": id, "program": "1"}), ("cancel", {"id": id}),
                ):  # fmt: skip
                    client.publish([Told(f"hw/pi2/{kind}", json.dumps(fields))])
                    state = int(kind == "request")
                    client.until(
                        lambda told, state=state: f'"id":"{id}","state":{state},' in told.text,
                        f"state {state} of {id}",
                    )
        except (OSError, Closed, AssertionError):
            return False
        return True

    @contextmanager
    def bob(self) -> Iterator[Client]:
        client = Client(self.lab.login("bob"), self.lab.context)
        try:
            yield client
        finally:
            client.drop()

    def size(self) -> int:
        """The database with its log."""
        files = (self.db.with_name(self.db.name + end) for end in ("", "-wal", "-shm"))
        return sum(file.stat().st_size for file in files if file.exists())

    def come_to_rest(self) -> None:
        """Until all that the broker holds is handled."""
        until, changed, before = time.monotonic() + REST_S, time.monotonic(), ()
        wal = self.db.with_name(f"{self.db.name}-wal")
        while time.monotonic() < min(until, changed + QUIET_S):
            now = tuple((one.stat().st_mtime_ns, one.stat().st_size) for one in (self.db, wal))
            if now != before:
                before, changed = now, time.monotonic()
            time.sleep(0.2)

    def queued(self) -> int:
        """Bytes of what waits in queues."""
        with contextlib.closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)) as database:
            (bytes,) = database.execute(
                "SELECT ifnull(sum(length(cast(program || stdin || args || meta as blob))), 0) "
                "FROM commands c JOIN hw_status s ON s.user = c.user "
                "WHERE EXISTS (SELECT 1 FROM json_each(s.queue) WHERE value = c.id)"
            ).fetchone()
        return int(bytes)

    def rows(self) -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)) as database:
            tables = ("hw_status", "commands", "transitions", "refused", "packets")
            return {
                table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in tables
            }


def memory(process: Process | None, what: str) -> int:
    """Bytes of /proc/PID/status."""
    assert process is not None
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def measured(filling: Filling, fillers: list[Filler], seconds: float) -> dict[str, Any]:
    """The figures; the last one says what is wrong."""
    filling.come_to_rest()
    filling.look()
    served = filling.unanswered == 0 or filling.serves()
    queued = filling.queued()
    kept = filling.lab.path / "state/mosquitto.db"
    broker = filling.lab.process
    counts: Counter[str] = sum((one.sent for one in fillers), Counter())
    figures = {
        "seconds": round(seconds),
        "messages": sum(counts.values()),
        "by topic": dict(counts.most_common()),
        "cut by the broker": {one.account: one.cut for one in fillers},
        "database, MB": round(filling.sizes[-1] / MB, 1),
        "its largest, MB": round(max(filling.sizes) / MB, 1),
        "of it in queues, MB": round(queued / MB, 1),
        "rows": filling.rows(),
        "grew in the second half, MB": round(
            (filling.sizes[-1] - filling.sizes[len(filling.sizes) // 2]) / MB, 1
        ),
        "mosquitto, MB": round(memory(broker, "VmRSS") / MB, 1),
        "its most, MB": round(memory(broker, "VmHWM") / MB, 1),
        "its file, MB": round(kept.stat().st_size / MB if kept.exists() else 0.0, 1),
        "coordinator, MB": round(memory(filling.coordinator, "VmRSS") / MB, 1),
        "the coordinator's most, MB": round(memory(filling.coordinator, "VmHWM") / MB, 1),
        "its log, MB": round(len(filling.coordinator.stderr) / MB if filling.coordinator else 0, 1),
        "somebody else was answered": f"{len(filling.answers)} times of "
        f"{len(filling.answers) + filling.unanswered}, after at most "
        f"{max(filling.answers, default=0.0):.1f} s",
    }
    wrong = []
    if filling.sizes[-1] - queued > DATABASE:
        wrong.append(f"the database is above {DATABASE / MB:g} MB")
    if memory(broker, "VmHWM") > BROKER:
        wrong.append(f"mosquitto had more than {BROKER / MB:g} MB")
    if not served:
        wrong.append("a request of somebody else is not answered any more")
    return figures | {"wrong": wrong}


def main() -> int:
    options = parse()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="hwsync-fill-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        say(f"fill: {folder} is not empty; name a new folder with --keep")
        return 2
    folder.chmod(FOLDER_MODE)  # for mosquitto, which root's becomes another account
    try:
        filling = Filling(folder.resolve())
        began = time.monotonic()
        try:
            filling.start()
            fillers = filling.run(60 * options.minutes, options.without)
            result = measured(filling, fillers, time.monotonic() - began)
        finally:
            filling.stop()
    except KeyboardInterrupt:
        if options.keep is None:
            shutil.rmtree(folder)
        say("\ninterrupted")
        return 130
    except (pytest.fail.Exception, pytest.skip.Exception, AssertionError) as failure:
        say(f"fill: {failure}; see {folder}")
        return 1
    result["wrong"] += list(check(filling.db))
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            if isinstance(value, dict):
                value = ", ".join(f"{key} {count:,}" for key, count in value.items())
            print(f"{name}: {value or 'nothing'}")
    if options.keep is None:
        shutil.rmtree(folder)
    return int(bool(result["wrong"]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fill",
        description="Make a lab with hwsync init's files on mosquitto, with a coordinator; have an "
        "operator, a reader and a board do their worst to fill it, with every kind of message that "
        "has something stored, retained messages and sessions that are left; then print how large "
        "the database, the broker and the coordinator have become. Exit code 1: the database is "
        f"above {DATABASE // MB} MB (what waits in the queue aside), mosquitto had above "
        f"{BROKER // MB} MB, the database is not sound, or somebody else is not answered.",
    )
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, metavar="M", help="for so long (default 10)")
    add("--without", action="append", default=[], choices=LEFT_OUT,
        help="leave that out (may be repeated)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")
    add("--keep", type=Path, metavar="DIR", help="a new folder for the lab and its logs, kept")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error("--minutes must be above 0")
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
