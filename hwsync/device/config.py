"""What a board is told: command line, environment, ``/etc/hwsync/device.toml``, defaults.

The law: every key stands in ``KEYS``, those of the connection among them (``connection.KEYS``); the
rest is the law of ``configfile``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwsync import connection
from hwsync.configfile import Given, Key, gather, is_flag, is_text
from hwsync.protocol import limits
from hwsync.protocol.jsons import is_number
from hwsync.runner import Isolation, Limits, Settings, Start

DEFAULT_FILE: Final = Path("/etc/hwsync/device.toml")
DOCUMENT: Final = "docs/device.md"
STOP_S: Final = 10.0  # what a running program gets at SIGTERM; systemd's TimeoutStopSec is above
END_GRACE_S: Final = 2.0
MEMORY_SHARE: Final = 0.75  # of the machine's memory, for programs


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(is_text(one) for one in value)


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: is_number(value) and low <= value <= high


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 10**9


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: value in names


def _variables(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_text(name) and "=" not in name and isinstance(text, str) and "\0" not in text
        for name, text in value.items()
    )


PATH: Final = "path"
COUNT: Final = "whole number, 0: no limit"
_TIMES: Final = _number(*limits.TIMEOUT_S)

KEYS: Final = (
    Key("user", "text", limits.is_user, "the host's name", "the board's name in every topic"),
    *connection.KEYS,
    Key("credentials", PATH, is_text, "none",
        "a file of two lines, user and password, instead of `account` and `password`",
        beside=True),
    Key("state_dir", PATH, is_text, "`$STATE_DIRECTORY`, else `~/.local/state/hwsync/device-BOARD`",
        "where the journal is"),
    Key("max_timeout_s", "seconds, 0.1 to 2592000", _TIMES, "none",
        "no program runs longer on this board, whatever its request says"),
    Key("max_message", "bytes, 8192 to 4194304", _number(*limits.MESSAGE_BYTES),
        "found out", "the largest message that the broker takes"),
    Key("stop_s", "seconds, 0 to 3600", _number(0, 3600), f"{STOP_S:g}",
        "what a running program gets to end by itself at SIGTERM"),
    Key("end_grace_s", "seconds, 0 to 60", _number(0, 60), f"{END_GRACE_S:g}",
        "what a program gets from SIGINT to SIGTERM where it is ended; 0: it is ended at once"),
    Key("allow_root", "true or false", is_flag, "false",
        "started as root, run programs as root; `run_as` is better"),
    Key("trust", "list of public keys", _texts, "none",
        "only commands that one of these keys signed are run (`hwsync key show`)"),
    Key("programs.runner", "`warm` or `cold`", _one_of(*Start), "`warm`",
        "fork a ready interpreter, or start a fresh one for each run"),
    Key("programs.python", PATH, is_text, "the daemon's own",
        "the interpreter of programs, Python 3.11 or later"),
    Key("programs.preload", "list of modules", _texts, "none",
        "what the warm interpreter has imported already"),
    Key("programs.interpreter", "list of texts", _texts, "none",
        "another one and its options, such as `[\"/usr/bin/bash\"]`: it gets the program's "
        "file, then the arguments"),
    Key("programs.directory", PATH, is_text, "`work` in the state folder",
        "where programs run"),
    Key("programs.empty_directory", "true or false", is_flag,
        "true, unless `directory` is given", "empty it before and after each run"),
    Key("programs.run_as", "account", is_text, "none", "for a daemon of root: who runs them"),
    Key("programs.environment", "table of texts", _variables, "none",
        "variables beside the daemon's own; an empty text takes one away"),
    Key("limits.cpu_s", "seconds, 0: no limit", _number(0, 10**9), "0",
        "processor time of each process"),
    Key("limits.memory_mb", COUNT, _count, "three quarters of the machine's",
        "memory of all processes of a run together, and of each"),
    Key("limits.processes", COUNT, _count, "256", "processes and threads of a run"),
    Key("limits.open_files", COUNT, _count, "1024", "open files of each process"),
    Key("limits.file_size_mb", COUNT, _count, "0", "size of each file that it writes"),
    Key("limits.output_mb", COUNT, _count, "100", "standard output and error together"),
    Key("limits.free_disk_mb", COUNT, _count, "100",
        "what must stay free on the disk where programs run"),
    Key("isolation.kind", "`none` or `bwrap`", _one_of(*Isolation), "`none`",
        "`bwrap`: each run in bubblewrap; where that is not there, nothing runs"),
    Key("isolation.network", "true or false", is_flag, "false",
        "with bwrap: let it use the network"),
    Key("isolation.devices", "list of paths", _texts, "none",
        "with bwrap: devices that it may use, such as `/dev/gpiochip0`"),
    Key("isolation.readable", "list of paths", _texts, "none",
        "with bwrap: what else it may read"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Config(Given):
    """The effective configuration: what somebody gave (``get``), by the names of ``KEYS``."""

    def settings(self, state: Path, environment: Mapping[str, str]) -> Settings:
        """How programs run; ``environment`` is what the daemon passes on."""
        get = self.get
        given = get("programs.directory")
        variables = {**environment, **get("programs.environment", {})}

        def limit(name: str, default: int) -> int | None:
            return get(f"limits.{name}", default) or None

        python = {"python": get("programs.python")} if get("programs.python") else {}
        return Settings(
            Path(given) if given else state / "work",
            empty_directory=get("programs.empty_directory", given is None),
            environment={name: text for name, text in variables.items() if text},
            start=Start(get("programs.runner", Start.WARM)),
            preload=tuple(get("programs.preload", ())),
            interpreter=tuple(get("programs.interpreter", ())),
            run_as=get("programs.run_as"),
            limits=Limits(
                cpu_s=limit("cpu_s", 0),
                memory_mb=limit("memory_mb", _share_of_memory()),
                processes=limit("processes", 256),
                open_files=limit("open_files", 1024),
                file_size_mb=limit("file_size_mb", 0),
                output_mb=limit("output_mb", 100),
                free_disk_mb=limit("free_disk_mb", 100),
            ),
            isolation=Isolation(get("isolation.kind", Isolation.NONE)),
            end_grace_s=get("end_grace_s", END_GRACE_S),
            network=get("isolation.network", False),
            devices=tuple(get("isolation.devices", ())),
            readable=tuple(get("isolation.readable", ())),
            **python,
        )


def load(file: Path | None, options: Mapping[str, Any]) -> Config:
    """The configuration of ``file`` (None: the default one, where it exists) under ``options``.

    ``options`` are those of the command line by key, None where not given. Raises ``UsageError``.
    """
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    return Config(*gather(file, KEYS, connection.VARIABLES, options, DOCUMENT))


def _share_of_memory() -> int:
    """``MEMORY_SHARE`` of this machine's memory, in megabytes of 1,000,000 bytes."""
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MEMORY_SHARE / 10**6)
