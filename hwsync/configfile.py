"""Configuration files: one table of keys for each kind, and what stands nearer to the person wins.

The law: what is not in the table, or is not of its kind, is refused with the file, the key and what
would be right. The command line wins over the environment, that over the file, key by key. A file
that holds something secret and can be read by others is refused, and nothing secret is ever shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hwsync.address import PEM
from hwsync.protocol.errors import UsageError

COMMAND_LINE: Final = "the command line"
PROGRAM: Final = "the arguments of connect()"  # of a program in Python
OTHERS: Final = 0o007  # who is neither the owner nor of the group, which a service may be
PRIVATE_KEY: Final = "PRIVATE KEY-----"
NOT_SHOWN: Final = ("@", "-secret:", PRIVATE_KEY)  # in a value: an address with a password, a key
LONGEST_PATH: Final = 255  # characters that are shown as a path; a key's text is longer
KEY_TEXT: Final = re.compile(r"[A-Za-z0-9+/=]{40,}")  # base64: of 30 bytes or more
ON_COMMAND_LINE, IN_ENVIRONMENT, IN_FILE, NOWHERE = range(4)  # from near to far


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a file. ``kind`` is for people; ``accepts`` says whether a value is of it."""

    name: str  # with its table, such as limits.cpu_s
    kind: str
    accepts: Callable[[Any], bool]
    default: str  # for people
    meaning: str
    secret: bool = False
    beside: bool = False  # a path: from the folder of the file in which it stands
    inline: str = PEM  # what tells such a key's text from a path


@dataclass(frozen=True, slots=True)
class Given:
    """The values that somebody gave; ``sources`` says who: a file, a variable, the command line."""

    values: Mapping[str, Any] = field(repr=False)
    sources: Mapping[str, str]

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or ``default`` where nobody gave one."""
        return self.values.get(name, default)

    def distance(self, name: str) -> int:
        """How far from the person a value comes: from ``ON_COMMAND_LINE`` to ``NOWHERE``."""
        source = self.sources.get(name)
        if source is None:
            return NOWHERE
        if source in (COMMAND_LINE, PROGRAM):
            return ON_COMMAND_LINE
        return IN_FILE if os.sep in source else IN_ENVIRONMENT


def is_text(value: Any) -> bool:
    """A text that can be an argument, a variable or a path."""
    return isinstance(value, str) and bool(value) and "\0" not in value


def is_flag(value: Any) -> bool:
    """True or false, and not 1 or 0."""
    return isinstance(value, bool)


def gather(
    file: Path | None,
    keys: Iterable[Key],
    variables: Mapping[str, str],
    options: Mapping[str, Any],
    document: str,
    source: str = COMMAND_LINE,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and sources, by key, of the nearest to the person; ``file`` None: there is none.

    ``keys``: the table of the file. ``variables``: the names of those of the environment, by key.
    ``options``: of the command line by key, None or false where not given; ``source``: what to call
    it, where it is another. ``document``: where a person finds all keys. What ``beside`` says of a
    key is done: a path in the file is absolute.

    Raises ``UsageError``, which shows no secret: a file that cannot be read, is no TOML or can be
    read by others though it holds a secret; a key that is not in the table, or a value that it does
    not accept. Of the command line and the environment only paths are looked at here.
    """
    known = {key.name: key for key in keys}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if file is not None:
        file = file.absolute()
        values = _read(file, known, document)
        sources = dict.fromkeys(values, str(file))
    for name, variable in variables.items():
        if os.environ.get(variable):
            _is_file(known.get(name), os.environ[variable], variable)
            values[name], sources[name] = os.environ[variable], variable
    for name, value in options.items():
        if value is not None and value is not False:
            _is_file(known.get(name), value, source)
            values[name], sources[name] = value, source
    return values, sources


def shown(key: Key | None, value: Any) -> str:
    """A value as it may be printed: no secret; ``key`` None: of no key."""
    if key is not None and key.secret and not _is_path(key, value):
        return "(not shown)"
    return "(a PEM text)" if isinstance(value, str) and PEM in value else str(value)


def private(path: Path, what: str) -> None:
    """Raises ``UsageError`` where others may read the file; one that is not there is no matter.

    ``what`` it holds, for people. Its group may read it: that may be a service's.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & OTHERS:
        import shlex

        raise UsageError(
            f"{path} holds {what}, and every account of this machine can get at it "
            f"(mode {mode & 0o777:04o})",
            f"chmod o= {shlex.quote(str(path))}",
        )


def _is_file(key: Key | None, value: Any, source: str) -> None:
    """Raises ``UsageError`` for what is to be a path, is none, and could be a secret.

    Whoever says that there is no such file would show it.
    """
    if key is None or not _is_path(key, value) or os.path.exists(value):
        return
    login = key.secret is False and ":" in value and os.sep not in value
    if "\n" in value or login or len(value) > LONGEST_PATH or KEY_TEXT.fullmatch(value):
        raise UsageError(
            f"{source}: the value of {key.name} is no file (it is not shown: it may be a secret)",
            f"expected: {key.kind}",
        )


def _is_path(key: Key, value: Any) -> bool:
    return key.beside and isinstance(value, str) and key.inline not in value


def _read(file: Path, known: Mapping[str, Key], document: str) -> dict[str, Any]:
    import tomllib  # half a megabyte, for those that have a file only

    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except PermissionError as error:
        cure = "name one of your own with --config, or join its group"
        raise UsageError(f"cannot read {file}: {error.strerror}", cure) from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "name it with --config") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 (byte {error.start})") from None
    except ValueError as error:  # also for a number of more digits than Python reads
        raise UsageError(f"{file} is no TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{file} is no TOML: nested too deeply") from None
    tables = {name.partition(".")[0] for name in known if "." in name}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if name in tables and isinstance(value, dict):
            flat |= {f"{name}.{below}": inner for below, inner in value.items()}
        else:
            flat[name] = value
    for name, value in flat.items():
        key = known.get(name)
        if key is None:
            raise UsageError(f"{file}: there is no key {name}", _nearest(name, known, document))
        if not key.accepts(value):
            said = f"{name} = {value!r}"
            if key.secret or key.beside or any(mark in said for mark in NOT_SHOWN):
                said = f"the value of {name}"
            raise UsageError(f"{file}: {said} is not allowed", f"expected: {key.kind}")
        text = isinstance(value, str) and PRIVATE_KEY in value
        if (key.secret and not _is_path(key, value)) or text:
            private(file, f"a secret ({name})")
        if _is_path(key, value):
            _is_file(key, value, str(file))
            flat[name] = str(file.parent / value)
    return flat


def _nearest(name: str, known: Mapping[str, Key], document: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 1, 0.5)
    if not near:
        last = name.rpartition(".")[2]
        near = [other for other in known if other.rpartition(".")[2] == last]
    return f"did you mean {near[0]}?" if near else f"{document} lists every key"
