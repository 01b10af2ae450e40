"""The small TOML beside an analyser: its arguments, its limits, the files that it needs.

The law: what is not in the tables below, or is not of its kind, is an error that names the file,
the key and what would be right. Nothing here comes from anybody but whoever may write that file.

    builtin = "numeric"

    [arguments]
    expected = { temp = 21.5 }
    tolerance = 0.1

    [limits]
    time_s = 5
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hwsync.analysers.builtins import BUILTINS
from hwsync.protocol.files import PATH_FORM, is_path
from hwsync.protocol.jsons import dumps, is_number

KEYS: Final = ("arguments", "builtin", "files", "limits")
MAX_FILES: Final = 64  # that one analyser names
OWN: Final = "hwsync-"  # begins the names that hwsync itself uses in the working folder


class Wrong(Exception):
    """What is wrong with a file, and what to do; one line."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one analysis may use."""

    time_s: float = 10.0  # from the moment it has the run
    memory_mb: int = 256  # of all its processes together
    output_mb: int = 1  # that it prints; its answer has a limit of its own


DEFAULTS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Written:
    """What the TOML says."""

    builtin: str | None = None
    files: tuple[str, ...] = ()  # paths below the folder, those that arguments name included
    arguments: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = DEFAULTS


_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "time_s": (0.1, 600.0),
    "memory_mb": (64, 16_000),
    "output_mb": (1, 100),
}


def read(data: bytes, program: str = "") -> Written:
    """``program``: the file beside it that is the analyser; empty: there is none.

    Raises ``Wrong``, whose text does not name the TOML.
    """
    try:
        tree = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Wrong(f"it is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise Wrong(f"it is no TOML: {error}") from None
    for key in tree:
        _known(key, KEYS, "")
    builtin = tree.get("builtin")
    if builtin is not None and program:
        raise Wrong(
            f"it has builtin = {_shown(builtin)}, and there is {program}, too: which one judges? "
            "Take the key out, or the file away"
        )
    if builtin is not None and not (isinstance(builtin, str) and builtin in BUILTINS):
        raise Wrong(f"builtin = {builtin!r} is none of hwsync's: {_nearest(builtin, BUILTINS)}")
    arguments = _table(tree, "arguments")
    for key, value in arguments.items():
        try:
            dumps(value)
        except (TypeError, ValueError):
            raise Wrong(f"arguments.{key} has no JSON: write dates and nan as texts") from None
    files = _files(tree.get("files", []))
    if builtin is not None:
        files += _of_builtin(builtin, arguments)
    return Written(builtin, tuple(dict.fromkeys(files)), arguments, _limits(tree))


def _of_builtin(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Check its arguments; the files that they name."""
    builtin = BUILTINS[name]
    files = []
    for key, value in arguments.items():
        _known(key, builtin.arguments, f"arguments of {name}: ")
        wanted = builtin.arguments[key]
        if not wanted.accepts(value):
            raise Wrong(f"arguments.{key} = {_shown(value)} is not allowed: expected {wanted.kind}")
        if wanted.is_file:
            files += _files([value])
    if said := builtin.complaint(arguments):
        raise Wrong(said)
    return files


def _files(said: Any) -> list[str]:
    if not isinstance(said, list) or len(said) > MAX_FILES:
        raise Wrong(f"files has to be a list of at most {MAX_FILES} paths")
    for path in said:
        if not is_path(path):
            raise Wrong(f"files: {_shown(path)} is no path of this folder: {PATH_FORM}")
        if path.startswith(OWN):
            raise Wrong(f"files: {path}: names with {OWN} are hwsync's own; rename it")
    return list(said)


def _limits(tree: Mapping[str, Any]) -> Limits:
    found: dict[str, Any] = {}
    for key, value in _table(tree, "limits").items():
        _known(key, _LIMITS, "limits: ")
        least, most = _LIMITS[key]
        whole = key == "time_s" or isinstance(value, int)
        if not (is_number(value) and whole and least <= value <= most):
            kind = "a number" if key == "time_s" else "a whole number"
            raise Wrong(
                f"limits.{key} = {_shown(value)} is not allowed: "
                f"expected {kind} from {least:g} to {most:g}"
            )
        found[key] = value
    return Limits(**found)


def _table(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key, {})
    if not isinstance(found, dict):
        raise Wrong(f"{key} has to be a table: [{key}] on a line of its own, and its keys below it")
    return found


def _known(key: str, known: Iterable[str], where: str) -> None:
    names = list(known)
    if key not in names:
        raise Wrong(f"{where}there is no key {key}: {_nearest(key, names)}")


def _nearest(name: object, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, 1, 0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are {', '.join(names)}" if names else "there are none"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
