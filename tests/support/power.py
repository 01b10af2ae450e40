"""A disk that loses power: what SQLite writes is recorded, and cut off after any operation.

``Disk`` keeps every operation on the files of one folder, in order; ``Disk.image`` says what of
them a disk with a volatile cache might hold if the power went right after one of them. Nothing has
to be killed for that: until then the process did what it did in the recording, and after a cut it
does nothing, so one recording serves every cut of it.

What a cut leaves:

- All of a file's content that was synced (xSync), whatever the kind of sync.
- Of the writes and truncations since then, each by itself: kept, lost, or torn, which leaves some
  of its sectors. A later one may be kept where an earlier one is lost. A lost write beyond the end
  may have made the file longer; what stands there is zeros, or what the disk held before.
- Of the folder, all that was done until it was synced last, and of what came since, each creation
  and deletion by itself: a new file may be missing, a deleted one be back. SQLite syncs the folder
  with the first sync of a new journal or log, and with a deletion that asks for it (on Unix; with
  no sync of a database file: a new one is found again only after the journal's sync).
- Beside the database a -shm file with anything in it: it is written past the VFS and never synced.

Not modelled: a disk that lies about a sync, or that damages sectors beside a write; SQLite is told
by the Unix VFS that there are none of the latter (SQLITE_IOCAP_POWERSAFE_OVERWRITE).
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import apsw

SECTOR: Final = 512  # bytes that a disk writes whole or not at all
IMAGES: Final = 2  # of each cut, differently drawn
STARTS: Final = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
"""The kinds of file whose first sync also syncs the folder, where it is new."""


@dataclass(frozen=True, slots=True)
class Created:
    """A file that was not there; ``starts``: its first sync is one of the folder too."""

    file: int
    name: str
    starts: bool


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes of a file, at an offset."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    """The file's new size, in bytes."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """What the file holds now outlives a cut."""

    file: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """A name is gone; ``flushed``: and that outlives a cut."""

    name: str
    flushed: bool


Operation = Created | Written | Truncated | Synced | Deleted


class Disk:
    """One folder's operations, recorded while it is mounted (``tests.support.power_sqlite``)."""

    NAME: Final = "volatile"  # of the VFS

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._names: dict[str, int] = {}
        self._files = 0

    def __enter__(self) -> Self:
        self._vfs = _Recording(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._vfs.unregister()

    @property
    def count(self) -> int:
        """How many operations there were so far."""
        return len(self.operations)

    def opened(self, name: str, kind: int) -> int:
        """The number of the file of that name, which may be new."""
        if name not in self._names:
            self._files += 1
            self._names[name] = self._files
            self.operations.append(Created(self._files, name, bool(kind & STARTS)))
        return self._names[name]

    def deleted(self, name: str, flushed: bool) -> None:
        """A name is gone."""
        if self._names.pop(name, None) is not None:
            self.operations.append(Deleted(name, flushed))

    def image(self, cut: int, dice: random.Random) -> dict[str, bytes]:
        """The files, by name, that one cut might leave right after so many operations."""
        folder = _Folder()
        for operation in self.operations[:cut]:
            folder.perform(operation)
        return folder.survive(dice)

    def images(self, folder: Path, seed: int) -> Iterator[Image]:
        """All cuts, from before the first operation to after the last, ``IMAGES`` of each.

        Each image is in a ``folder`` of its own, which is removed when the next one is asked for.
        """
        for cut in range(self.count + 1):
            for number in range(IMAGES):
                files = self.image(cut, random.Random(f"{seed} {cut} {number}"))
                image = Image(cut, number, seed, folder / f"{cut}-{number}", files)
                image.write(image.folder)
                yield image
                shutil.rmtree(image.folder)


@dataclass(frozen=True, slots=True)
class Image:
    """What one cut left. The same numbers and the same recording make the same image."""

    cut: int  # operations that were done before it
    number: int  # from 0, of the cut's images
    seed: int
    folder: Path = field(repr=False)
    files: dict[str, bytes] = field(repr=False)

    def write(self, folder: Path) -> None:
        """Put the files there; the folder is made."""
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)

    def look_at(self, name: str) -> Path:
        """That file in a copy, since reading a database may already change it."""
        self.write(self.folder / "copy")
        return self.folder / "copy" / name


@dataclass(slots=True)
class _File:
    starts: bool
    synced: bytes = b""
    since: list[Written | Truncated] = field(default_factory=list)


@dataclass(slots=True)
class _Folder:
    """The files with their caches; ``since``: names that changed since the folder was synced."""

    files: dict[int, _File] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    since: list[tuple[str, int | None]] = field(default_factory=list)

    def perform(self, operation: Operation) -> None:
        match operation:
            case Created(file, name, starts):
                self.files[file] = _File(starts)
                self.since.append((name, file))
            case Written(number) | Truncated(number):
                self.files[number].since.append(operation)
            case Synced(number):
                file_ = self.files[number]
                content = bytearray(file_.synced)
                for change in file_.since:
                    _apply(content, change)
                file_.synced, file_.since = bytes(content), []
                if file_.starts:
                    file_.starts = False
                    self._sync()
            case Deleted(name, flushed):
                self.since.append((name, None))
                if flushed:
                    self._sync()

    def _sync(self) -> None:
        self.synced, self.since = self._names(self.since), []

    def _names(self, changes: list[tuple[str, int | None]]) -> dict[str, int]:
        names = dict(self.synced)
        for name, file in changes:
            names.pop(name, None)
            if file is not None:
                names[name] = file
        return names

    def survive(self, dice: random.Random) -> dict[str, bytes]:
        kept = dice.random()  # how much of the cache reached the disk, this time
        names = self._names([change for change in self.since if dice.random() < kept])
        files = {name: _survive(self.files[file], kept, dice) for name, file in names.items()}
        for name in [name for name in files if name.endswith("-wal")]:
            if dice.random() < 0.5:
                files[name.removesuffix("-wal") + "-shm"] = dice.randbytes(32_768)
        return files


def _survive(file: _File, kept: float, dice: random.Random) -> bytes:
    content = bytearray(file.synced)
    for change in file.since:
        if dice.random() < kept:
            _apply(content, change)
        elif isinstance(change, Written):
            _grow(content, change, dice)
            if dice.random() < 0.5:
                _tear(content, change, dice)
    return bytes(content)


def _apply(content: bytearray, change: Written | Truncated) -> None:
    if isinstance(change, Truncated):
        del content[change.size :]
        return
    content.extend(bytes(max(change.offset - len(content), 0)))
    content[change.offset : change.offset + len(change.data)] = change.data


def _grow(content: bytearray, lost: Written, dice: random.Random) -> None:
    """The file may be as long as if the write had not been lost."""
    missing = lost.offset + len(lost.data) - len(content)
    if missing > 0 and dice.random() < 0.5:
        content.extend(bytes(missing) if dice.random() < 0.5 else dice.randbytes(missing))


def _tear(content: bytearray, written: Written, dice: random.Random) -> None:
    """Some sectors of it; a disk's sectors begin at multiples of their size."""
    end = written.offset + len(written.data)
    for sector in range(written.offset // SECTOR, -(-end // SECTOR)):
        if dice.random() < 0.5:
            start = max(sector * SECTOR, written.offset)
            stop = min((sector + 1) * SECTOR, end)
            data = written.data[start - written.offset : stop - written.offset]
            _apply(content, Written(written.file, start, data))


class _Recording(apsw.VFS):
    """The system's own VFS, whose files tell the disk what is done to them."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.NAME, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:
            return apsw.VFSFile("", name, flags)  # a temporary one: nothing of it is to be found
        file = _RecordedFile(name, flags)
        file.records(self._disk, self._disk.opened(Path(path).name, flags[0]))
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self._disk.deleted(Path(filename).name, syncdir)


class _RecordedFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)

    def records(self, disk: Disk, file: int) -> None:
        self._disk, self._file = disk, file

    def xWrite(self, data: Any, offset: int) -> None:
        super().xWrite(data, offset)
        self._disk.operations.append(Written(self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._disk.operations.append(Truncated(self._file, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._disk.operations.append(Synced(self._file))
