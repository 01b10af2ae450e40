"""systemd accepts the units as they are installed, and finds them closed.

``systemd-analyze verify`` ends with 0 on a misspelt key, so what it prints counts: nothing. The
tests below show that it complains of what a unit can get wrong. What the units do on a systemd
that runs is in ``test_units_booted.py``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsync.device.config import STOP_S
from hwsync.device.life import KILL_S, LEAVE_S
from hwsync.systemd import BINARIES, FOLDERS, GROUPS, UNITS, Machine, Part, Wanted
from tests.support.programs import require_program

PACKAGED = Path(__file__).resolve().parents[2] / "hwsync" / "systemd"
COORDINATOR = "hwsync-coordinator.service"
BROKER = "hwsync-broker.service"
DEVICE = "hwsync-device@.service"
ANALYST = "hwsync-analyst@.service"
ALL = [COORDINATOR, BROKER, DEVICE, ANALYST]
NAME = "pi-1.x_2"
SECONDS = 60  # for one systemd-analyze

VARIANTS = {
    "coordinator": (Wanted(Part.COORDINATOR, connection="/etc/hwsync/c.toml"), 1.5),
    "broker": (Wanted(Part.BROKER), 1.5),
    "broker-mosquitto": (Wanted(Part.BROKER), 1.5),
    "device": (Wanted(Part.DEVICE, NAME), 3.5),
    "device-gpio": (Wanted(Part.DEVICE, NAME, gpio=True, connection="/etc/hwsync/d.toml"), 3.7),
    "device-none": (Wanted(Part.DEVICE, NAME, isolated=False), 2.0),
    "analyst": (Wanted(Part.ANALYST, NAME, connection="/etc/hwsync/a.toml"), 1.8),
}

Edit = tuple[str, str]


def settings(unit: str) -> list[str]:
    """The unit's lines without comments."""
    lines = (PACKAGED / unit).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "["))]


def analyse(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_program("systemd-analyze", "systemd"), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def installed(directory: Path, variant: str, edit: Edit | None = None) -> str:
    """The unit with all that belongs to it, for this machine's paths, with one edit."""
    binaries = directory / "bin"
    binaries.mkdir(exist_ok=True)
    for program in ("hwsync", "hwsync-device", "mosquitto"):
        (binaries / program).write_text("#!/bin/sh\n")
        (binaries / program).chmod(0o755)
    mosquitto = str(binaries / "mosquitto") if variant.endswith("mosquitto") else None
    wanted, _ = VARIANTS[variant]
    edited = edit is None
    for path, text in wanted.texts(Machine(binaries, mosquitto, frozenset(GROUPS))).items():
        if path.is_relative_to(UNITS):
            place = directory / path.relative_to(UNITS)
            place.parent.mkdir(exist_ok=True)
            if edit is not None and edit[0] in text:
                edited, text = True, text.replace(*edit)
            assert BINARIES not in text or path.name.startswith("hwsync-device"), "in comments only"
            place.write_text(text)
    assert edited, f"{edit} changes nothing"
    unit = directory / wanted.unit
    if not unit.exists():
        unit.symlink_to(directory / wanted.file)
    return str(unit)


def verify(directory: Path, variant: str, edit: Edit | None = None) -> str:
    """What systemd says of it."""
    done = analyse("verify", "--man=no", installed(directory, variant, edit))
    if edit is None:
        assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def exposure(directory: Path, variant: str, edit: Edit | None = None) -> float:
    """0 to 10, as systemd reckons it."""
    unit = installed(directory, variant, edit)
    done = analyse("security", "--offline=true", "--no-pager", unit)
    (found,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    return float(found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_systemd_has_nothing_to_say(tmp_path: Path, variant: str) -> None:
    assert verify(tmp_path, variant) == ""


@pytest.mark.parametrize(
    ("variant", "edit", "said"),
    [
        *(
            (variant, edit, said)
            for variant in ("coordinator", "broker", "device", "analyst")
            for edit, said in (
                (("RestartSec=", "RestartSecs="), "RestartSecs"),
                (("TimeoutStopSec=", "TimeoutStopSec=soon"), "soon"),
                (("Type=notify", "Type=notice"), "notice"),
                (("WatchdogSec=60", "WatchdogSec=often"), "often"),
                (("/bin/hwsync", "/bin/hwsink"), "hwsink"),
                (("=@system-service", "=@no-such-service"), "no-such-service"),
            )
        ),
        ("device", ("SetCredential=device.toml:", "SetCredential="), "Invalid syntax"),
        ("device-gpio", ("DevicePolicy=closed", "DevicePolicy=shut"), "shut"),
        ("device-none", ("ProtectKernelLogs=", "ProtectKernelLog="), "ProtectKernelLog"),
        ("broker-mosquitto", ("/bin/mosquitto", "/bin/mosca"), "mosca"),
    ],
)
def test_systemd_says_what_is_wrong(tmp_path: Path, variant: str, edit: Edit, said: str) -> None:
    assert said in verify(tmp_path, variant, edit)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_unit_is_closed(tmp_path: Path, variant: str) -> None:
    assert exposure(tmp_path, variant) <= VARIANTS[variant][1]


@pytest.mark.parametrize(
    ("variant", "edit"),
    [
        ("coordinator", ("PrivateUsers=yes", "")),
        ("analyst", ("RestrictNamespaces=yes", "")),
        ("broker-mosquitto", ("WatchdogSec=0", "ProtectClock=no")),  # in a file beside the unit
        ("device", ("PrivateDevices=yes", "")),
        ("device-none", ("RestrictNamespaces=yes", "")),
    ],
)
def test_a_unit_that_is_opened_is_seen_to_be(tmp_path: Path, variant: str, edit: Edit) -> None:
    (tmp_path / "open").mkdir()
    assert exposure(tmp_path / "open", variant, edit) > exposure(tmp_path, variant)


@pytest.mark.parametrize("unit", ALL)
def test_a_unit_comes_back_and_its_stop_reaches_every_process(unit: str) -> None:
    found = settings(unit)
    assert {"Restart=always", "KillMode=mixed", "Wants=network-online.target"} <= set(found)
    assert {"RestartSec=2", "StartLimitIntervalSec=0"} <= set(found)


@pytest.mark.parametrize("unit", ALL)
def test_systemd_waits_for_ready_and_ends_a_loop_that_is_stuck(unit: str) -> None:
    assert {"Type=notify", "NotifyAccess=main", "WatchdogSec=60"} <= set(settings(unit))
    # Where the broker is away, the start is prolonged by the service itself.
    assert not any(line.startswith("TimeoutStartSec=") for line in settings(unit))


@pytest.mark.parametrize(
    ("unit", "name"),
    [(COORDINATOR, "hwsync.toml"), (DEVICE, "device.toml"), (ANALYST, "hwsync.toml")],
)
def test_a_connection_file_that_is_missing_stops_no_start(unit: str, name: str) -> None:
    """LoadCredential alone fails; SetCredential of the same name stands in (systemd.exec(5))."""
    found = settings(unit)
    assert any(line.startswith(f"LoadCredential={name}:/etc/hwsync/") for line in found)
    assert f"SetCredential={name}:#" in found
    assert sum(line.endswith(f"%d/{name}") for line in found) == 1


def test_each_board_has_a_state_folder_and_a_name_of_its_own() -> None:
    found = settings(DEVICE)
    assert "StateDirectory=hwsync-device-%i" in found
    start = f"ExecStart={BINARIES}/hwsync-device --user %i --config %d/device.toml"
    assert start in found


def test_a_stop_has_the_time_that_the_daemon_takes() -> None:
    """By itself without a configuration; a longer one is asked for by the daemon."""
    (line,) = [line for line in settings(DEVICE) if line.startswith("TimeoutStopSec=")]
    assert int(line.partition("=")[2]) >= STOP_S + KILL_S + LEAVE_S
    assert all("ExecReload=/bin/kill -HUP $MAINPID" in settings(unit) for unit in ALL)


def test_a_device_keeps_what_isolation_and_the_end_of_a_run_need() -> None:
    """With anything mounted over /proc the kernel gives bubblewrap none, and what /proc hides
    cannot be ended."""
    broken = ("ProtectKernelTunables", "ProtectKernelLogs", "ProtectHostname", "RestrictNamespaces")
    broken += ("ProtectControl", "ProtectProc", "ProcSubset", "MemoryDenyWriteExecute")
    assert not [line for line in settings(DEVICE) if line.startswith(broken)]
    assert {"Delegate=yes", "OOMPolicy=continue"} <= set(settings(DEVICE))
    for drop_in in ("isolation-none.conf", "gpio.conf"):
        assert not [line for line in settings(drop_in) if line.startswith(broken[4:])]


def test_an_analyst_has_what_its_runner_needs_and_the_file_of_its_account() -> None:
    found = settings(ANALYST)
    assert not [line for line in found if line.startswith(("ProtectProc", "MemoryDeny"))]
    assert "OOMPolicy=continue" in found
    start = f"ExecStart={BINARIES}/hwsync analyst --dir /etc/hwsync/analysers --name %i"
    assert any(line.startswith(start) for line in found)
    assert "LoadCredential=hwsync.toml:/etc/hwsync/analysts/%i.toml" in found
    texts = Wanted(Part.ANALYST, "check").texts(Machine(Path("/opt/hwsync/bin")))
    closed = "d /etc/hwsync/analysers 0750 root hwsync-analyst -"
    assert closed in texts[FOLDERS / "hwsync-analyst.conf"]


def test_the_coordinators_database_is_in_var_lib_hwsync() -> None:
    assert "StateDirectory=hwsync" in settings(COORDINATOR)


@pytest.mark.parametrize(
    ("unit", "command"),
    [
        (COORDINATOR, ["-c", "from hwsync.cli import main; main()", "coordinator"]),
        (BROKER, ["-c", "from hwsync.cli import main; main()", "broker"]),
        (ANALYST, ["-c", "from hwsync.cli import main; main()", "analyst"]),
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
