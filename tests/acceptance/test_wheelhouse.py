"""scripts/wheelhouse makes a folder from which machines without internet install, or nothing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
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
BUILD_S = 200.0  # for two environments and some downloads, on a busy machine


LISTS = ("master.txt", "board.txt", "board-sign.txt")
PAGES = ("secure.md", "device.md", "operations.md")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all its tests: it takes most of a minute."""
    stick = tmp_path_factory.mktemp("wheelhouse") / "a stick" / "hwsync-wheels"
    make(stick)
    return stick


def make(stick: Path) -> None:
    stick.parent.mkdir(parents=True)
    made = Process([SCRIPT, stick], directory=stick.parent.parent, name="wheelhouse")
    try:
        assert made.wait(BUILD_S) == 0, made.account()
    finally:
        made.stop()
    assert made.stdout == ""
    assert made.stderr.splitlines()[-1].startswith(f"{stick} is ready")
    assert os.listdir(stick.parent) == ["hwsync-wheels"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("listed", "needs"),
    [
        ("master.txt", "nacl.signing, cryptography.x509, amqtt.broker, peewee, click"),
        ("board-sign.txt", "nacl.signing"),
    ],
    ids=["master", "board"],
)
def test_a_machine_without_internet_installs_as_the_readme_says(
    wheels: Path, tmp_path: Path, listed: str, needs: str
) -> None:
    done = installed(wheels, tmp_path, listed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hwsync.__version__ in done.stdout
    subprocess.run([tmp_path / "opt/bin/python", "-c", f"import {needs}"], check=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_wheel_that_was_exchanged_is_refused(wheels: Path, tmp_path: Path) -> None:
    other = tmp_path / "wheels"
    shutil.copytree(wheels, other)
    (exchanged,) = other.glob("paho_mqtt-*.whl")
    with ZipFile(exchanged, "a") as wheel:
        wheel.writestr("paho/surprise.py", "")
    done = installed(other, tmp_path, "board.txt")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def installed(wheels: Path, folder: Path, listed: str) -> subprocess.CompletedProcess[str]:
    """What README.txt says for that list, typed in the folder of wheels."""
    lines = (wheels / "README.txt").read_text().splitlines()
    typed = [line.strip() for line in lines if line.startswith("    ")]
    typed = [line for line in typed if line.endswith((listed, "/opt/hwsync"))]
    assert len(typed) == 2
    command = "hwsync" if listed == "master.txt" else "hwsync-device"
    script = "\n".join(["set -e", *typed, f"/opt/hwsync/bin/{command} --version"])
    script = script.replace("/opt/hwsync", str(folder / "opt"))
    # Nothing of this machine's: neither its packages, nor pip's settings, nor a way out.
    alone = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull}
    alone |= {"PIP_INDEX_URL": NOWHERE, "http_proxy": NOWHERE, "https_proxy": NOWHERE}
    return subprocess.run(
        ["bash", "-c", script],
        cwd=wheels, env=alone, capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_has_what_other_kinds_of_machine_need(wheels: Path) -> None:
    """Each wheel with parts in C is there for 64-bit PCs and boards, with its hash in the list."""
    text = (wheels / "master.txt").read_text()
    names: dict[str, set[str]] = {}
    for path in wheels.glob("*.whl"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
        if "-none-any" not in path.name:
            found = names.setdefault(path.name.split("-")[0], set())
            found |= {machine for machine in ("x86_64", "aarch64") if machine in path.name}
    assert {"cryptography", "pynacl", "cffi"} <= names.keys()
    assert all(found == {"x86_64", "aarch64"} for found in names.values()), names
    with ZipFile(next(wheels.glob("hwsync-*.whl"))) as wheel:
        packaged = {name.rpartition("/")[2] for name in wheel.namelist() if "/systemd/" in name}
    of_package = (CHECKOUT / "hwsync" / "systemd").iterdir()
    assert packaged == {path.name for path in of_package if path.is_file()}


def test_the_pages_type_what_its_readme_says() -> None:
    """Else nobody would have tried what stands there."""
    said = set(re.findall(r"pip install ((?:--no-deps )?-r \S+)", SCRIPT.read_text()))
    assert {line.split()[-1] for line in said} == set(LISTS)
    for page in PAGES:
        text = (CHECKOUT / "docs" / page).read_text()
        typed = re.findall(r"pip install ([^`\n]*-r \S+\.txt)", text)
        assert typed
        for line in typed:
            line = line.removeprefix("--force-reinstall ")
            assert re.sub(r"hwsync-wheels(-old)?/", "", line) in said


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
    assert "scripts/wheelhouse [--here] DIR" in asked.stdout
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
