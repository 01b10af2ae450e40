"""What a board is told: command line, environment, ``/etc/hwsync/device.toml``, defaults.

The law: every key stands in ``KEYS``; what is not there, or is not of its kind, is refused with the
file, the key and what would be right. What stands nearer to the person wins: the command line, then
the environment, then the file, then the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwsync.protocol import limits
from hwsync.protocol.errors import UsageError
from hwsync.runner import Isolation, Limits, Settings, Start

DEFAULT_FILE: Final = Path("/etc/hwsync/device.toml")
VARIABLES: Final = {"broker": "HWSYNC_BROKER", "root": "HWSYNC_ROOT"}
COMMAND_LINE: Final = "the command line"
STOP_S: Final = 10.0  # what a running program gets at SIGTERM; systemd's TimeoutStopSec is above
MEMORY_SHARE: Final = 0.75  # of the machine's memory, for programs


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file. ``kind`` is for people; ``accepts`` says whether a value is of it."""

    name: str  # with its table, such as limits.cpu_s
    kind: str
    accepts: Callable[[Any], bool]
    default: str  # for people
    meaning: str


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(_text(one) for one in value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(low: float, high: float) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        )

    return accepts


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 10**9


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: value in names


def _variables(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _text(name) and "=" not in name and isinstance(text, str) and "\0" not in text
        for name, text in value.items()
    )


PATH: Final = "path"
COUNT: Final = "whole number, 0: no limit"
_TIMES: Final = _number(*limits.TIMEOUT_S)

KEYS: Final = (
    Key("user", "text", limits.is_user, "the host's name", "the board's name in every topic"),
    Key("broker", "URL", _text, "`mqtt://127.0.0.1:1883`", "the broker"),
    Key("root", "text", _text, "`hw`", "the root of the topics"),
    Key("credentials", PATH, _text, "none", "a file of two lines: user, password"),
    Key("state_dir", PATH, _text, "`$STATE_DIRECTORY`, else `~/.local/state/hwsync/device-USER`",
        "where the journal is"),
    Key("max_timeout_s", "seconds, 0.1 to 86400", _TIMES, "none",
        "no program runs longer on this board, whatever its request says"),
    Key("stop_s", "seconds, 0 to 3600", _number(0, 3600), f"{STOP_S:g}",
        "what a running program gets to end by itself at SIGTERM"),
    Key("allow_root", "true or false", _flag, "false",
        "started as root, run programs as root; `run_as` is better"),
    Key("programs.runner", "`warm` or `cold`", _one_of(*Start), "`warm`",
        "fork a ready interpreter, or start a fresh one for each run"),
    Key("programs.python", PATH, _text, "the daemon's own",
        "the interpreter of programs, Python 3.11 or later"),
    Key("programs.preload", "list of modules", _texts, "none",
        "what the warm interpreter has imported already"),
    Key("programs.interpreter", "list of texts", _texts, "none",
        "another one and its options, such as `[\"/usr/bin/bash\"]`: it gets the program as a "
        "file, then the arguments"),
    Key("programs.directory", PATH, _text, "`work` in the state folder",
        "where programs run"),
    Key("programs.empty_directory", "true or false", _flag,
        "true, unless `directory` is given", "empty it before and after each run"),
    Key("programs.run_as", "account", _text, "none", "for a daemon of root: who runs them"),
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
    Key("isolation.network", "true or false", _flag, "false", "with bwrap: let it use the network"),
    Key("isolation.devices", "list of paths", _texts, "none",
        "with bwrap: devices that it may use, such as `/dev/gpiochip0`"),
    Key("isolation.readable", "list of paths", _texts, "none",
        "with bwrap: what else it may read"),
)  # fmt: skip

_BY_NAME: Final = {key.name: key for key in KEYS}
_TABLES: Final = frozenset(name.partition(".")[0] for name in _BY_NAME if "." in name)


@dataclass(frozen=True, slots=True)
class Config:
    """The effective configuration; ``sources`` says where each value that was given comes from."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or ``default`` where nobody gave one."""
        return self.values.get(name, default)

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
            network=get("isolation.network", False),
            devices=tuple(get("isolation.devices", ())),
            readable=tuple(get("isolation.readable", ())),
            **python,
        )


def load(file: Path | None, options: Mapping[str, Any]) -> Config:
    """The configuration of ``file`` (None: the default one, where it exists) under ``options``.

    ``options`` are those of the command line by key, None where not given. Raises ``UsageError``.
    """
    found = DEFAULT_FILE if file is None else file
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if file is not None or found.exists():
        values = _read(found)
        sources = dict.fromkeys(values, str(found))
    for name, variable in VARIABLES.items():
        if os.environ.get(variable):
            values[name], sources[name] = os.environ[variable], variable
    for name, value in options.items():
        if value is not None and value is not False:
            values[name], sources[name] = value, COMMAND_LINE
    return Config(values, sources)


def _read(file: Path) -> dict[str, Any]:
    import tomllib  # half a megabyte, for boards that have a file only

    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "name it with --config") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 (byte {error.start})") from None
    except ValueError as error:  # also for a number of more digits than Python reads
        raise UsageError(f"{file} is no TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{file} is no TOML: nested too deeply") from None
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if name in _TABLES and isinstance(value, dict):
            flat |= {f"{name}.{below}": inner for below, inner in value.items()}
        else:
            flat[name] = value
    for name, value in flat.items():
        key = _BY_NAME.get(name)
        if key is None:
            raise UsageError(f"{file}: there is no key {name}", _nearest(name))
        if not key.accepts(value):
            raise UsageError(f"{file}: {name} = {value!r} is not allowed", f"expected: {key.kind}")
    return flat


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, _BY_NAME, 1, 0.5)
    if not near:
        last = name.rpartition(".")[2]
        near = [known for known in _BY_NAME if known.rpartition(".")[2] == last]
    return f"did you mean {near[0]}?" if near else "docs/device.md lists every key"


def _share_of_memory() -> int:
    """MB."""
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MEMORY_SHARE / 10**6)
