"""Files beside a program: what their paths may be, which ones a pattern means, what is kept.

The law: a path is relative, stays in its folder and names one file; nothing else is ever written or
read under it. A file is whole or absent. Whatever does not come back is listed, up to a limit that
counts in bytes of JSON (docs/protocol.md, section 5, "Files"). Coordinator and devices share this.

    >>> is_path("data/a.csv"), is_path("../a.csv"), is_path("/etc/passwd")
    (True, False, False)
    >>> means("data/**/*.csv", "data/may/week1/a.csv")
    True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hwsync.protocol import limits
from hwsync.protocol.jsons import dumps, size

NOT_ASKED: Final = "not asked for"
TOO_MANY: Final = f"more than {limits.MAX_COLLECTED} files"
TOO_LARGE: Final = f"more than {limits.MAX_COLLECTED_BYTES:,} bytes in all"
TOO_LONG: Final = "its path and the patterns are too long to be compared"
NO_ROOM: Final = "no room in the message"
PATH_FORM: Final = (
    f"relative, at most {limits.MAX_PATH} bytes, without control characters and without . or .. "
    "or nothing between two /"
)
ANY_FOLDERS: Final = "**"  # as a part of a pattern: any number of parts, none too

NOTED: Final = "files "  # begins a note of the log

_OTHERS_ROOM: Final = 48  # bytes of the entry that says how many others there are


@dataclass(frozen=True, slots=True)
class File:
    """One file: its path in the run's folder, and its bytes or what identifies them."""

    path: str
    size: int
    sha256: str  # hexadecimal
    data: bytes | None = field(default=None, repr=False, compare=False)  # None: kept elsewhere

    @classmethod
    def of(cls, path: str, data: bytes) -> File:
        """A file with these bytes."""
        return cls(path, len(data), hashlib.sha256(data).hexdigest(), data)

    @property
    def bare(self) -> File:
        """The same without its bytes."""
        return File(self.path, self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class NotKept:
    """A file that did not come back, or (``others``) how many more did not."""

    path: str
    size: int
    reason: str
    others: int = 0


Files = tuple[File, ...]
NotKeptFiles = tuple[NotKept, ...]


def names_and_hashes(files: Files) -> str:
    """What stays of files for ever, as JSON: ``[path, size, sha256]`` of each."""
    return dumps([(one.path, one.size, one.sha256) for one in files]) if files else "[]"


def note_of(files: Files) -> str:
    """What the log says of files, which its hashes cover: one hash of their names and hashes."""
    return NOTED + hashlib.sha256(names_and_hashes(files).encode()).hexdigest() if files else ""


def is_path(text: object, most: int = limits.MAX_PATH) -> bool:
    """Whether this is the path of a file in a run's folder; ``most``: bytes of UTF-8."""
    if not isinstance(text, str) or any(map(_is_control, text)):
        return False
    try:
        short = size(text) <= most
    except ValueError:
        return False
    return short and not any(part in ("", ".", "..") for part in text.split("/"))


def is_pattern(text: object) -> bool:
    """Whether this is a pattern for paths: itself one, in which ``*``, ``?`` and ``**`` count."""
    return is_path(text, limits.MAX_COLLECT_PATTERN)


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f"


def clash(paths: Iterable[str]) -> tuple[str, str] | None:
    """A path that is another's folder, and that other one; None: there is none."""
    known = set(paths)
    for path in sorted(known):
        parts = path.split("/")
        for end in range(1, len(parts)):
            if (folder := "/".join(parts[:end])) in known:
                return folder, path
    return None


def is_exact(pattern: str) -> bool:
    """Whether it means the path that it is, and no other."""
    return "*" not in pattern and "?" not in pattern


def means(pattern: str, path: str) -> bool:
    """Whether a pattern means that path.

    ``*`` is any characters but ``/``, ``?`` one of them, and ``**`` as a whole part any number of
    parts. Never more than (length of the pattern) x (length of the path) steps.
    """
    if is_exact(pattern):
        return pattern == path
    parts = path.split("/")
    reached = [True] + [False] * len(parts)  # how many parts the pattern so far may have taken
    for part in pattern.split("/"):
        if part == ANY_FOLDERS:
            first = reached.index(True) if True in reached else len(reached)
            reached = [place >= first for place in range(len(reached))]
        else:
            reached = [False] + [
                before and _is_like(part, name)
                for before, name in zip(reached[:-1], parts, strict=True)
            ]
    return reached[-1]


def _is_like(pattern: str, name: str) -> bool:
    """One part: on a mismatch only the last ``*`` takes one more, so it is never exponential."""
    at, place, star, taken = 0, 0, -1, 0
    while place < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, taken, at = at, place, at + 1
        elif at < len(pattern) and pattern[at] in ("?", name[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            taken += 1
            at, place = star + 1, taken
        else:
            return False
    return all(one == "*" for one in pattern[at:])


def is_asked_for(patterns: Iterable[str], path: str) -> bool:
    """Whether one of these patterns means that path."""
    return any(means(one, path) for one in patterns)


def room_for(files: Sequence[tuple[str, int]]) -> list[str]:
    """Why each of these files, (path, size), does not come back; empty: it does.

    In their order: what still fits comes, whatever did not fit before it.
    """
    found, count, total = [], 0, 0
    for _, length in files:
        reason = TOO_LARGE if total + length > limits.MAX_COLLECTED_BYTES else ""
        if count >= limits.MAX_COLLECTED:
            reason = TOO_MANY
        if not reason:
            count, total = count + 1, total + length
        found.append(reason)
    return found


def listed(entries: Iterable[NotKept]) -> NotKeptFiles:
    """These entries as they are kept: what was asked for first, then so many as there is room for.

    The last one says how many others there are. Listed again, nothing changes, and more entries may
    come to them.
    """
    entries = tuple(entries)
    named = [one for one in entries if not one.others]
    others = sum(one.others for one in entries)
    named.sort(key=lambda one: one.reason == NOT_ASKED)
    kept: list[NotKept] = []
    room = limits.MAX_NOT_KEPT_BYTES - _OTHERS_ROOM
    for one in named:
        room -= len(dumps(not_kept_json(one)).encode()) + 1
        if room < 0 or len(kept) >= limits.MAX_NOT_KEPT:
            break
        kept.append(one)
    others += len(named) - len(kept)
    return (*kept, NotKept("", 0, "", others)) if others else tuple(kept)


def only_asked_for(
    patterns: Sequence[str], files: Files, not_kept: NotKeptFiles
) -> tuple[Files, NotKeptFiles]:
    """The files that one of these patterns means, and what is not kept with the others.

    Whoever chose both could have it compared for a minute: beyond a limit of it nothing is kept.
    """
    kept: list[File] = []
    left: list[NotKept] = []
    most = limits.MAX_COMPARED
    each = sum(len(one) for one in patterns if not is_exact(one))
    for one in files:
        most -= each * len(one.path)
        if most < 0:
            left.append(NotKept(one.path, one.size, TOO_LONG))
        elif is_asked_for(patterns, one.path):
            kept.append(one)
        else:
            left.append(NotKept(one.path, one.size, NOT_ASKED))
    return (tuple(kept), listed((*not_kept, *left))) if left else (files, not_kept)


def counted(entries: Iterable[NotKept]) -> NotKeptFiles:
    """Nothing but how many they are; empty: none."""
    others = sum(one.others or 1 for one in entries)
    return (NotKept("", 0, "", others),) if others else ()


def not_kept_json(entry: NotKept) -> dict[str, object]:
    """An entry as it is sent."""
    if entry.others:
        return {"others": entry.others}
    return {"path": entry.path, "size": entry.size, "reason": entry.reason}
