"""The benchmarks run, have the shape that their reader expects, and leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import CHECKOUT, environment
from tests.support.programs import require_program

SCRIPT = CHECKOUT / "benchmarks" / "cycle.py"
SECONDS = 60  # for a short run on a busy machine
SIDE = {
    *("cycles_per_s", "median_ms", "p95_ms", "status_bytes", "processor_s"),
    *("ratio", "ratios"),
}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    require_program("mosquitto", "mosquitto")
    return environment(tmp_path, {"TMPDIR": str(tmp_path)})


def test_the_floor_and_hwsync_stand_side_by_side(settings: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--boards", "1,5", "--seconds", "0.5", "--rounds", "1"]
    command += ["--beside", str(CHECKOUT)]
    ended = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=SECONDS, env=settings
    )
    assert ended.returncode == 0, ended.stderr
    facts, trip, wire, *rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert facts["machine"].keys() == {"machine", "cores", "python", "mosquitto"}
    assert facts["machine"]["mosquitto"][0].isdigit()
    assert trip.keys() == {"round_trip_ms", "transport_round_trip_ms"}
    assert min(trip.values()) > 0
    assert wire["wire_bytes"].keys() == {"floor", "hwsync", "beside"}
    statuses = 8 * rows[0]["hwsync"]["status_bytes"]  # four of them, read and written
    assert all(0.5 * statuses < count < 5 * statuses for count in wire["wire_bytes"].values())
    assert [row["boards"] for row in rows] == [1, 5]
    for row in rows:
        _is_whole(row)
    assert "5 boards, round 1, hwsync" in ended.stderr, "progress goes to stderr"
    assert not list(tmp_path.glob("hwsync-benchmark-*")), "its folder is gone"


def _is_whole(row: dict[str, Any]) -> None:
    floor = row["floor"]
    for side in ("floor", "hwsync", "beside"):
        value = row[side]
        assert value.keys() == SIDE
        ratios = value.pop("ratios")
        assert all(figure > 0 for figure in value.values())
        assert value["median_ms"] <= value["p95_ms"]
        sizes = floor["status_bytes"] / value["status_bytes"]
        assert sizes == pytest.approx(1, rel=0.05), "the floor's statuses are as long as hwsync's"
        assert ratios == [value["ratio"]]
    assert floor["ratio"] == 1


def test_ctrl_c_ends_it_with_everything_it_started(
    settings: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, str(SCRIPT), "--boards", "1", "--seconds", "60"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]  # now all of it runs
        begun = _processes_of(tmp_path)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    assert "cores" in lines[0]
    assert len(begun) == 3, "mosquitto and both sides"
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped"
    assert not _processes_of(tmp_path)
    assert not list(tmp_path.glob("hwsync-benchmark-*"))


def test_the_ways_to_start_a_program_stand_side_by_side(tmp_path: Path) -> None:
    """The table has a line of each way, with figures; how large they are is no test's business."""
    script = str(CHECKOUT / "benchmarks" / "runner.py")
    ended = subprocess.run(
        [sys.executable, script, "--rounds", "2", "--preload", "colorsys", "--lines", "100"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment(tmp_path, {"TMPDIR": str(tmp_path)}),
    )
    assert ended.returncode == 0, ended.stderr
    ways = ["python3 file.py", "cold", "warm", *(["bwrap"] if shutil.which("bwrap") else [])]
    imports = [f"{way}, import colorsys" for way in ("python3 file.py", "warm", "preload")]
    one, many = ended.stdout.strip().split("\n\n")
    for text, title, rows, aim in (
        (one, "one short program", [*ways, *imports, "preload, print(1)"], "aim: warm at most "),
        (many, "100 lines", ways, "aim: at most "),
    ):
        heading, *lines, last = text.splitlines()
        assert heading.split() == [*title.split(), "min", "ms", "median", "ms", "ratio"]
        found = {row[:36].strip(): [float(one) for one in row[36:].split()] for row in lines}
        assert list(found) == rows
        assert all(0 < least <= median and ratio > 0 for least, median, ratio in found.values())
        assert found["python3 file.py"][2] == 1
        assert last.startswith(aim)
    assert not _processes_of(tmp_path)
    assert list(tmp_path.glob("tmp*")) == [], "its folder is gone"


def test_the_memory_of_a_bare_client_and_of_the_daemon_stand_side_by_side(
    settings: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "memory.py"), "--samples", "1"]
    ended = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=SECONDS, env=settings
    )
    assert ended.returncode == 0, ended.stderr
    row = json.loads(ended.stdout)
    client, daemon = row["client"], row["daemon"]
    assert (client["processes"], daemon["processes"]) == (1, 2), "the fork server counts"
    assert daemon["alone"] > daemon["first_process_alone"] > client["alone"] > 8, (
        "a Python has 8 MB"
    )
    for kind in ("alone", "pss", "pss_together"):
        assert row["difference"][kind] == pytest.approx(daemon[kind] - client[kind], abs=0.11)
    for one in (client, daemon):
        assert one["alone"] > one["pss"], "what others have mapped as well counts in part"
    assert not _processes_of(tmp_path)
    assert not list(tmp_path.glob("hwsync-benchmark-*"))


@pytest.mark.timeout(600)
def test_starts_in_step_stand_beside_the_best_that_is_possible_here(
    settings: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "sync.py"), "--quick", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=570, env=settings)
    assert ended.returncode == 0, ended.stderr
    results = json.loads(ended.stdout)["results"]
    assert [row["boards"] for row in results] == [2, 8]
    for row in results:
        spreads = row["spread_ms"]
        assert spreads.keys() == {"floor", "naive", "wall", "hwsync"}
        assert [spreads[side]["n"] for side in ("floor", "naive", "wall")] == [30] * 3
        # On a busy machine a board may come too late for its instant, and says so.
        assert spreads["hwsync"]["n"] + len(row["failed"]) == 30
        assert spreads["hwsync"]["n"] > 15, row["failed"]
        assert 0 < row["release_to_first_line_ms"]["p50"] < row["release_to_first_line_ms"]["p99"]
        assert row["clock_bound_ms"]["p50"] > 0
    assert not _processes_of(tmp_path)
    assert not list(tmp_path.glob("hwsync-sync-*"))


def test_each_bound_is_true_on_slow_links_and_with_clocks_that_are_wrong(
    settings: dict[str, str], tmp_path: Path
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("its clocks are compiled, and there is no C compiler")
    script = str(CHECKOUT / "benchmarks" / "sync_links.py")
    command = [sys.executable, script, "--starts", "18", "--boards", "3", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, env=settings)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [row["link"] for row in rows] == ["symmetric", "asymmetric", "ramp"]
    for row in rows:
        assert row["starts"] >= 6
        assert row["broken"] == []
        assert row["true_error_ms"]["p99"] < row["bound_ms"]["p99"]
    assert rows[1]["true_error_ms"]["p50"] > 10, "its answers come back much faster"
    assert not _processes_of(tmp_path)
    assert not list(tmp_path.glob("hwsync-*"))


def test_one_request_for_many_boards_is_timed(settings: dict[str, str], tmp_path: Path) -> None:
    script = str(CHECKOUT / "benchmarks" / "batch.py")
    ended = subprocess.run(
        [sys.executable, script, "--boards", "50", "--json"],
        capture_output=True, text=True, timeout=SECONDS, env=settings,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    row = json.loads(ended.stdout)
    assert row["counts"]["ok"] == row["counts"]["members"] == 50
    assert 0 < row["accepted_s"] <= row["over_s"]
    assert 0 < row["largest_status"] <= 2**20
    assert not _processes_of(tmp_path)


def _processes_of(directory: Path) -> set[int]:
    """Processes whose command line names the folder."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            if os.fsencode(directory) in line:
                found.add(int(entry.name))
    return found


def test_how_late_programs_are_released(tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "release.py")]
    command += ["--rounds", "2", "--programs", "2"]
    variables = environment(tmp_path, {"TMPDIR": str(tmp_path)})
    told = [
        subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=SECONDS, env=variables
        )
        for more in ([], ["--json"])
    ]
    assert [(one.returncode, one.stderr) for one in told] == [(0, "")] * 2
    assert "2 rounds of 2; microseconds after the instant" in told[0].stdout
    figures = json.loads(told[1].stdout)
    assert len(figures["late_us"]) == 4
    assert min(figures["late_us"]) >= 0
    assert len(figures["apart_us"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_api_stands_beside_the_raw_messages(settings: dict[str, str]) -> None:
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "api.py"), "--rounds", "2"]
    ended = subprocess.run(
        [*command, "--runs", "3"], capture_output=True, text=True, timeout=SECONDS,
        env=settings | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    head, raw, api, ratio = ended.stdout.splitlines()
    assert head.startswith("2 rounds of 3 runs each")
    assert (raw[:4], api[:4], ratio[:10]) == ("raw ", "api ", "api / raw ")
    assert float(ratio.split()[3]) > 0
