"""Copies of the database, made while it is used: one, or one every so many seconds.

The law: a backup is whole or not there, and none is overwritten. No clock that jumps makes an old
one of a new one: they are numbered (docs/decisions.md, 137).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hwsync.protocol.errors import DatabaseError, UsageError
from hwsync.store import private, statements
from hwsync.store.read_only import opened

log = logging.getLogger("hwsync.coordinator")

PAGES: Final = 1_000  # copied at once: the coordinator waits no longer than for so many
KEPT: Final = 10  # backups of the schedule; the oldest is removed
FIRST_S: Final = 60.0  # after a start, where a backup is due: none interrupts a coordinator's start
EVERY_S: Final = (1.0, 2_592_000.0)
DEFAULT_EVERY_S: Final = 86_400.0
NAME: Final = "hwsync-{:06}-%Y%m%dT%H%M%SZ.db"
PATTERN: Final = re.compile(r"hwsync-(?:(\d+)-)?\d{4,}T\d{6}Z\.db", re.ASCII)

Progress = Callable[[int, int], None]  # what remains, of how much


def back_up(path: Path, target: Path, progress: Progress = lambda *_: None) -> None:
    """Copy the database to ``target``, which must not exist, while it may be in use.

    ``progress``: called with the pages that remain, of how many, after each thousand. The copy is
    checked, flushed, and needs no file beside it. Raises ``DatabaseError``; then there is no
    target.
    """
    if target.exists():
        raise DatabaseError(f"{target} exists already", "name a new file: no backup is overwritten")
    part = target.with_name(f"{target.name}.part")
    try:
        with contextlib.closing(opened(path)) as source:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            private.make(part)
            with contextlib.closing(sqlite3.connect(part)) as copy:
                source.backup(copy, pages=PAGES, progress=lambda _, left, all: progress(left, all))
                (said,) = copy.execute(statements.A_FAULT).fetchone()
                # A copy by itself: its reader needs no log beside it.
                copy.execute(statements.ONE_FILE)
        if said != "ok":
            raise DatabaseError(f"the copy of {path} is damaged: {said}", "see hwsync check-db")
        flush(part)
        part.rename(target)
        flush(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise DatabaseError(f"cannot back up {path} to {target}: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """What was written to a file, or renamed in a folder, is on the disk. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def scheduled(folder: Path) -> list[tuple[int, Path]]:
    """The backups of a schedule with their numbers, the oldest first. Raises ``OSError``.

    Those of versions that did not count are older than all, and among themselves as their names
    say. No clock that jumps makes an old one of a new one.
    """
    if not folder.is_dir():
        return []
    named = [(PATTERN.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    found = [(int(match[1] or 0), path) for match, path in named if match]
    return sorted(found, key=lambda one: one[0])


class Schedule:
    """A backup every so many seconds, in a thread beside the coordinator; the last ``KEPT`` stay.

    ``every``: seconds, within ``EVERY_S``. A backup that fails is said in the log.
    """

    def __init__(self, path: Path, folder: Path, every: float) -> None:
        self._path, self._folder, self._every = path, folder, every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hwsync-backup", daemon=True)

    def start(self) -> None:
        """The first one follows an interval after the last one that is there.

        Or soon, where there is none: a coordinator may not live for a whole interval. Raises
        ``UsageError`` where the folder cannot be made, or nothing written there.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise UsageError(
                f"cannot write backups to {self._folder}: {error.strerror}",
                "name a folder that this account may write with --backup-dir; under systemd it "
                "needs ReadWritePaths=, too",
            ) from None
        self._thread.start()

    def stop(self) -> None:
        """No further one; one under way is left alone (it is whole or not there)."""
        self._end.set()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            private.close_to_others(path for _, path in scheduled(self._folder))
        wait = self._until_first()
        while not self._end.wait(wait):
            wait = self._every
            try:
                before = scheduled(self._folder)
                number = before[-1][0] + 1 if before else 1
                target = self._folder / time.strftime(NAME.format(number), time.gmtime())
                back_up(self._path, target)
                for _, old in before[: max(len(before) + 1 - KEPT, 0)]:
                    old.unlink()
            except (DatabaseError, OSError) as error:
                log.error("the backup failed: %s", error)
            except Exception:
                log.exception("hwsync failed on a backup; this is a bug")
            else:
                log.info("backed up to %s", target)

    def _until_first(self) -> float:
        """Seconds, as far as the clock is right; a wrong one makes one too many, none too late."""
        soon = min(FIRST_S, self._every)
        try:
            before = scheduled(self._folder)
            age = time.time() - before[-1][1].stat().st_mtime if before else math.inf
        except OSError:
            return soon
        return max(self._every - age, soon) if age >= 0.0 else soon
