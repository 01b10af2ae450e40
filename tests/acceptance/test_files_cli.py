"""Files in and out as a person has them: real broker, coordinator and boards, both brokers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.lab import Lab
from tests.support.mqtt import Watcher
from tests.support.processes import Process
from tests.support.waiting import START_PATIENCE

PROGRAM = """\
import helper
rows = [line.split(",") for line in open("data.csv")]
open("plot.png", "wb").write(helper.picture(rows))
open("test.png", "wb").write(bytes(31_000))
print(len(rows))
"""
HELPER = "def picture(rows):\n    return b'\\x89PNG' + bytes(200_000) + str(rows).encode()\n"
PICTURE = b"\x89PNG" + bytes(200_000) + b"[['1', '2\\n'], ['3', '4\\n']]"


@pytest.fixture
def lab(
    broker: Broker, start: Callable[..., Process], tmp_path: Path, watch: Callable[..., Watcher]
) -> Lab:
    """Two boards, and a folder with a program, its module and its data."""
    lab = Lab(broker, start, tmp_path)
    (tmp_path / "groups.toml").write_text('lab1 = ["pi1", "pi2"]')
    lab.coordinator("--settle", "0", "--groups", str(tmp_path / "groups.toml"))
    heartbeats = watch(broker, "hw/+/heartbeat")
    for board in ("pi1", "pi2"):
        lab.device(board, board)
        heartbeats.wait_for(lambda one, board=board: f"/{board}/" in one.topic, START_PATIENCE)
    (tmp_path / "exp.py").write_text(PROGRAM)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "data.csv").write_text("1,2\n3,4\n")
    return lab


def ended(process: Process, code: int = 0) -> Process:
    assert process.wait(30.0) == code, process.account()
    assert "this is a bug" not in process.stderr
    return process


def test_a_class_sends_files_and_gets_pictures_back(lab: Lab) -> None:
    folder = lab.folder
    program, out = str(folder / "exp.py"), folder / "out"
    alone = ended(lab.cli("run", "pi1", program), 1)
    assert f"--with {folder / 'helper.py'}" in alone.stderr
    along = ["--with", str(folder / "helper.py"), "--with", str(folder / "data.csv")]
    done = ended(
        lab.cli("run", "pi1", *along, "--get", "plot.png", "--id", "p1", "--out", str(out), program)
    )
    assert done.stdout == "2\n"
    assert (out / "plot.png").read_bytes() == PICTURE
    assert sorted(one.name for one in out.iterdir()) == ["plot.png"]
    assert f"got plot.png, 200 kB in {out}" in done.stderr
    assert "test.png, 31 kB, was written on the board and not kept: --get test.png" in done.stderr
    # Later, from anywhere; what is here and was not named stays.
    (out / "plot.png").write_bytes(b"mine")
    later = ended(lab.cli("get", "p1", "*.png", "--out", str(out)), 1)
    assert "kept as it was" in later.stderr
    assert (out / "plot.png").read_bytes() == b"mine"
    ended(lab.cli("get", "p1", "plot.png", "--out", str(out)))
    assert (out / "plot.png").read_bytes() == PICTURE
    # Two boards, each in its own folder; the coordinator dies in between, and nothing is half.
    lab.processes["coordinator"].kill()
    lab.coordinator("--settle", "0", "--groups", str(folder / "groups.toml"))
    to_both = ["run", "@lab1", *along, "--get", "*.png", "--out", str(folder / "both"), program]
    both = ended(lab.cli(*to_both))
    assert "pi2: got 2 files, 231 kB: plot.png, test.png" in both.stderr
    for board in ("pi1", "pi2"):
        assert (folder / "both" / board / "plot.png").read_bytes() == PICTURE
        assert (folder / "both" / board / "test.png").stat().st_size == 31_000
    *each, _ = map(json.loads, ended(lab.cli("--json", *to_both)).stdout.splitlines())
    saved = {one["user"]: set(one["saved"].items()) for one in each}
    for board in ("pi1", "pi2"):
        names = ("plot.png", "test.png")
        assert saved[board] == {(name, str(folder / "both" / board / name)) for name in names}
    with closing(sqlite3.connect(lab.db)) as connection:
        kept = [size for (size,) in connection.execute("SELECT length(data) FROM contents")]
    assert sorted(kept) == [8, len(HELPER), 31_000, len(PICTURE)]
    (checked,) = [ended(lab.cli("check-db", "--db", str(lab.db)))]
    assert "changed" not in checked.stdout + checked.stderr
    said = json.loads(ended(lab.cli("get", "p1", "--json", "--out", str(out))).stdout)
    assert said["saved"] == {"plot.png": str(out / "plot.png")}
    assert ended(lab.cli("get", "nobody-1"), 1).stderr.startswith("hwsync: no board has a command")
