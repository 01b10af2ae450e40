"""The units that come with hwsync, made for one environment and one machine.

The law: only texts. What stands in the files beside this module is what systemd gets, but for the
folder of the commands, which is ``BINARIES`` there; who writes and starts is ``hwsync service``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final

from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import USER_FORM, is_user

BINARIES: Final = "/opt/hwsync/bin"  # in the units as they are
UNITS: Final = PurePosixPath("etc/systemd/system")
ACCOUNTS: Final = PurePosixPath("etc/sysusers.d")
FOLDERS: Final = PurePosixPath("etc/tmpfiles.d")
CONFIGURATION: Final = PurePosixPath("etc/hwsync")
BROKER_CONF: Final = CONFIGURATION / "broker.conf"
OF_INSTANCE: Final = "hwsync.conf"  # beside which an instance's other drop-ins lie; always there
GROUPS: Final = ("gpio", "i2c", "spi", "video", "dialout")  # a Raspberry Pi's; for --gpio
PLAIN: Final = re.compile(r"/[A-Za-z0-9/_.+@:~-]*")
"""What needs no quotes in a unit."""

_FOLDER: Final = "# Where the configuration is.\nd /etc/hwsync 0755 root root -\n"
_ANALYSERS: Final = (
    "# The analysers: they may say what the right answer is.\n"
    "d /etc/hwsync/analysers 0750 root hwsync-analyst -\n"
)
_NOTHING: Final = "# Nothing of its own.\n"


class Part(StrEnum):
    """What can be installed."""

    BROKER = "broker"
    COORDINATOR = "coordinator"
    DEVICE = "device"
    ANALYST = "analyst"


NAMED: Final = (Part.DEVICE, Part.ANALYST)  # a machine may have several: each has a name
_ALL: Final = "coordinator, broker, device NAME, analyst NAME"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the units are made for."""

    binaries: Path  # of hwsync
    mosquitto: str | None = None  # its path; None: hwsync's own broker serves
    groups: frozenset[str] = field(default_factory=frozenset)  # that this machine has


@dataclass(frozen=True, slots=True)
class Wanted:
    """One service, as a person asks for it."""

    part: Part
    name: str = ""  # of a device or analyst
    connection: str | None = None  # the file with broker and login, for systemd to hand over
    gpio: bool = False
    isolated: bool = True  # False: programs run without bubblewrap

    @property
    def unit(self) -> str:
        """What systemctl is told."""
        return f"hwsync-{self.part}@{self.name}.service" if self.name else f"{self._stem}.service"

    @property
    def file(self) -> str:
        """Of the unit: an instance shares it with the others."""
        return f"{self._stem}@.service" if self.part in NAMED else self.unit

    @property
    def _stem(self) -> str:
        return f"hwsync-{self.part}"

    @property
    def state(self) -> str:
        """Where it keeps what an uninstallation leaves; empty: it keeps nothing."""
        if self.part is Part.ANALYST:
            return ""
        if self.part is Part.COORDINATOR:
            return "/var/lib/hwsync"
        return f"/var/lib/{self._stem}{f'-{self.name}' if self.name else ''}"

    @property
    def drop_ins(self) -> PurePosixPath:
        """The folder of what is added to the unit."""
        return UNITS / f"{self.unit}.d"

    @property
    def own(self) -> tuple[PurePosixPath, ...]:
        """Every file that can be this service's alone, below the machine's root."""
        if self.part in NAMED:
            added = [OF_INSTANCE]
            added += ["gpio.conf", "isolation-none.conf"] if self.part is Part.DEVICE else []
            return tuple(self.drop_ins / name for name in added)
        added = ["connection.conf", "mosquitto.conf"]
        return (*(self.drop_ins / name for name in added), UNITS / self.unit, *self._snippets)

    @property
    def shared(self) -> tuple[PurePosixPath, ...]:
        """Those that all devices, or analysts, of the machine have together."""
        return (UNITS / self.file, *self._snippets) if self.part in NAMED else ()

    @property
    def _snippets(self) -> tuple[PurePosixPath, ...]:
        of_account = (ACCOUNTS / f"{self._stem}.conf",) if self.part is not Part.DEVICE else ()
        return (*of_account, FOLDERS / f"{self._stem}.conf")

    def texts(self, machine: Machine) -> dict[PurePosixPath, str]:
        """Every file that it needs, by its path. Raises ``UsageError``."""
        if not PLAIN.fullmatch(str(machine.binaries)):
            raise UsageError(
                f"{machine.binaries}: a unit cannot name such a folder",
                "make hwsync's environment in one without blanks and signs, such as /opt/hwsync",
            )
        if self.connection is not None and not PLAIN.fullmatch(self.connection):
            raise UsageError(
                f"--connection {self.connection}: not a path that a unit can name",
                "an absolute one without blanks and signs",
            )
        text = _packaged(self.file).replace(BINARIES, str(machine.binaries))
        found = {UNITS / self.file: text}
        found[FOLDERS / f"{self._stem}.conf"] = _FOLDER
        if self.part is not Part.DEVICE:
            account = "hwsync" if self.part is Part.COORDINATOR else self._stem
            line = f'u {account} - "hwsync {self.part}" {self.state or "-"}\n'
            found[ACCOUNTS / f"{self._stem}.conf"] = f"# Whom {self.file} runs as.\n{line}"
            if self.part is Part.ANALYST:
                found[FOLDERS / f"{self._stem}.conf"] += _ANALYSERS
                lines = self._connection if self.connection else _NOTHING
                found[self.drop_ins / OF_INSTANCE] = lines
                return found
            if self.connection is not None:
                found[self.drop_ins / "connection.conf"] = self._connection
            if self.part is Part.BROKER and machine.mosquitto:
                text = _packaged("mosquitto.conf").replace("/usr/sbin/mosquitto", machine.mosquitto)
                found[self.drop_ins / "mosquitto.conf"] = text
            return found
        lines = self._connection if self.connection else _NOTHING
        if self.gpio:
            found[self.drop_ins / "gpio.conf"] = _packaged("gpio.conf")
            there = [group for group in GROUPS if group in machine.groups]
            lines += f"\n[Service]\nSupplementaryGroups={' '.join(there)}\n" if there else ""
        if not self.isolated:
            found[self.drop_ins / "isolation-none.conf"] = _packaged("isolation-none.conf")
        found[self.drop_ins / OF_INSTANCE] = lines
        return found

    @property
    def _connection(self) -> str:
        name = "device.toml" if self.part is Part.DEVICE else "hwsync.toml"
        return f"[Service]\nLoadCredential={name}:{self.connection}\n"

    def first(self) -> Mapping[PurePosixPath, str]:
        """What is written where there is none, and then is the machine's own."""
        if self.part is not Part.BROKER:
            return {}
        packaged = files("hwsync.broker").joinpath("broker.conf").read_text(encoding="utf-8")
        return {BROKER_CONF: packaged}


def wanted(words: Sequence[str], **options: object) -> list[Wanted]:
    """``coordinator``, ``broker``, ``device NAME``, ``analyst NAME``, in any number.

    Raises ``UsageError``.
    """
    found: list[Wanted] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word not in list(Part):
            raise UsageError(f"there is no unit {word!r}", f"one of: {_ALL}")
        name = ""
        if word in NAMED:
            if not rest:
                such = "device pi1" if word == Part.DEVICE else "analyst check"
                raise UsageError(f"{word}: whose?", f"{word} NAME, such as: {such}")
            name = rest.pop(0)
            if not is_user(name):
                whose = "board" if word == Part.DEVICE else "analyst"
                raise UsageError(f"{name!r} is no {whose}'s name ({USER_FORM})")
        found.append(Wanted(Part(word), name, **options))  # type: ignore[arg-type]
    if not found:
        raise UsageError("which units?", f"any of: {_ALL}")
    return found


def _packaged(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
