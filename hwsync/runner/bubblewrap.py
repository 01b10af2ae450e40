"""What a program sees with ``isolation = "bwrap"``: a system to read, and its own folder.

The law: nothing is visible that is not named here or in the configuration; asked for and not
available is an error, and nothing runs without.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import CannotRun
from hwsync.runner.settings import Isolation, Settings

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
CONFIGURATION: Final = (
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group"),
    *("/etc/nsswitch.conf", "/etc/python3", "/etc/python3.11", "/etc/mime.types"),
    *("/etc/hosts", "/etc/host.conf"),  # localhost is there without a network
    *("/etc/fonts", "/var/cache/fontconfig"),
)
FOR_NETWORK: Final = (
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/gai.conf",
)
TMP_MB: Final = 100  # of memory for a private /tmp


def inside(settings: Settings, beside: Path | None) -> list[str]:
    """The command that the interpreter's own follows. Raises ``CannotRun``."""
    program = shutil.which("bwrap", path=os.environ.get("PATH", os.defpath))
    if program is None:
        raise CannotRun(
            "isolation bwrap is asked for, and bubblewrap is not installed",
            "apt-get install bubblewrap",
        )
    # Process 1 is the interpreter's (``execute.stand_by``): it tells exit codes from signals.
    command = [program, "--unshare-all", "--die-with-parent", "--as-pid-1"]
    if settings.network:
        command.append("--share-net")
    paths = [*SYSTEM, *CONFIGURATION, *(FOR_NETWORK if settings.network else ())]
    for path in paths:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--ro-bind-try", path, path]
    tmp = min(settings.limits.memory_mb or TMP_MB, TMP_MB) * 1_000_000
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(tmp), "--tmpfs", "/tmp"]
    # After the folders that hide what is below them: an environment may lie in /tmp.
    for path in _of_interpreter(settings):
        command += ["--ro-bind-try", path, path]
    for path in settings.readable:
        command += ["--ro-bind", path, path]
    for path in settings.devices:
        command += ["--dev-bind", path, path]
    if settings.devices:
        command += ["--ro-bind", "/sys", "/sys"]
    for path in filter(None, (settings.directory, beside)):
        command += ["--bind", str(path), str(path)]
    return [*command, "--chdir", str(settings.directory), "--"]


def visible(settings: Settings, paths: Iterable[str]) -> list[str]:
    """Those of an interpreter's paths that a program sees, which is all of them without this."""
    if settings.isolation is not Isolation.BWRAP:
        return list(paths)
    shown = [Path(one) for one in (*SYSTEM, *_of_interpreter(settings), *settings.readable)]
    return [path for path in paths if any(Path(path).is_relative_to(one) for one in shown)]


def _of_interpreter(settings: Settings) -> list[str]:
    """Where the interpreter lives, beside the system's folders."""
    found = []
    if settings.interpreter:
        found.append(str(Path(settings.interpreter[0]).parent))
    if settings.python == sys.executable:
        found += [sys.prefix, sys.base_prefix]
    else:
        for path in (Path(settings.python), Path(settings.python).resolve()):
            if path.parent.name == "bin":
                found.append(str(path.parent.parent))
    return [path for path in dict.fromkeys(found) if path not in ("/", "/usr", *SYSTEM)]
