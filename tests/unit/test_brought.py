"""Which files of a folder come back, and that nothing leads the reader out of it or holds it up."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.files import NOT_ASKED, TOO_LARGE, TOO_MANY, NotKept
from hwsync.protocol.limits import (
    MAX_COLLECTED,
    MAX_COLLECTED_BYTES,
    MAX_NAMES,
    MAX_NOT_KEPT,
    MAX_PATH,
)
from hwsync.runner import brought
from hwsync.runner.brought import CHANGED, CROWDED, Budget, Snapshot, Wanted, bring_back

PATIENCE = 10.0  # seconds: whoever waits for somebody is found by it


class Folder:
    """One that a run has left; each test asks it for what it wants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.left: dict[str, str] = {}

    def write(self, path: str, text: str = "x") -> Path:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def asked(self, *patterns: str, budget: Budget | None = None, **wanted: Any) -> dict[str, str]:
        """The texts of the files that come back by their paths; the reasons are in ``left``."""
        given = {"given": {}, "passed": frozenset[str](), "uid": os.geteuid()} | wanted
        found: list[Any] = []

        def bring() -> None:
            found.append(
                bring_back(self.descriptor, Wanted(patterns, **given), budget or Budget(PATIENCE))
            )

        thread = threading.Thread(target=bring, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert found, "it waits for somebody"
        files, self.not_kept = found[0]
        self.left = {one.path: one.reason for one in self.not_kept}
        assert all(one.size == len(one.data or b"") for one in files)
        return {one.path: (one.data or b"").decode() for one in files}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    path = tmp_path / "work"
    path.mkdir()
    one = Folder(path)
    yield one
    os.close(one.descriptor)


def test_what_matches_comes_back_in_the_order_of_names_and_the_rest_is_named(
    folder: Folder,
) -> None:
    for name in ("b.csv", "a.csv", "data/c.csv", "data/deep/d.csv", "other.txt"):
        folder.write(name, name)
    assert list(folder.asked("*.csv", "data/**/d.*")) == ["a.csv", "b.csv", "data/deep/d.csv"]
    assert folder.left == {"data/c.csv": NOT_ASKED, "other.txt": NOT_ASKED}


def test_nothing_asked_and_nothing_written(folder: Folder) -> None:
    assert folder.asked() == {}
    assert folder.left == {}


def test_an_input_comes_back_only_if_it_has_changed(folder: Folder) -> None:
    folder.write("same.csv", "1")
    folder.write("other.csv", "2")
    folder.write("longer.csv", "333")
    given = {"same.csv": b"1", "other.csv": b"1", "longer.csv": b"3", "gone.csv": b"4"}
    assert folder.asked("*.csv", given=given) == {"other.csv": "2", "longer.csv": "333"}
    assert folder.left == {}
    assert folder.asked(given=given) == {}
    assert folder.left == {"other.csv": NOT_ASKED, "longer.csv": NOT_ASKED}


def test_python_s_own_files_are_named_only_where_they_are_asked_for(folder: Folder) -> None:
    folder.write("lib/__pycache__/lib.pyc")
    assert folder.asked() == {}
    assert folder.left == {}
    assert list(folder.asked("**/*.pyc")) == ["lib/__pycache__/lib.pyc"]


def test_hwsync_s_own_names_are_nobody_s(folder: Folder) -> None:
    folder.write("program.py")
    folder.write(".hwsync-program.py")
    passed = frozenset({"program.py", ".hwsync-program.py"})
    assert folder.asked("**", passed=passed) == {}
    assert folder.left == {}


# -- how many, and how large -----------------------------------------------------------------------


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_how_many_files_come_back(folder: Folder, more: int) -> None:
    for number in range(MAX_COLLECTED + more):
        folder.write(f"{number:03}")
    assert len(folder.asked("*")) == min(MAX_COLLECTED, MAX_COLLECTED + more)
    assert folder.left == ({"064": TOO_MANY} if more > 0 else {})


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_how_large_all_of_them_are(folder: Folder, more: int) -> None:
    folder.write("a", "x" * 1000)
    folder.write("b", "x" * (MAX_COLLECTED_BYTES - 1000 + more))
    folder.write("c", "")
    assert list(folder.asked("*")) == (["a", "c"] if more > 0 else ["a", "b", "c"])
    assert folder.left == ({"b": TOO_LARGE} if more > 0 else {})


def test_a_sparse_file_is_as_large_as_it_says(folder: Folder) -> None:
    os.truncate(folder.write("huge"), 1 << 40)
    os.truncate(folder.write("small"), 1000)
    assert folder.asked("*") == {"small": "x" + "\0" * 999}
    assert folder.not_kept == (NotKept("huge", 1 << 40, TOO_LARGE),)


def test_how_many_are_named_that_do_not_come_back(folder: Folder) -> None:
    for number in range(MAX_NOT_KEPT + 36):
        folder.write(f"{number:03}")
    os.symlink("000", folder.path / "wanted")
    folder.asked("wanted")
    assert folder.not_kept[0] == NotKept("wanted", 3, "it is a link")
    assert len(folder.not_kept) == MAX_NOT_KEPT + 1
    assert folder.not_kept[-1] == NotKept("", 0, "", 37)


def test_how_many_names_are_looked_at(folder: Folder) -> None:
    for number in range(20):
        folder.write(f"{number:02}")
    folder.write("sub/z")
    assert len(folder.asked("**", budget=Budget(PATIENCE, 22))) == 21
    assert folder.left == {}
    # What is asked for by its own name is looked at first; of the others, so many.
    found = folder.asked("**", "sub/z", budget=Budget(PATIENCE, 10))
    assert len(found) in (10, 11)
    assert "sub/z" in found
    assert folder.left == {".": "looked at 10 names only"}
    assert MAX_NAMES == 10_000


def test_how_long_it_looks(folder: Folder) -> None:
    for number in range(20):
        folder.write(f"{number:02}")
    ticks = itertools.count()
    folder.asked("*", budget=Budget(30, clock=lambda: float(next(ticks))))
    assert folder.left["."] == "looked for 22 s only"


def test_a_file_for_which_no_time_is_left(folder: Folder) -> None:
    folder.write("a", "x" * 1000)
    folder.write("b")
    ticks = iter([0.0] * 6 + [100.0] * 100)  # it is late in the middle of the first one
    assert folder.asked("a", budget=Budget(30, clock=lambda: next(ticks))) == {}
    assert folder.left["a"].startswith("no time was left")


# -- what is no file -------------------------------------------------------------------------------


def test_links_lead_nowhere(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    folder.write("inside/file")
    os.symlink(tmp_path / "secret", folder.path / "link")
    os.symlink("/etc/passwd", folder.path / "passwd")
    os.symlink(tmp_path / "outside", folder.path / "folder")
    os.symlink("inside", folder.path / "within")
    os.symlink("nowhere", folder.path / "dangling")
    found = folder.asked("**", "folder/secret", "within/file", "link")
    assert found == {"inside/file": "x"}
    links = ("link", "passwd", "folder", "within", "dangling")
    assert folder.left == dict.fromkeys(links, "it is a link")


def test_a_file_with_a_second_name_is_somebody_else_s(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    os.link(tmp_path / "secret", folder.path / "mine")
    assert folder.asked("**") == {}
    assert folder.left == {"mine": "it has more than one name"}


def test_nobody_waits_for_a_pipe_or_opens_a_device(folder: Folder) -> None:
    os.mkfifo(folder.path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder.path)  # a socket's path is short
    listening.bind("socket")
    os.chdir(here)
    with listening:
        assert folder.asked("**", "pipe") == {}
    assert folder.left == {"pipe": "it is a named pipe", "socket": "it is a socket"}
    assert folder.asked() == {}
    assert folder.left == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices and other people's files")
def test_devices_and_other_people_s_files(folder: Folder) -> None:
    try:
        os.mknod(folder.path / "zero", 0o20666, os.makedev(1, 5))
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    os.chown(folder.write("theirs"), 12345, 12345)
    assert folder.asked("**") == {}
    assert folder.left == {"zero": "it is a device", "theirs": "it belongs to another account"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk")
def test_another_disk_in_the_folder_is_another_folder(folder: Folder) -> None:
    folder.write("disk/below")
    disk = folder.path / "disk"
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mounting, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        folder.write("disk/file")
        assert folder.asked("**") == {}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert folder.left == {"disk/": "it cannot be looked into: it is another file system"}


def test_names_that_no_message_can_have(folder: Folder) -> None:
    for name in (b"bad\xff", b"new\nline", b"good\xc3\xa4"):
        with open(os.path.join(os.fsencode(folder.path), name), "wb") as file:
            file.write(b"x")
    assert list(folder.asked("**")) == ["goodä"]
    assert folder.left == {
        "bad\ufffd": "its name is no UTF-8",
        "new?line": "its name has a control character",
    }
    assert folder.asked() == {}
    assert set(folder.left) == {"bad\ufffd", "new?line", "goodä"}


def test_a_tree_that_is_deeper_than_a_path(folder: Folder) -> None:
    here = os.dup(folder.descriptor)
    for depth in range(400):
        if depth % 20 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.mkdir("d" * 9, dir_fd=here)
        above, here = here, os.open("d" * 9, os.O_RDONLY, dir_fd=here)
        os.close(above)
    os.close(here)
    before = len(os.listdir("/proc/self/fd"))
    found = folder.asked("**")
    assert len(os.listdir("/proc/self/fd")) == before
    assert [len(path) for path in found] == [204, 4]  # the next one would have 404
    (deepest,) = folder.left
    assert len(folder.not_kept) == 1
    assert len(deepest) <= MAX_PATH
    assert folder.left[deepest].endswith(f"a path has at most {MAX_PATH} bytes")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_what_its_account_may_not_read(folder: Folder) -> None:
    """Of a device without root, which reads as the programs' account."""
    for name in ("closed/a", "unsearchable/a", "secret", "b"):
        folder.write(name)
    for name, mode in (("closed", 0), ("unsearchable", 0o400), ("secret", 0)):
        (folder.path / name).chmod(mode)
    for above, names, files in os.walk(folder.path):
        for one in (*names, *files):
            os.chown(os.path.join(above, one), 12345, 12345)
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.setresuid(12345, 12345, 12345)
        files = bring_back(
            folder.descriptor, Wanted(("**",), {}, frozenset(), 12345), Budget(PATIENCE)
        )
        os.write(writing, repr([[one.path for one in files[0]], files[1]]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    hidden = "it cannot be looked into: Permission denied"
    left = [
        NotKept("closed/", 0, hidden),
        NotKept("unsearchable/", 0, hidden),
        NotKept("secret", 1, "it cannot be read: Permission denied"),
    ]
    assert said == repr([["b"], tuple(left)])


# -- what moves meanwhile --------------------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, do: Callable[[], object]) -> None:
    """Has it done once, right before the first call of ``os.NAME`` for a file's bytes."""
    real = getattr(os, name)
    calls = iter([do])

    def called(*arguments: Any, **keys: Any) -> Any:
        for call in calls:
            call()
        return real(*arguments, **keys)

    monkeypatch.setattr(brought.os, name, called)


@pytest.mark.parametrize("change", ["longer", "shorter", "other bytes", "removed and made anew"])
def test_a_file_that_changes_while_it_is_read(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file = folder.write("log", "x" * 100)
    folder.write("second", "y")

    def write() -> None:
        if change == "removed and made anew":
            file.unlink()
        if change == "shorter":
            os.truncate(file, 10)
        else:
            file.write_text("z" * (100 if change == "other bytes" else 101))

    meanwhile(monkeypatch, "read", write)
    assert folder.asked("*") == {"second": "y"}
    assert folder.left == {"log": CHANGED}


def test_a_folder_that_becomes_a_link_during_the_walk(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    folder.write("data/secret", "mine")
    real, swapped = brought.is_asked_for, iter([True])

    def swap(*arguments: Any) -> bool:
        if next(swapped, False):
            (folder.path / "data").rename(folder.path / "elsewhere")
            os.symlink(tmp_path / "outside", folder.path / "data")
        return real(*arguments)

    monkeypatch.setattr(brought, "is_asked_for", swap)
    assert folder.asked("data/*") == {}
    assert folder.left == {"data/secret": "it cannot be read: Not a directory"}


def test_a_file_that_becomes_a_link_or_a_pipe_before_it_is_opened(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("secret")
    one, two = folder.write("one"), folder.write("two")
    real, swapped = brought.is_asked_for, iter([True])

    def swap(*arguments: Any) -> bool:
        if next(swapped, False):
            one.unlink()
            os.symlink(tmp_path / "secret", one)
            two.unlink()
            os.mkfifo(two)
        return real(*arguments)

    monkeypatch.setattr(brought, "is_asked_for", swap)
    assert folder.asked("*") == {}
    assert folder.left == {"one": "it is a link", "two": "it is a named pipe"}


# -- a folder that is kept -------------------------------------------------------------------------


def test_of_a_kept_folder_only_what_is_new_or_changed(folder: Folder) -> None:
    for name in ("old", "changed", "replaced", "sub/old"):
        folder.write(name, "before")
    then = os.stat(folder.path / "changed")
    until = time.monotonic() + PATIENCE
    while folder.write("tick").stat().st_ctime_ns == then.st_ctime_ns:  # that clock is a coarse one
        assert time.monotonic() < until
    before = Snapshot(folder.descriptor, ("**",))
    folder.write("changed", "after!")  # as many bytes, and of the same age
    os.utime(folder.path / "changed", ns=(then.st_atime_ns, then.st_mtime_ns))
    folder.write("replacement", "after!").rename(folder.path / "replaced")
    folder.write("sub/new", "new")
    expected = {"changed": "after!", "replaced": "after!", "sub/new": "new"}
    assert folder.asked("**", before=before) == expected
    assert folder.left == {}
    assert folder.asked(before=before) == {}
    assert folder.left == dict.fromkeys(expected, NOT_ASKED)


def test_of_a_kept_folder_with_too_many_names_what_is_named_comes_back(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brought, "Budget", lambda seconds: Budget(seconds, 3))
    for number in range(10):
        folder.write(f"{number}")
    before = Snapshot(folder.descriptor, ("plot", "9", "*.csv"))
    folder.write("plot", "plot")
    folder.write("a.csv", "new")
    assert folder.asked("plot", "9", "*.csv", before=before) == {"plot": "plot"}
    assert folder.left == {"a.csv": CROWDED}
