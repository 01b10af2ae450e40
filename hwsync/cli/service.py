"""``hwsync service``: the systemd units of this machine, from this environment.

The law: nothing is half done for a file that is not ours; everything that is written or called is
said; state and configuration stay.
"""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import click

import hwsync
from hwsync.cli import say
from hwsync.cli.common import FOLDER, JSON, Settings, find_mosquitto
from hwsync.installing import SERVICES, environment
from hwsync.lab.folder import Folder
from hwsync.protocol.errors import HwsyncError, NotFound, UsageError
from hwsync.systemd import (
    ACCOUNTS,
    CONFIGURATION,
    FOLDERS,
    NAMED,
    UNITS,
    Machine,
    Part,
    Wanted,
    wanted,
)
from hwsync.systemd.written import Found, look, marked, remove, write

ROOT: Final = Path("/")
HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What ProtectHome and PrivateTmp take out of the units' sight."""
CALL_S: Final = 60.0  # for one call of systemctl; it waits for no start
SHOWN: Final = ("Id", "LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "MainPID",
                "NRestarts", "ActiveEnterTimestamp", "StatusText")  # fmt: skip

DESTDIR = click.option(
    "--destdir",
    type=FOLDER,
    metavar="DIR",
    help="Write below DIR instead, for an image, and call nothing.",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be written and called.")
WORDS = click.argument("units", nargs=-1, metavar="UNIT…")


@dataclass(frozen=True, slots=True)
class Target:
    """Where files go, and whether anything is done."""

    destdir: Path | None
    dry_run: bool

    def path(self, below: PurePosixPath) -> Path:
        return (self.destdir or ROOT) / below

    def call(self, *command: str) -> None:
        """Have systemd do something. Raises ``HwsyncError``."""
        if self.destdir is not None:
            return
        say.line(f"{'would call' if self.dry_run else 'calling'} {' '.join(command)}")
        if not self.dry_run:
            _call(command)

    def require(self) -> None:
        """Raises ``HwsyncError`` where units cannot be changed."""
        if self.destdir is not None or self.dry_run:
            return
        if os.geteuid() != 0:
            raise UsageError(
                "only root can change the machine's units",
                "sudo hwsync service …, or look first with --dry-run",
            )
        _require_systemd()


@click.group()
def service() -> None:
    """Install, remove and show hwsync's systemd units on this machine.

    UNIT is coordinator, broker, device NAME, or analyst NAME; several may be given.
    """


@service.command()
@WORDS
@click.option("--connection", metavar="FILE", help="The TOML file that systemd hands over at each "
              "start (default /etc/hwsync/coordinator.toml, /etc/hwsync/device.toml, "
              "/etc/hwsync/analysts/NAME.toml).")  # fmt: skip
@click.option(
    "--gpio", is_flag=True, help="Devices: let programs use GPIO, I2C, SPI, serial lines."
)
@click.option("--no-isolation", is_flag=True, help="Devices: programs run without bubblewrap; the "
              "unit is closed further.")  # fmt: skip
@click.option("--no-mosquitto", is_flag=True, help="Broker: hwsync's own, also beside a mosquitto.")
@click.option("--no-start", is_flag=True, help="Start it at the next boot, not now.")
@DRY_RUN
@DESTDIR
def install(units: tuple[str, ...], connection: str | None, gpio: bool, no_isolation: bool,
            no_mosquitto: bool, no_start: bool, dry_run: bool,
            destdir: Path | None) -> None:  # fmt: skip
    """Write units, accounts and folders, and start them: now, and at each boot."""
    asked = wanted(units, connection=connection, gpio=gpio, isolated=not no_isolation)
    if connection is not None and any(one.part is Part.BROKER for one in asked):
        raise UsageError("--connection is not for a broker", "its file is /etc/hwsync/broker.conf")
    target = Target(destdir, dry_run)
    target.require()
    machine = _machine(no_mosquitto)
    _require_visible(machine, strict=destdir is None and not dry_run)
    texts: dict[PurePosixPath, str] = {}
    for one in asked:
        texts |= one.texts(machine)
    stale = [path for one in asked for path in one.own if path not in texts]
    _require_ours(target, [*texts, *stale])
    before = {below for below in texts if look(target.path(below)) is Found.OURS}
    touched = {below for below, text in texts.items() if _write(target, below, marked(text))}
    touched |= {below for below in stale if _remove(target, below)}
    for below, text in (item for one in asked for item in one.first().items()):
        if look(target.path(below)) is Found.NOTHING:
            _write(target, below, text)
    if not touched:
        say.line("everything was as it should be")
    _announce(target, asked, machine, start=not no_start)
    others = [
        one.unit for one in asked if before & {*one.own} and touched & {*one.own, *one.shared}
    ]
    if others and destdir is None:
        say.line(f"what runs takes the change over with: systemctl restart {' '.join(others)}")


def _announce(target: Target, asked: Sequence[Wanted], machine: Machine, *, start: bool) -> None:
    """Tell systemd."""
    snippets = [path for one in asked for path in (*one.own, *one.shared)]
    for folder, command in ((ACCOUNTS, ["systemd-sysusers"]),
                            (FOLDERS, ["systemd-tmpfiles", "--create"])):  # fmt: skip
        if found := [str(ROOT / path) for path in snippets if path.parent == folder]:
            target.call(*command, *dict.fromkeys(found))
    if any(one.part is Part.BROKER for one in asked):
        _hand_over(target)
    target.call("systemctl", "daemon-reload")
    # Not waited for: a start takes until the broker answers.
    now = ["--now", "--no-block"] if start else []
    target.call("systemctl", "enable", *now, *(one.unit for one in asked))
    if (
        target.destdir is None
        and machine.mosquitto
        and any(one.part is Part.BROKER for one in asked)
    ):
        say.line("Debian's own mosquitto.service must not have the same port: "
                   "systemctl disable --now mosquitto")  # fmt: skip


def _hand_over(target: Target) -> None:
    """A lab that was made before its broker had an account."""
    if target.destdir is None and not target.dry_run:
        lab = Folder(target.path(CONFIGURATION))
        if lab.hand_over():
            say.line(f"what the broker reads in {lab.path} belongs to its group now")


@service.command()
@WORDS
@DRY_RUN
@DESTDIR
def uninstall(units: tuple[str, ...], dry_run: bool, destdir: Path | None) -> None:
    """Stop units and remove what `install` wrote. State and configuration stay."""
    asked = wanted(units)
    target = Target(destdir, dry_run)
    target.require()
    for one in asked:
        there = [path for path in one.own if look(target.path(path)) is not Found.NOTHING]
        if not there:
            raise NotFound(f"{one.unit} is not installed here", "hwsync service status")
        target.call("systemctl", "disable", "--now", one.unit)
        for below in there:
            _remove(target, below)
        if one.shared and not _instances(target.path(UNITS), one.part) - {one.unit}:
            for below in one.shared:
                if look(target.path(below)) is not Found.NOTHING:
                    _remove(target, below)
        target.call("systemctl", "daemon-reload")
        say.line(f"kept: {one.state} and /etc/hwsync" if one.state else "kept: /etc/hwsync")


@service.command()
@JSON
@click.pass_obj
def status(settings: Settings) -> None:
    """One line for each unit. The exit code is 1 where one is not active, or there is none."""
    _require_systemd()
    units = [Wanted(part).unit for part in (Part.BROKER, Part.COORDINATOR)]
    listed = _call(["systemctl", "list-units", "--all", "--plain", "--no-legend",
                    *(f"hwsync-{part}@*.service" for part in NAMED)])  # fmt: skip
    named = {line.split()[0] for line in listed.splitlines() if line.strip()}
    named = named.union(*(_instances(ROOT / UNITS, part) for part in NAMED))
    shown = _call(["systemctl", "show", "-p", ",".join(SHOWN), *units, *sorted(named)])
    found = [unit for block in shown.strip().split("\n\n") if (unit := _fields(block))]
    if not found:
        raise NotFound("no unit of hwsync is installed here", "hwsync service install --help")
    for unit in found:
        say.either(settings.as_json, unit, _line(unit))
    sys.exit(any(unit["active"] != "active" for unit in found))


def _fields(block: str) -> dict[str, Any] | None:
    """What ``systemctl show`` says of one unit; None: it is not there."""
    said = dict(line.partition("=")[::2] for line in block.splitlines())
    if said.get("LoadState") in (None, "not-found"):
        return None

    def number(name: str) -> int:
        return int(said[name]) if said.get(name, "").isdecimal() else 0

    return {
        "unit": said.get("Id", ""),
        "active": said.get("ActiveState", ""),
        "sub": said.get("SubState", ""),
        "result": said.get("Result", ""),
        "at_boot": said.get("UnitFileState", ""),
        "pid": number("MainPID"),
        "restarts": number("NRestarts"),
        "since": said.get("ActiveEnterTimestamp", ""),
        "status": said.get("StatusText", ""),
    }


def _line(unit: dict[str, Any]) -> str:
    parts = [f"{unit['active']} ({unit['sub']})"]
    if unit["result"] not in ("", "success"):
        parts.append(f"result {unit['result']}: journalctl -u {unit['unit']}")
    if unit["active"] == "active" and unit["since"]:
        parts.append(f"since {unit['since']}")
    if unit["restarts"]:
        parts.append(f"restarted {unit['restarts']} times")
    if unit["at_boot"] != "enabled":
        parts.append("not started at boot")
    parts += [unit["status"]] if unit["status"] else []
    return f"{unit['unit']:32} {', '.join(parts)}"


def _machine(no_mosquitto: bool) -> Machine:
    """This one. Raises ``UsageError``."""
    binaries = Path(sysconfig.get_path("scripts"))
    for name in ("hwsync", "hwsync-device"):
        if not (binaries / name).exists():
            raise UsageError(
                f"there is no {binaries / name}: hwsync is not installed in {sys.prefix}",
                environment(),
            )
    groups = frozenset(group.gr_name for group in grp.getgrall())
    return Machine(binaries, None if no_mosquitto else find_mosquitto(), groups)


def _require_visible(machine: Machine, *, strict: bool) -> None:
    """The services see neither home folders nor /tmp. Raises ``UsageError``, or says it."""
    package = Path(hwsync.__file__).parent
    for path in (machine.binaries, Path(sys.executable).resolve(), package):
        if any(path.is_relative_to(folder) for folder in HIDDEN):
            error = UsageError(
                f"the services cannot see {path}: home folders and /tmp are closed to them",
                f"{environment()}, then {SERVICES}/bin/hwsync service …",
            )
            if strict:
                raise error
            say.line(f"hwsync: {error}", err=True)
            return


def _require_ours(target: Target, paths: Iterable[PurePosixPath]) -> None:
    """Before anything is done. Raises ``HwsyncError`` that names every file that is in the way."""
    found = {target.path(below): look(target.path(below)) for below in paths}
    wrong = [
        f"{path} was {what.value}"
        for path, what in found.items()
        if what in (Found.FOREIGN, Found.CHANGED)
    ]
    if wrong:
        raise HwsyncError(
            f"{'; '.join(wrong)}: nothing is changed",
            "move it away; a change of your own belongs into `systemctl edit UNIT`",
        )


def _write(target: Target, below: PurePosixPath, text: str) -> bool:
    path = target.path(below)
    if target.dry_run:
        if look(path) is not Found.NOTHING and path.read_text(encoding="utf-8") == text:
            return False
        say.line(f"would write {path}:")
        for line in text.splitlines():
            say.line(f"    {line}")
        return True
    changed = write(path, text)
    if changed:
        say.line(f"wrote {path}")
    return changed


def _remove(target: Target, below: PurePosixPath) -> bool:
    path = target.path(below)
    found = look(path)
    if found is Found.NOTHING:
        return False
    if found is not Found.OURS:
        say.line(f"left {path}: it was {found.value}")
        return False
    say.line(f"{'would remove' if target.dry_run else 'removed'} {path}")
    if not target.dry_run:
        remove(path)
    return True


def _instances(folder: Path, part: Part) -> set[str]:
    """The devices, or analysts, whose drop-ins, or whose links for the boot, are there."""
    one = f"hwsync-{part}@?*.service"
    found = {path.name.removesuffix(".d") for path in folder.glob(f"{one}.d")}
    return found | {path.name for path in folder.glob(f"*.wants/{one}")}


def _require_systemd() -> None:
    """Raises ``HwsyncError`` where systemd does not run."""
    running = shutil.which("systemctl") is not None
    if not running or _call(["systemctl", "is-system-running"], check=False).strip() == "offline":
        raise HwsyncError(
            "systemd does not run this machine",
            "hwsync up starts everything without it; --destdir DIR writes units for another",
        )


def _call(command: Sequence[str], *, check: bool = True) -> str:
    """What it says. Raises ``HwsyncError``."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CALL_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HwsyncError(f"{' '.join(command)}: {error}", "is systemd well?") from None
    if check and done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise HwsyncError(f"{' '.join(command)}: {said}", "systemctl status 'hwsync*' says more")
    return done.stdout


COMMANDS = (service,)
