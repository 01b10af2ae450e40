"""scripts/wheelhouse makes a folder from which a board without internet installs, or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

import hwsync
from tests.support.processes import CHECKOUT, Process
from tests.support.waiting import wait_until

SCRIPT = CHECKOUT / "scripts" / "wheelhouse"
NOWHERE = "http://127.0.0.1:1"  # port 1: refused at once
BUILD_S = 90.0  # for two environments and a download, on a busy machine


@pytest.mark.slow
def test_a_board_without_internet_installs_as_its_readme_says(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    wheels = tmp_path / "a stick" / "hwsync"
    wheels.parent.mkdir()
    made = start([SCRIPT, wheels], name="wheelhouse")
    assert made.wait(BUILD_S) == 0, made.account()
    assert made.stdout == ""
    assert made.stderr.splitlines()[-1].startswith(f"{wheels} is ready")
    kinds = sorted(path.name.split("-")[0] for path in wheels.iterdir())
    assert kinds == ["README.txt", "hwsync", "paho_mqtt"]
    assert all("-none-any" in path.name for path in wheels.glob("*.whl"))
    assert os.listdir(wheels.parent) == ["hwsync"]
    with ZipFile(next(wheels.glob("hwsync-*.whl"))) as wheel:
        packaged = {name.rpartition("/")[2] for name in wheel.namelist() if "/systemd/" in name}
    of_package = (CHECKOUT / "hwsync" / "systemd").iterdir()
    assert packaged == {path.name for path in of_package if path.is_file()}

    lines = (wheels / "README.txt").read_text().splitlines()
    typed = [line.strip() for line in lines if line.startswith("    ")]
    assert len(typed) == 3
    script = "\n".join(["set -e", *typed, '"$HOME/hwsync/bin/hwsync-device" --help'])
    board = tmp_path / "board"
    board.mkdir()
    # Nothing of this machine's: neither its packages, nor pip's settings, nor a way out.
    alone = {"HOME": str(board), "PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull}
    alone |= {"PIP_INDEX_URL": NOWHERE, "http_proxy": NOWHERE, "https_proxy": NOWHERE}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=wheels, env=alone, capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert hwsync.__version__ in said
    assert any(line.startswith("usage: hwsync-device") for line in said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the folder to make: scripts/wheelhouse DIR"),
        (["--fast"], "unknown option --fast"),
        (["one", "two"], "one folder, please"),
        (["."], ". exists: remove it, or name a folder that does not exist yet"),
        (["no/such"], "no, in which the folder would be made, is no folder"),
        (["/proc/wheels"], "cannot write in /proc"),  # also for root
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    start: Callable[..., Process], tmp_path: Path, arguments: list[str], said: str
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    refused = start([SCRIPT, *arguments], name="wheelhouse", cwd=folder)
    assert refused.wait() == 2
    assert refused.stderr.startswith(f"wheelhouse: {said}")
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""
    assert os.listdir(folder) == []


def test_help_says_how_to_call_it(start: Callable[..., Process]) -> None:
    asked = start([SCRIPT, "--help"], name="wheelhouse")
    assert asked.wait() == 0
    assert "scripts/wheelhouse DIR" in asked.stdout
    assert "#" not in asked.stdout


def test_without_a_network_it_says_so_and_leaves_nothing(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    nothing = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": NOWHERE, "PIP_FIND_LINKS": ""}
    nothing |= {"http_proxy": NOWHERE, "https_proxy": NOWHERE, "PIP_RETRIES": "0"}
    nothing |= {"TMPDIR": str(_folder(tmp_path, "t"))}
    failed = start(
        [SCRIPT, _folder(tmp_path, "here") / "wheels"], name="wheelhouse", variables=nothing
    )
    assert failed.wait(BUILD_S) == 1
    assert "wheelhouse: pip could not build hwsync" in failed.stderr
    assert "is there a network?" in failed.stderr
    assert os.listdir(tmp_path / "here") == os.listdir(tmp_path / "t") == []


def test_ctrl_c_leaves_nothing(start: Callable[..., Process], tmp_path: Path) -> None:
    here, temporary = _folder(tmp_path, "here"), _folder(tmp_path, "t")
    stopped = start(
        [SCRIPT, here / "wheels"], name="wheelhouse", variables={"TMPDIR": str(temporary)}
    )
    wait_until(lambda: os.listdir(here) and os.listdir(temporary), what="the half-made folder")
    stopped.wait_for_log("making an environment")
    os.killpg(stopped.pid, signal.SIGINT)  # a terminal tells the whole group
    assert stopped.wait() == 130
    assert stopped.stderr.splitlines() == [
        "making an environment to build in",
        "wheelhouse: stopped, nothing is left behind",
    ]
    assert os.listdir(here) == os.listdir(temporary) == []


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name
