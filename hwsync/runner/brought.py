"""The files that a run leaves in its folder: which come back, and why the others do not.

The law: each part of a path is opened relative to the one before and never through a link, so that
nothing outside of the folder is read. Only a regular file of the programs' account that has one
name is read, whole or not at all, and nothing that could wait for somebody. It looks at so many
names, and for so long (docs/protocol.md, section 5, "Files").
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from hwsync.protocol.files import (
    NOT_ASKED,
    TOO_LARGE,
    TOO_MANY,
    File,
    Files,
    NotKept,
    NotKeptFiles,
    is_asked_for,
    is_path,
    listed,
)
from hwsync.protocol.jsons import cut
from hwsync.protocol.limits import (
    COLLECT_S,
    MAX_COLLECTED,
    MAX_COLLECTED_BYTES,
    MAX_NAMES,
    MAX_PATH,
)

UNASKED_S: Final = 0.1  # to look for what nobody has asked for
LOOKING: Final = 0.75  # of the time, for what is there
CHUNK: Final = 65536
CACHE: Final = "__pycache__"  # Python's own, of modules beside the program

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ITSELF: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS: Final[tuple[tuple[Callable[[int], bool], str], ...]] = (
    (stat.S_ISLNK, "it is a link"),
    (stat.S_ISFIFO, "it is a named pipe"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISBLK, "it is a device"),
    (stat.S_ISCHR, "it is a device"),
)
CHANGED: Final = "it changed while it was read"
NO_TIME: Final = f"no time was left to read it: it takes at most {COLLECT_S:g} s, and half of grace"
CROWDED: Final = "too many names are in the folder to know whether it is new: ask for it by its own"

Identity = tuple[int, int, int, int, int]


def identity(found: os.stat_result) -> Identity:
    """What is another where a file was written, or replaced."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Budget:
    """How many names are looked at, and until when; a quarter of the time is for the reading.

    ``over``: which of them is used up.
    """

    def __init__(
        self,
        seconds: float,
        names: int = MAX_NAMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._began = clock()
        self._seconds = seconds
        self._names = names
        self._left = names
        self.over = ""

    def late(self, share: float = 1.0) -> bool:
        """Whether the time is over, or that share of it."""
        if self._clock() - self._began > share * self._seconds:
            self.over = f"looked for {share * self._seconds:.2g} s only"
            return True
        return False

    def takes(self) -> bool:
        """Whether one more name may be looked at."""
        if self._left == 0:
            self.over = f"looked at {self._names:,} names only"
            return False
        self._left -= 1
        return not self.late(LOOKING)


@dataclass
class Looked:
    """What was found in a folder: files of all kinds by their path, and folders that hid theirs."""

    found: dict[str, os.stat_result] = field(default_factory=dict)
    hidden: list[NotKept] = field(default_factory=list)
    whole: bool = True


def look(folder: int, patterns: Iterable[str], budget: Budget) -> Looked:
    """Look through the folder of that descriptor; first at what is asked for by its own name."""
    looked = Looked()
    for path in patterns:
        if "*" not in path and "?" not in path:
            with suppress(OSError), _parent(folder, path) as (above, name):
                found = os.stat(name, dir_fd=above, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    looked.found[path] = found
    _walk(folder, "", os.fstat(folder).st_dev, budget, looked)
    looked.whole = not budget.over
    return looked


def _walk(folder: int, above: str, device: int, budget: Budget, looked: Looked) -> None:
    """A folder and what is below it: as deep as a path may be."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not budget.takes():
                    break
                names.append(entry.name)
    except OSError as error:
        _hide(looked, above or "./", error.strerror)
    for name in sorted(names):
        if budget.late(LOOKING):
            return
        path = above + name
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except PermissionError as error:  # the folder may be listed, and not searched
            _hide(looked, above or "./", error.strerror)
            return
        except OSError as error:  # such as a file system whose server is gone
            _hide(looked, path, error.strerror)
            continue
        if not stat.S_ISDIR(found.st_mode):
            looked.found[path] = found
        elif found.st_dev != device:
            _hide(looked, f"{path}/", "it is another file system")
        elif len(os.fsencode(path)) >= MAX_PATH:
            _hide(looked, f"{path}/", f"a path has at most {MAX_PATH} bytes")
        else:
            try:
                below = os.open(name, _FOLDER, dir_fd=folder)
            except OSError as error:
                _hide(looked, f"{path}/", error.strerror)
                continue
            try:
                _walk(below, f"{path}/", device, budget, looked)
            finally:
                os.close(below)


def _hide(looked: Looked, path: str, why: str | None) -> None:
    looked.hidden.append(NotKept(_shown(path), 0, f"it cannot be looked into: {why}"))


@contextmanager
def _parent(folder: int, path: str) -> Iterator[tuple[int, str]]:
    """The folder of a file, and its name there. Raises ``OSError``."""
    *parts, name = path.split("/")
    here = os.dup(folder)
    try:
        for part in parts:
            above, here = here, os.open(part, _FOLDER, dir_fd=here)
            os.close(above)
        yield here, name
    finally:
        os.close(here)


class Snapshot:
    """What is in a folder that is kept, before a run."""

    def __init__(self, folder: int, patterns: tuple[str, ...]) -> None:
        looked = look(folder, patterns, Budget(COLLECT_S if patterns else UNASKED_S))
        self._seen = {path: identity(found) for path, found in looked.found.items()}
        self._named = frozenset(patterns)  # each was looked for
        self._whole = looked.whole

    def is_old(self, path: str, found: os.stat_result) -> bool:
        """Whether it is as it was."""
        return self._seen.get(path) == identity(found)

    def knows(self, path: str) -> bool:
        """Whether it was looked at, or surely was not there."""
        return self._whole or path in self._seen or path in self._named


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a folder.

    ``given``: what hwsync wrote there itself, by its path; it comes back if it has changed.
    ``passed``: names at the top that are none of the program's. ``uid``: of the programs' account.
    ``before``: the folder as it was, where it is kept.
    """

    patterns: tuple[str, ...]
    given: Mapping[str, bytes]
    passed: frozenset[str]
    uid: int
    before: Snapshot | None = None


def bring_back(folder: int, wanted: Wanted, budget: Budget) -> tuple[Files, NotKeptFiles]:
    """The files that come back, with their bytes, and what is said of those that do not."""
    looked = look(folder, wanted.patterns, budget)
    reader = _Reader(folder, wanted, budget)
    for path in sorted(looked.found):
        if budget.late():
            break
        reader.take(path, looked.found[path])
    left = reader.left
    if wanted.patterns:
        left = looked.hidden + left
    if budget.over and (wanted.patterns or wanted.before is None):
        left.insert(0, NotKept(".", 0, budget.over))
    return tuple(reader.files), listed(left)


class _Reader:
    """Takes what was found, one after the other."""

    def __init__(self, folder: int, wanted: Wanted, budget: Budget) -> None:
        self._folder = folder
        self._wanted = wanted
        self._budget = budget
        self._total = 0
        self.files: list[File] = []
        self.left: list[NotKept] = []

    def take(self, path: str, found: os.stat_result) -> None:
        wanted = self._wanted
        if path.partition("/")[0] in wanted.passed:
            return
        if wanted.before is not None and wanted.before.is_old(path, found):
            return
        asked = is_asked_for(wanted.patterns, path)
        if not asked and (not stat.S_ISREG(found.st_mode) or CACHE in path.split("/")):
            return
        if wanted.before is not None and not wanted.before.knows(path):
            if asked:
                self._leave(path, found, CROWDED)
            return
        given = wanted.given.get(path)
        if given is not None and found.st_size == len(given) and self._read(path, found) == given:
            return
        if not asked:
            self._leave(path, found, NOT_ASKED)
            return
        reason = self._against(path, found)
        data = b"" if reason else self._read(path, found)
        if isinstance(data, str):
            reason = data
        if reason or isinstance(data, str):
            self._leave(path, found, reason)
            return
        self.files.append(File.of(path, data))
        self._total += len(data)

    def _leave(self, path: str, found: os.stat_result, reason: str) -> None:
        self.left.append(NotKept(_shown(path), found.st_size, reason))

    def _against(self, path: str, found: os.stat_result) -> str:
        """Why it does not come back, as far as is known before it is opened; else empty."""
        if not is_path(path):
            return _no_path(path)
        if unfit := self._unfit(found):
            return unfit
        if len(self.files) >= MAX_COLLECTED:
            return TOO_MANY
        return TOO_LARGE if self._total + found.st_size > MAX_COLLECTED_BYTES else ""

    def _unfit(self, found: os.stat_result) -> str:
        for is_one, reason in _KINDS:
            if is_one(found.st_mode):
                return reason
        if not stat.S_ISREG(found.st_mode):
            return "it is no file any more"
        if found.st_uid != self._wanted.uid:
            return "it belongs to another account"
        return "it has more than one name" if found.st_nlink != 1 else ""

    def _read(self, path: str, found: os.stat_result) -> bytes | str:
        """All of its bytes, or why they cannot be had."""
        try:
            with _parent(self._folder, path) as (above, name):
                itself = os.open(name, _ITSELF, dir_fd=above)
            try:
                # What is opened to be read is what was looked at, whatever has its name by now.
                if unfit := self._unfit(os.fstat(itself)):
                    return unfit
                file = os.open(f"/proc/self/fd/{itself}", _READ)
            finally:
                os.close(itself)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        try:
            return self._all_of(file, found)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        finally:
            os.close(file)

    def _all_of(self, file: int, found: os.stat_result) -> bytes | str:
        parts, left = [], found.st_size + 1
        while left and (part := os.read(file, min(left, CHUNK))):
            if self._budget.late():
                return NO_TIME
            parts.append(part)
            left -= len(part)
        now = os.fstat(file)
        if left != 1 or identity(now) != identity(found):  # a second name changes it, too
            return CHANGED
        return b"".join(parts)


def _no_path(path: str) -> str:
    """Why the path of something that is there is none of the protocol."""
    data = os.fsencode(path)
    if len(data) > MAX_PATH:
        return f"a path has at most {MAX_PATH} bytes"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "its name is no UTF-8"
    return "its name has a control character"


def _shown(path: str) -> str:
    """As it can be sent, and read by people."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return cut("".join(one if one.isprintable() else "?" for one in text), MAX_PATH)
