"""The teacher's folder: which analysers are in it, in which version, and what is wrong with it.

The law: an analyser is read whole, and what was read is what runs, whatever happens to its files
meanwhile. A file that changes is another version, which is taken once it has stayed as it is for
``settle_s``: half of a file, as an editor leaves it for a moment, judges nobody; and so does a
change that makes it none: the version of before goes on. What is meant as an analyser and is none
is named; what is none is passed over.

    check1.py                        def analyse(run)
    check2                           any executable file
    check1.toml, check2.toml         optional: arguments, limits, files that come along
    check3.toml                      alone, with builtin = "equals"
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hwsync.analysers import builtins
from hwsync.analysers.builtins import BUILTINS
from hwsync.analysers.written import DEFAULTS, Limits, Written, Wrong, read
from hwsync.protocol.errors import UsageError
from hwsync.protocol.limits import ANALYSER_FORM, MAX_ANALYSERS, is_analyser

RESERVED: Final = frozenset({"manual", "outcome"})
SETTLE_S: Final = 1.0
MAX_FILE: Final = 4_000_000  # bytes of one file
MAX_BYTES: Final = 16_000_000  # of all files of an analyser
PASSED_OVER: Final = re.compile(
    r"[._#].*|.*[~#]|README.*|test_.*\.py|(conftest|setup)\.py|(pyproject|ruff)\.toml"
)
LOOKS: Final = 3  # at a file that changes while it is read

FUNCTION: Final = "analyse"


class Kind(StrEnum):
    """What runs it."""

    PYTHON = "python"
    EXECUTABLE = "executable"
    BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class Analyser:
    """One analyser, as it was read. With a ``problem`` it is not to be offered."""

    name: str
    version: str  # 12 hexadecimal digits; empty: it is not known yet
    problem: str | None = None  # one line: what is wrong with it, and what to do
    kind: Kind = Kind.PYTHON
    main: str = ""  # name of its file, or of the built-in
    source: bytes = field(default=b"", repr=False)  # of its file
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # that come along, by path
    arguments: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = DEFAULTS


# What tells whether a file is still the same: device, number, size and times of each path.
_Look = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(slots=True)
class _Taken:
    """An analyser that is offered, and what its files looked like."""

    look: _Look
    analyser: Analyser
    next: _Look | None = None  # what they look like since
    since: float = 0.0
    broken: str | None = None  # what is wrong with its files since; the version of before goes on


class Folder:
    """``scan`` is called now and then, by one thread.

    for name, analyser in Folder(Path("analysers")).scan().items():
        print(name, analyser.version, analyser.problem or "")
    """

    def __init__(
        self,
        path: Path,
        *,
        settle_s: float = SETTLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.problems: tuple[str, ...] = ()  # of the last look, those of files without a name too
        self._settle_s = settle_s
        self._clock = clock
        self._taken: dict[str, _Taken] = {}
        self._named: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}  # by TOML, as it looks
        self._first = True

    def scan(self) -> dict[str, Analyser]:
        """The analysers by name, with those that have a problem; ``outcome`` is always there.

        The first look takes what it finds. Later ones read only what looks another way. Raises
        ``UsageError`` where there is no such folder.
        """
        try:
            names = sorted(os.listdir(self.path))
        except OSError as error:
            raise UsageError(
                f"the folder of analysers {self.path} cannot be read: {error.strerror}",
                "make it, or name another with --dir",
            ) from None
        found, others = self._candidates(names)
        self._taken = {name: self._take(name, found[name]) for name in found}
        self._first = False
        analysers = {name: taken.analyser for name, taken in self._taken.items()}
        problems = [said for name, one in self._taken.items() if (said := _problem(name, one))]
        self.problems = (*problems, *others)
        return {"outcome": _OUTCOME, **analysers}

    # -- what is there ---------------------------------------------------------------------------

    def _candidates(self, names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
        """The names of files that are meant as an analyser, by its name; complaints of others."""
        found: dict[str, list[str]] = {}
        problems = []
        along = self._along(names)
        for name in names:
            if PASSED_OVER.fullmatch(name) or name in along or not self._is_meant(name):
                continue
            stem = name.removesuffix(".py").removesuffix(".toml")
            if not is_analyser(stem):
                problems.append(
                    f"{name[:80]!r} is no name of an analyser ({ANALYSER_FORM}): rename it"
                )
            elif stem in RESERVED:
                problems.append(f"{name}: {stem} is hwsync's own: rename it")
            elif len(found) >= MAX_ANALYSERS and stem not in found:
                problems.append(f"{name}: there are more than {MAX_ANALYSERS} analysers")
            else:
                found.setdefault(stem, []).append(name)
        return found, problems

    def _along(self, names: Iterable[str]) -> set[str]:
        """Files that some analyser needs, as their TOMLs say: these are none themselves."""
        before, self._named = self._named, {}
        for name in names:
            if name.endswith(".toml") and not PASSED_OVER.fullmatch(name) and self._is_file(name):
                look = self._stat(name)
                known = before.get(name)
                same = known is not None and known[0] == look
                self._named[name] = known if known and same else (look, self._named_in(name))
        return {path for _, paths in self._named.values() for path in paths}

    def _named_in(self, name: str) -> tuple[str, ...]:
        """What is wrong with it is said where it is read for its analyser."""
        try:
            with open(self.path / name, "rb") as file:
                data = file.read(MAX_FILE + 1)
            return read(data).files if len(data) <= MAX_FILE else ()
        except (OSError, Wrong):
            return ()

    def _is_meant(self, name: str) -> bool:
        if not self._is_file(name):
            return False
        if name.endswith((".py", ".toml")):
            return True
        if "." in name:
            return False
        return os.access(self.path / name, os.X_OK) or (
            is_analyser(name) and (self._is_file(f"{name}.toml") or self._begins_as_script(name))
        )

    def _begins_as_script(self, name: str) -> bool:
        try:
            with open(self.path / name, "rb") as file:
                return file.read(2) == b"#!"
        except OSError:
            return False

    def _is_file(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(self.path / name).st_mode)
        except OSError:
            return False

    # -- which version is taken ------------------------------------------------------------------

    def _take(self, name: str, mains: list[str]) -> _Taken:
        """The analyser that counts now: the one before, until a change has settled."""
        known = self._taken.get(name)
        paths = set(mains) if known is None else set(mains) | {one for one, _ in known.look}
        look = self._look(paths)
        if known is not None and look == known.look:
            known.next = None
            return known
        if not self._first and self._settle_s > 0 and not self._has_settled(name, look):
            return self._taken.get(name) or _Taken((), _not_yet(name))
        taken = self._read(name, mains)
        if taken.analyser.problem is None or known is None or known.analyser.problem is not None:
            return taken
        return _Taken(taken.look, known.analyser, broken=taken.analyser.problem)

    def _has_settled(self, name: str, look: _Look) -> bool:
        known = self._taken.get(name)
        now = self._clock()
        if known is None:
            self._taken[name] = _Taken((), _not_yet(name), look, now)
            return False
        if known.next != look:
            known.next, known.since = look, now
            return False
        return now - known.since >= self._settle_s

    def _look(self, paths: Iterable[str]) -> _Look:
        return tuple((path, self._stat(path)) for path in sorted(paths))

    def _stat(self, path: str) -> tuple[int, ...]:
        try:
            found = os.stat(self.path / path)
        except OSError:
            return ()
        times = found.st_mtime_ns, found.st_ctime_ns
        return (found.st_dev, found.st_ino, found.st_size, found.st_mode, *times)

    def _read(self, name: str, mains: list[str]) -> _Taken:
        """Read all of it; what changes meanwhile is read once more."""
        paths = set(mains)
        for _ in range(LOOKS):
            before = self._look(paths)
            reading = _Reading(self.path)
            analyser = reading.analyser(name, mains)
            paths |= reading.seen
            if self._look(paths) == before:
                break
        return _Taken(before, analyser)


class _Reading:
    """One analyser being read. ``seen``: the paths on which it rests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytes: dict[str, bytes] = {}
        self.seen = set[str]()

    def analyser(self, name: str, mains: list[str]) -> Analyser:
        try:
            return self._analyser(name, mains)
        except Wrong as wrong:
            return Analyser(name, _version(name, self._bytes), str(wrong))

    def _analyser(self, name: str, mains: list[str]) -> Analyser:
        beside = f"{name}.toml"
        written = Written()
        programs = [one for one in mains if one != beside]
        if beside in mains:
            try:
                written = read(self._read(beside), next(iter(programs), ""))
            except Wrong as wrong:
                raise Wrong(f"{beside}: {wrong}") from None
        if len(programs) > 1:
            raise Wrong(f"there are {' and '.join(programs)}: keep one of them")
        if not programs and not written.builtin:
            raise Wrong(
                f"there is neither {name}.py nor an executable {name}, and {beside} names no "
                f'builtin, such as builtin = "equals"'
            )
        main = programs[0] if programs else str(written.builtin)
        source = self._read(main) if programs else b""
        files = {path: self._read(path, beside) for path in written.files}
        if main in files:
            raise Wrong(f"{beside}: files names {main} itself: leave it out")
        kind = Kind.BUILTIN
        if programs:
            kind = Kind.PYTHON if main.endswith(".py") else Kind.EXECUTABLE
        if kind is Kind.PYTHON:
            _check_python(main, source)
        elif kind is Kind.EXECUTABLE and not os.access(self._folder / main, os.X_OK):
            raise Wrong(f"{main} is not executable: chmod +x {main}")
        made = self._bytes | (_BUILTIN_FILES if kind is Kind.BUILTIN else {})
        return Analyser(
            *(name, _version(name, made), None, kind, main, source, files),
            written.arguments,
            written.limits,
        )

    def _read(self, path: str, named_in: str = "") -> bytes:
        self.seen.add(path)
        where = f"{named_in}: files: {path}" if named_in else path
        whole = self._folder / path
        try:
            if not stat.S_ISREG(os.stat(whole).st_mode):
                raise Wrong(f"{where} is no file")
            with open(whole, "rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            raise Wrong(f"{where} cannot be read: {error.strerror}") from None
        if len(data) > MAX_FILE:
            raise Wrong(f"{where} is larger than {MAX_FILE:,} bytes")
        self._bytes[path] = data
        if sum(map(len, self._bytes.values())) > MAX_BYTES:
            raise Wrong(f"its files are larger than {MAX_BYTES:,} bytes together")
        return data


def _version(name: str, files: Mapping[str, bytes]) -> str:
    """Of its files, the TOML with its arguments among them; each after its path and length."""
    hashed = hashlib.sha256(name.encode())
    for path, data in sorted(files.items()):
        hashed.update(f"\n{path}\n{len(data)}\n".encode())
        hashed.update(data)
    return hashed.hexdigest()[:12]


def _check_python(name: str, source: bytes) -> None:
    """Raises ``Wrong`` for what surely is no analyser; nothing of it is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, name)
    except SyntaxError as error:
        where = f"{name}, line {error.lineno}" if error.lineno else name
        raise Wrong(f"it cannot be read: {type(error).__name__}: {error.msg} ({where})") from None
    except (ValueError, RecursionError, MemoryError) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise Wrong(f"it cannot be read: {said} ({name})") from None
    if FUNCTION not in set(_bound(tree)):
        raise Wrong(
            f"it is no analyser: there is no function {FUNCTION} in {name}; a file that others "
            f'import begins with _, and is named in their TOML: files = ["_{name}"]'
        )


def _bound(tree: ast.AST) -> Iterator[str]:
    """Names that may be bound in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ImportFrom | ast.Import):
            for one in node.names:
                yield FUNCTION if one.name == "*" else one.asname or one.name


def _problem(name: str, taken: _Taken) -> str | None:
    if taken.broken is not None:
        return f"{name}: {taken.broken}; until that is mended {taken.analyser.version} goes on"
    return taken.analyser.problem and f"{name}: {taken.analyser.problem}"


def _not_yet(name: str) -> Analyser:
    return Analyser(name, "", "it is new: it is taken once it has not changed for a moment")


def _of_hwsync() -> dict[str, bytes]:
    """The text of the built-in analysers: with it their version changes."""
    here = Path(builtins.__file__).parent
    return {f"hwsync/{one.name}": one.read_bytes() for one in sorted(here.glob("*.py"))}


_BUILTIN_FILES: Final = _of_hwsync()
_OUTCOME: Final = Analyser(
    "outcome", _version("outcome", _BUILTIN_FILES), kind=Kind.BUILTIN, main="outcome"
)

__all__ = ["BUILTINS", "Analyser", "Folder", "Kind"]
