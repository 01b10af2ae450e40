"""``--with`` and ``--get``: which files of this machine go with a program, and which come back.

The law: what cannot be sent is said before anybody is asked. A file is called on the board as it is
beside the program here; ``PATH=NAME`` calls it otherwise.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

from hwsync.cli.say import bytes_of
from hwsync.protocol import files, limits
from hwsync.protocol.errors import UsageError

PASSED_OVER: Final = ("__pycache__",)  # and what begins with a dot: of a folder


def gather(words: Sequence[str], program: str | None, name: str) -> dict[str, bytes]:
    """The files that ``--with`` means, by their paths on the board.

    ``program``: FILE as it was typed; None: ``-c``. ``name``: what the program is called on the
    board. Raises ``UsageError``.
    """
    beside = Path() if program in (None, "-") else Path(str(program)).parent
    found: dict[str, bytes] = {}
    total = 0
    for word in words:
        for path, place in _meant(word, beside):
            if place in found:
                raise UsageError(f"--with: two files would be {place}", "PATH=NAME names one anew")
            if len(found) == limits.MAX_FILES:
                hint = f"{limits.MAX_FILES} are the most; an archive can hold them"
                raise UsageError(f"--with {word}: too many files", hint)
            total += _size(path)
            if total > limits.MAX_FILES_BYTES:
                raise UsageError(
                    f"--with {word}: {bytes_of(total)} in all, with {path}",
                    f"{bytes_of(limits.MAX_FILES_BYTES)} are the most that goes with a program",
                )
            found[place] = _read(path)
    if name in found:
        raise UsageError(f"--with: {name} is what the program itself is called there",
                         "PATH=NAME names the file anew, --name the program")  # fmt: skip
    if pair := files.clash([*found, name]):
        raise UsageError(f"--with: {pair[0]} cannot be a file and the folder of {pair[1]}")
    return found


def _meant(word: str, beside: Path) -> Iterator[tuple[Path, str]]:
    """The files of one word, each with its path on the board."""
    source, _, chosen = word.partition("=") if not os.path.lexists(word) else (word, "", "")
    path = Path(source)
    place = chosen.rstrip("/") or _place(path, beside)
    if stat.S_ISDIR(_stat(path).st_mode):
        some = list(islice(_below(path), limits.MAX_FILES + 1))  # it may be all of a disk
        if not some:
            raise UsageError(f"--with {word}: there are no files in it")
        pairs = [(one, f"{place}/{one.relative_to(path).as_posix()}") for one in some]
        pairs = [(one, there.removeprefix("./")) for one, there in pairs]
    else:
        pairs = [(path, place)]
    for one, there in pairs:
        if not files.is_path(there):
            raise UsageError(f"--with {word}: {there!r} cannot be a file's path there",
                             f"{files.PATH_FORM}; PATH=NAME names it anew")  # fmt: skip
        yield one, there


def _place(path: Path, beside: Path) -> str:
    """How it is called beside the program; elsewhere it has its own name."""
    whole, near = Path(os.path.abspath(path)), Path(os.path.abspath(beside))
    if whole == near:
        return "."
    return whole.relative_to(near).as_posix() if near in whole.parents else whole.name or "."


def _below(folder: Path) -> Iterator[Path]:
    """The files of a folder, without what is hidden or made by Python; no link is followed."""
    for where, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(one for one in folders if _counts(one))
        for name in sorted(names):
            path = Path(where) / name
            if _counts(name) and stat.S_ISREG(_stat(path, follow=False).st_mode):
                yield path


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in PASSED_OVER


def _size(path: Path) -> int:
    found = _stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"--with {path}: it is no file")
    return found.st_size


def _stat(path: Path, *, follow: bool = True) -> os.stat_result:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError as error:
        raise _cannot_read(path, error) from None


def _unreadable(error: OSError) -> NoReturn:
    raise _cannot_read(error.filename, error) from None


def _cannot_read(path: Path | str, error: OSError) -> UsageError:
    return UsageError(f"--with {path}: cannot be read: {error.strerror}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _cannot_read(path, error) from None


def patterns(words: Iterable[str]) -> tuple[str, ...]:
    """The patterns that ``--get`` means; a folder is all that is in it. Raises ``UsageError``."""
    found = tuple(f"{word}**" if word.endswith("/") else word for word in words)
    for word in found:
        if not files.is_pattern(word):
            raise UsageError(f"--get {word}: no file below the run's folder", files.PATH_FORM)
    if len(found) > limits.MAX_COLLECT:
        hint = f"{limits.MAX_COLLECT} are the most: let one mean more, such as 'results/*'"
        raise UsageError(f"--get: {len(found)} patterns", hint)
    return found
