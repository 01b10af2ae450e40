"""systemd accepts the units as they are, once the paths that they name exist.

``systemd-analyze verify`` ends with 0 on a misspelt key, so what it prints counts: nothing. The
tests below show that it complains of what a unit can get wrong.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.device.config import STOP_S
from hwsync.device.life import KILL_S
from tests.support.programs import require_program

UNITS = Path(__file__).resolve().parents[2] / "scripts" / "systemd"
COORDINATOR = "hwsync-coordinator.service"
DEVICE = "hwsync-device@.service"
BINARIES = "/opt/hwsync/bin"
SECONDS = 60  # for one systemd-analyze

Edit = tuple[str, str]


def settings(unit: str) -> list[str]:
    """The unit's lines without comments."""
    lines = (UNITS / unit).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "["))]


def verify(directory: Path, unit: str, edit: Edit | None = None) -> str:
    """What systemd says of a copy of the unit with the paths of this machine and one edit."""
    binaries = directory / "bin"
    binaries.mkdir(exist_ok=True)
    for program in ("hwsync", "hwsync-device"):
        (binaries / program).write_text("#!/bin/sh\n")
        (binaries / program).chmod(0o755)
    text = (UNITS / unit).read_text(encoding="utf-8")
    assert BINARIES in text
    text = text.replace(BINARIES, str(binaries))
    if edit is not None:
        assert edit[0] in text
        text = text.replace(*edit)
    copy = directory / unit.replace("@.", "@pi-1.x_2.")
    copy.write_text(text)
    done = subprocess.run(
        [require_program("systemd-analyze", "systemd"), "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if edit is None:
        assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", [COORDINATOR, DEVICE])
def test_systemd_has_nothing_to_say(tmp_path: Path, unit: str) -> None:
    assert verify(tmp_path, unit) == ""


@pytest.mark.parametrize("unit", [COORDINATOR, DEVICE])
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("RestartSec=", "RestartSecs="), "RestartSecs"),
        (("KillMode=mixed", "KillMode=mild"), "mild"),
        (("TimeoutStopSec=", "TimeoutStopSec=soon"), "soon"),
        (("Type=notify", "Type=notice"), "notice"),
        (("NotifyAccess=main", "NotifyAccess=mine"), "mine"),
        (("WatchdogSec=60", "WatchdogSec=often"), "often"),
        (("/bin/hwsync", "/bin/hwsink"), "hwsink"),
    ],
    ids=[
        "misspelt key",
        "unknown value",
        "no time",
        "no type",
        "no access",
        "no watchdog",
        "no such program",
    ],
)
def test_systemd_says_what_is_wrong(tmp_path: Path, unit: str, edit: Edit, said: str) -> None:
    assert said in verify(tmp_path, unit, edit)


@pytest.mark.parametrize("unit", [COORDINATOR, DEVICE])
def test_a_unit_comes_back_and_its_stop_reaches_every_process(unit: str) -> None:
    wanted = {"Restart=always", "KillMode=mixed", "After=network-online.target"}
    found = settings(unit)
    assert wanted <= {line.replace(" mosquitto.service", "") for line in found}
    assert any(line.startswith("RestartSec=") for line in found)


@pytest.mark.parametrize("unit", [COORDINATOR, DEVICE])
def test_systemd_waits_for_ready_and_ends_a_loop_that_is_stuck(unit: str) -> None:
    assert {"Type=notify", "NotifyAccess=main", "WatchdogSec=60"} <= set(settings(unit))
    # Where the broker is away, the start is prolonged by the service itself.
    assert not any(line.startswith("TimeoutStartSec=") for line in settings(unit))


def test_each_board_has_a_state_folder_and_a_name_of_its_own() -> None:
    found = settings(DEVICE)
    assert "StateDirectory=hwsync-device-%i" in found
    assert f"ExecStart={BINARIES}/hwsync-device --user %i" in found


def test_a_stop_has_the_time_that_the_daemon_takes() -> None:
    (line,) = [line for line in settings(DEVICE) if line.startswith("TimeoutStopSec=")]
    assert int(line.partition("=")[2]) > STOP_S + KILL_S
    assert "ExecReload=/bin/kill -HUP $MAINPID" in settings(DEVICE)


def test_the_coordinators_database_is_in_var_lib_hwsync() -> None:
    assert "StateDirectory=hwsync" in settings(COORDINATOR)


@pytest.mark.parametrize(
    ("unit", "command"),
    [
        (COORDINATOR, ["-c", "from hwsync.cli import main; main()", "coordinator"]),
        (DEVICE, ["-c", "from hwsync.device.service import main; main()"]),
    ],
)
def test_the_program_takes_the_units_arguments(
    unit: str, command: list[str], environment_of: Callable[..., dict[str, str]]
) -> None:
    (start,) = [line for line in settings(unit) if line.startswith("ExecStart=")]
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        env=environment_of(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    for option in (word for word in start.split() if word.startswith("--")):
        assert option in done.stdout
