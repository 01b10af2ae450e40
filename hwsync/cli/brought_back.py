"""Files that came back, written here; and what is said of those that did not.

The law: a file is whole or absent: it is written beside its place, and then renamed. No name that
came from outside leaves the folder, also not through a link in it. Nothing is written that was not
asked for, whatever a board says, and what is hidden only where a pattern says so. What is here
already is only replaced where its name was typed.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hwsync.cli.say import bytes_of
from hwsync.protocol.errors import OutputError
from hwsync.protocol.files import NOT_ASKED, is_asked_for, is_path

KEPT_NOT: Final = "written on the board and not kept"
SHOWN: Final = 5  # names in a line, and lines of what is not kept; then how many more

NO_FILE: Final = b"\0no file\0" * 200_000  # larger than anything that comes back
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def save(folder: Path, found: Mapping[str, bytes], named: Iterable[str]) -> dict[str, str]:
    """Write these files below ``folder``; by path, why one was not written.

    ``named``: which ones may replace what is there. Raises ``OutputError`` where nothing can be
    written.
    """
    named, left = set(named), dict[str, str]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        top = os.open(folder, _FOLDER & ~os.O_NOFOLLOW)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        for path, data in sorted(found.items()):
            try:
                if why := _save_one(top, path, data, replaces=path in named):
                    left[path] = why
            except OSError as error:
                raise OutputError(f"cannot write {folder / path}: {error.strerror}") from None
    finally:
        os.close(top)
    return left


def _save_one(top: int, path: str, data: bytes, *, replaces: bool) -> str:
    """Why it was not written; empty: it was, or was there."""
    if not is_path(path):
        return "would be outside of it: not written"
    *folders, name = path.split("/")
    here = os.dup(top)
    try:
        for one in folders:
            with suppress(FileExistsError):
                os.mkdir(one, dir_fd=here)
            try:
                below = os.open(one, _FOLDER, dir_fd=here)
            except (NotADirectoryError, OSError) as error:
                return f"was not written: {one} is no folder here ({error.strerror})"
            os.close(here)
            here = below
        return _write(here, name, data, replaces=replaces)
    finally:
        os.close(here)


def _write(here: int, name: str, data: bytes, *, replaces: bool) -> str:
    before = _content(here, name)
    if before == data:
        return ""
    if before is not None and not replaces:
        return "is here already with another content: kept as it was. --out DIR takes it elsewhere"
    beside = (
        f".hwsync-{secrets.token_hex(8)}.part"  # of a length that is allowed, whatever the name
    )
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(beside, flags, 0o666, dir_fd=here)
    try:
        with os.fdopen(file, "wb") as written:
            written.write(data)
            written.flush()
            os.fsync(written.fileno())
        os.replace(beside, name, src_dir_fd=here, dst_dir_fd=here)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside, dir_fd=here)
        raise
    return ""


def _content(here: int, name: str) -> bytes | None:
    """What is there now; None: nothing. Of what is no file, something that nobody sends."""
    try:
        file = os.open(name, _READ, dir_fd=here)
    except FileNotFoundError:
        return None
    except OSError:
        return NO_FILE
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        return NO_FILE
    with os.fdopen(file, "rb") as there:
        return there.read()


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of the files of a run, in lines, and where they are, by path.

    ``wrong``: what was asked for and is not here; ``remarks``: the rest.
    """

    remarks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    saved: dict[str, str] = field(default_factory=dict)


def bring(
    end: Mapping[str, Any],
    patterns: Sequence[str],
    found: Mapping[str, bytes],
    folder: Path,
    *,
    later: bool = False,
) -> Brought:
    """Write what came of a command that has ended, and say what did not and why.

    ``later``: it was asked for then, so that nothing can be asked for any more; without patterns
    all that came is meant.
    """
    unasked = {} if later and not patterns else {
        path: "was not asked for, and the board has sent it: not written"
        for path in found if not is_asked_for(patterns, path)
    }  # fmt: skip
    hidden = {
        path: f"begins with a dot: not written unless its pattern does, such as {path}"
        for path in found if path not in unasked and not _may_be_hidden(path, patterns)
    }  # fmt: skip
    left = unasked | hidden
    wanted = {path: data for path, data in found.items() if path not in left}
    left |= save(folder, wanted, patterns) if wanted else {}
    here = {path: data for path, data in found.items() if path not in left}
    wrong = [f"hwsync: {folder / path} {why}" for path, why in left.items()]
    said = list(missing(end, patterns, found, later=later))
    remarks = [*got(here, folder), *(line for line in said if KEPT_NOT in line)]
    wrong += [line for line in said if KEPT_NOT not in line]
    return Brought(remarks, wrong, {path: str(folder / path) for path in here})


def _may_be_hidden(path: str, patterns: Iterable[str]) -> bool:
    """Whether no part of it is hidden here, or who asked for it has typed such a part."""
    if not any(part.startswith(".") for part in path.split("/")):
        return True
    typed = [one for one in patterns if any(part.startswith(".") for part in one.split("/"))]
    return is_asked_for(typed, path)


def got(found: Mapping[str, bytes], folder: Path) -> Iterator[str]:
    """One line of what came."""
    if found:
        names = list(found)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        where = "" if str(folder) == "." else f" in {folder}"
        size = bytes_of(sum(map(len, found.values())))
        what = f"{names[0]}, {size}" if len(names) == 1 else (
            f"{len(names)} files, {size}: {', '.join(names[:SHOWN])}{more}"
        )  # fmt: skip
        yield f"hwsync: got {what}{where}"


def missing(
    end: Mapping[str, Any],
    patterns: Sequence[str],
    found: Mapping[str, bytes],
    *,
    later: bool = False,
) -> Iterator[str]:
    """One line each of what did not come back, and why; ``patterns``: what was asked for."""
    entries: Sequence[Mapping[str, Any]] = [
        one for one in end.get("not_kept") or () if not later or one.get("reason") != NOT_ASKED
    ]
    said = 0
    others = 0
    for one in entries:
        others += one.get("others") or 0
        if "path" not in one:
            continue
        if said >= SHOWN:
            others += 1
            continue
        said += 1
        path, size = one["path"], bytes_of(one["size"])
        if one["reason"] == NOT_ASKED:
            yield (f"hwsync: {path}, {size}, was {KEPT_NOT}: --get {_quoted(path)}")
        else:
            yield f"hwsync: {path}, {size}, did not come back: {one['reason']}"
    if others:
        yield f"hwsync: {others:,} more files were {KEPT_NOT}"
    listed = end.get("files") or {}
    written = {*listed, *(str(one["path"]) for one in entries if "path" in one)}
    for pattern in dict.fromkeys(patterns) if not others else ():
        if not any(is_asked_for([pattern], path) for path in written):
            yield _nothing(pattern, written)
    if listed and not found:
        yield (
            "hwsync: the files cannot be had now: the broker takes no message that large, or their "
            "bytes were dropped with the years"
        )


def _nothing(pattern: str, written: Iterable[str]) -> str:
    """A line for a pattern that meant nothing of what was written."""
    if any(path.startswith(f"{pattern}/") for path in written):
        return (
            f"hwsync: {pattern} is a folder there: --get {_quoted(pattern)}/ brings what is in it"
        )
    if set(pattern) & set("*?"):
        typed = pattern.removesuffix("**") if pattern.endswith("/**") else pattern
        return f"hwsync: nothing came back for {_quoted(typed)}: no such file was written"
    return f"hwsync: {pattern} did not come back: there was no such file, or it did not change"


def not_asked_for(ends: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One line each of what several boards wrote and nobody asked for."""
    boards: Counter[str] = Counter()
    for end in ends:
        entries = end.get("not_kept") or ()
        boards.update({one["path"] for one in entries if one.get("reason") == NOT_ASKED})
    for path, count in sorted(boards.items(), key=lambda one: (-one[1], one[0]))[:SHOWN]:
        where = "one board" if count == 1 else f"{count} boards"
        yield f"hwsync: {path} was written on {where} and not kept: --get {_quoted(path)}"
    if len(boards) > SHOWN:
        yield f"hwsync: {len(boards) - SHOWN:,} more files were written and not kept"


def _quoted(path: str) -> str:
    return f"'{path}'" if set(path) & set(" *?'\"$&;()<>|") else path
