"""The scripts say in plain words what a bare machine lacks, and leave nothing half made behind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SECONDS = 30  # for one call

WITHOUT_VENV = """#!/bin/sh
case "$*" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac
"""
TOO_OLD = """#!/bin/sh
case "$*" in *version_info*) exit 1 ;; *) echo "Python 3.9.2" ;; esac
"""
VENV_FAILS = """#!/bin/sh
case "$*" in "-m venv "*) mkdir "$3"; echo "no space left" >&2; exit 1 ;; *) exit 0 ;; esac
"""
# Its environment's Python counts the installations.
WORKS = """#!/bin/sh
case "$*" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip "*) echo "$*" >>"$(dirname "$0")/installations" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the shell functions, and a machine that has a few tools and nothing else."""
    root = tmp_path / "a checkout"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPTS / "lib.sh", root / "scripts")
    (root / "setup.cfg").write_text("[metadata]\n")
    (root / "pyproject.toml").write_text("")
    machine = tmp_path / "machine"
    machine.mkdir()
    for tool in ("bash", "sh", "basename", "dirname", "cat", "cksum", "cp", "mkdir", "rm", "flock"):
        path = shutil.which(tool)
        assert path is not None
        (machine / tool).symlink_to(path)
    return root


def run(
    checkout: Path, calls: str, python: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Call functions of lib.sh in a script named ``scripts/test`` on that machine."""
    script = checkout / "scripts" / "test"
    script.write_text(f'set -euo pipefail\nroot="$1"\n. "$root/scripts/lib.sh"\n{calls}\n')
    machine = checkout.parent / "machine"
    if python:
        (machine / "python3").write_text(python)
        (machine / "python3").chmod(0o755)
    return subprocess.run(
        [machine / "bash", script, checkout],
        env={"PATH": str(machine), **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("", "no python3 here; hwsync needs Python 3.11 or later"),
        (TOO_OLD, "Python 3.9.2 is too old; hwsync needs 3.11 or later"),
        (WITHOUT_VENV, "python3-venv is missing. On Debian: apt-get install python3-venv"),
        (VENV_FAILS, "no space left"),
    ],
    ids=["no Python", "old Python", "no ensurepip", "venv fails"],
)
def test_a_machine_that_cannot_is_told_why(checkout: Path, python: str, said: str) -> None:
    done = run(checkout, "environment dev", python)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout / ".venv").exists()


def test_the_project_is_installed_again_only_when_its_files_changed(checkout: Path) -> None:
    count = 'cat "$root/.venv/bin/installations"'

    def installations(calls: str) -> list[str]:
        done = run(checkout, f"{calls}\n{count}", WORKS)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert [line.endswith(f"{checkout}[dev]") for line in installations("environment dev")] == [
        True
    ]
    assert len(installations("environment dev")) == 1
    assert len(installations("environment")) == 1  # dev has all that the base has
    (checkout / "setup.cfg").write_text("[metadata]\nname = changed\n")
    assert len(installations("environment")) == 2
    assert len(installations("environment dev")) == 3


def test_a_broken_environment_is_made_again(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    done = run(checkout, "environment dev", WORKS)
    assert done.returncode == 0, done.stderr
    assert "is broken" in done.stderr
    assert (checkout / ".venv" / "bin" / "installations").exists()


def test_the_environment_is_first_in_the_path(checkout: Path) -> None:
    done = run(checkout, 'environment dev\nprintf "%s" "$PATH"', WORKS)
    assert done.stdout.split(":")[0] == f"{checkout}/.venv/bin"


@pytest.mark.parametrize(("variables", "exit_code"), [({}, 0), ({"CI": "true"}, 1)])
def test_a_missing_mosquitto_is_named_and_ends_ci(
    checkout: Path, variables: dict[str, str], exit_code: int
) -> None:
    # Not root, so that nothing is installed.
    done = run(checkout, "id() { echo 1000; }\nmosquitto_where_possible", **variables)
    assert done.returncode == exit_code
    assert "mosquitto or mosquitto-clients is missing" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ("tests/unit -k 'a or b'", "-m pytest -n auto --dist loadgroup tests/unit -k a or b"),
        ("-n 0", "-m pytest -n auto --dist loadgroup -n 0"),  # pytest takes the last one
        ("-p no:xdist -x", "-m pytest -p no:xdist -x"),  # and without xdist, knows no -n
    ],
)
def test_the_tests_are_shared_out_unless_the_arguments_say_otherwise(
    checkout: Path, arguments: str, called: str
) -> None:
    says = '#!/bin/sh\necho "$PYTEST_XDIST_AUTO_NUM_WORKERS: $*"\n'
    machine = checkout.parent / "machine"
    (machine / "python").write_text(says)
    (machine / "python").chmod(0o755)
    assert run(checkout, f"run_pytest {arguments}").stdout == f"4: {called}\n"
    other = run(checkout, f"run_pytest {arguments}", PYTEST_XDIST_AUTO_NUM_WORKERS="7")
    assert other.stdout == f"7: {called}\n"
