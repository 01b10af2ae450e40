"""A lab's files: who can read them, not for a moment more; what a cut-off command leaves."""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hwsync.broker.access import Passwords
from hwsync.lab import files, serving
from hwsync.lab import folder as module
from hwsync.lab.accounts import COORDINATOR, Accounts, OperatorRights, acl
from hwsync.lab.folder import Draft, Folder
from hwsync.protocol.errors import UsageError
from tests.support.processes import environment
from tests.support.waiting import wait_until

EMPTY = Accounts(("lab.local",))
SECRETS = ("coordinator.toml", "boards/pi1.toml", "operators/alice.toml", "ca.key")
FOR_BROKER = ("broker/broker.key", "broker/boards.passwords", "broker/operators.passwords",
              "broker/acl", "broker/broker.crt", "broker/ca.crt")  # fmt: skip
FOR_ALL = ("broker.conf", "lab.json", "ca.crt")


class Cut(BaseException):
    """The power, or kill -9: nothing of hwsync catches it."""


@pytest.fixture
def open_mask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def folder(tmp_path: Path, no_flush: None) -> Folder:
    """pi1 and alice, who may use it."""
    made = Folder(tmp_path / "lab")
    made.create(EMPTY, None, signing=True)
    made.add_board("pi1")
    made.add_operator("alice", OperatorRights(("pi1",)))
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def broker_group() -> int | None:
    for name in files.GROUPS:
        with contextlib.suppress(KeyError):
            return grp.getgrnam(name).gr_gid
    return None


# -- who can read them -----------------------------------------------------------------------------


def test_secrets_are_their_owners_and_the_brokers_files_its_groups(folder: Folder) -> None:
    assert {name: mode(folder.path / name) for name in SECRETS} == dict.fromkeys(SECRETS, 0o600)
    broker = {name: mode(folder.path / name) for name in FOR_BROKER}
    assert broker == dict.fromkeys(FOR_BROKER, 0o640)
    assert {name: mode(folder.path / name) for name in FOR_ALL} == dict.fromkeys(FOR_ALL, 0o644)
    folders = [mode(folder.path / name) for name in (".", "broker", "boards", "operators")]
    assert folders == [0o755, 0o750, 0o700, 0o700]
    known = {folder.path / name for name in (*SECRETS, *FOR_BROKER, *FOR_ALL, "broker/lock")}
    assert {path for path in folder.path.rglob("*") if path.is_file()} == known
    if os.geteuid() == 0 and broker_group() is not None:
        for name in (*FOR_BROKER, "broker"):
            assert (folder.path / name).stat().st_gid == broker_group(), name
        for name in (*SECRETS, "boards", "operators"):
            assert (folder.path / name).stat().st_gid != broker_group(), name


def test_only_root_gives_files_to_the_broker_and_to_the_first_group_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_flush: None
) -> None:
    given: list[tuple[str, int]] = []

    def fchown(descriptor: int, owner: int, group: int) -> None:
        assert owner == -1
        given.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, group))

    def named(name: str) -> SimpleNamespace:
        if name == "hwsync-broker":
            raise KeyError(name)
        return SimpleNamespace(gr_gid=4711)

    monkeypatch.setattr(os, "fchown", fchown)
    monkeypatch.setattr(grp, "getgrnam", named)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    files.write(tmp_path / "acl", "text", files.FOR_BROKER)
    files.make_folder(tmp_path / "own", 0o750, for_broker=True)
    assert given == []
    assert (mode(tmp_path / "acl"), mode(tmp_path / "own")) == (0o600, 0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for number in (files.FOR_BROKER, files.SECRET, files.FOR_ALL):
        files.write(tmp_path / "acl", "text", number)
    files.make_folder(tmp_path / "broker", 0o750, for_broker=True)
    assert [(name.startswith(".acl."), group) for name, group in given[:-1]] == [(True, 4711)]
    assert given[-1] == ("broker", 4711)


def test_nothing_secret_is_open_to_others_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_mask: None
) -> None:
    """Looked at after every call that makes, changes or renames something."""
    lab = Folder(tmp_path / "lab")
    seen: set[str] = set()

    def look() -> None:
        for name in ("boards", "operators"):
            assert not (lab.path / name).exists() or mode(lab.path / name) == 0o700
        assert not (lab.path / "broker").exists() or mode(lab.path / "broker") == 0o750
        for path in lab.path.rglob("*"):
            if path.is_file() and path.parent.name != "lab":
                assert mode(path) & 0o007 == 0, path
            if path.name.lstrip(".").startswith(("coordinator.toml", "ca.key")):
                assert mode(path) & 0o077 == 0, path
                seen.add(path.name)

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made = real(*arguments, **options)
            look()
            return made

        return call

    for name in ("open", "fsync", "fchmod", "mkdir", "chmod", "replace"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    lab.create(EMPTY, None, signing=True)
    lab.add_board("pi1")
    lab.add_operator("alice", OperatorRights(None))
    lab.rotate("pi1")
    lab.rotate_key()
    assert {"coordinator.toml", "ca.key"} < seen  # and the new files beside them
    assert mode(lab.path / "boards") == 0o700


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path, no_flush: None) -> None:
    (tmp_path / "home").mkdir(0o700)
    Folder(tmp_path / "home").create(EMPTY, None, signing=False)
    assert mode(tmp_path / "home") == 0o700


# -- a file is there whole -------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file = tmp_path / "file"
    files.write(file, "old", files.SECRET)
    before = file.stat().st_ino

    def full(*_: object) -> None:
        assert file.read_text() == "old"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(UsageError, match="No space left on device"):
            files.write(file, "new", files.SECRET)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    # What a process that was killed has left is in nobody's way.
    (tmp_path / f".file.{os.getpid()}").write_text("left over")
    files.write(file, "new", files.FOR_ALL)
    assert (file.read_text(), mode(file)) == ("new", 0o644)
    assert file.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [file]


def test_what_the_disk_says_is_for_people(tmp_path: Path) -> None:
    for call in (
        lambda: files.read(tmp_path / "none"),
        lambda: files.write(tmp_path / "none/file", "", files.SECRET),
        lambda: files.make_folder(Path("/proc/none"), 0o700),
        lambda: files.remove(Path("/proc/self/stat/x")),
    ):
        with pytest.raises(UsageError, match=r"none|/proc"):
            call()
    files.remove(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="bytes is not UTF-8"):
        files.read(tmp_path / "bytes")


# -- a command that is cut off ---------------------------------------------------------------------

Change = Callable[[Folder], Draft]
CHANGES: dict[str, Change] = {
    "init": lambda lab: lab.create(EMPTY, None, signing=True),
    "device add": lambda lab: lab.add_board("pi2"),
    "operator add": lambda lab: lab.add_operator("bob", OperatorRights(None)),
    "analyst add": lambda lab: lab.add_analyst("check"),
    "operator change": lambda lab: lab.change_operator("alice", OperatorRights(None)),
    "device remove": lambda lab: lab.remove("pi1"),
    "operator remove": lambda lab: lab.remove("alice"),
    "device rotate": lambda lab: lab.rotate("pi1"),
    "rotate coordinator": lambda lab: lab.rotate(COORDINATOR),
    "init --renew": lambda lab: lab.renew(("new.local",), None),
    "key rotate": lambda lab: lab.rotate_key(),
}


def whole(lab: Folder) -> None:
    """Every account is known to the broker by the password in its file, and nobody else is."""
    accounts = lab.accounts
    assert (lab.path / "broker/acl").read_text() == acl(accounts)
    for kind, names in (("boards", (COORDINATOR, *accounts.boards)),
                        ("operators", accounts.people)):  # fmt: skip
        file = lab.path / f"broker/{kind}.passwords"
        assert [line.split(":")[0] for line in file.read_text().splitlines()] == sorted(
            names, key=lambda name: (name != COORDINATOR, name)
        )
        for name in names:
            own = module.tomllib.loads(lab.file_of(name, accounts).read_text())
            assert Passwords(file).accept(name, own["password"]), name
            assert own["ca"].strip() == (lab.path / "ca.crt").read_text().strip()
    folders = [lab.path / kind for kind in ("boards", "operators", "analysts")]
    there = {file.stem for one in folders if one.exists() for file in one.iterdir()}
    assert there == {*accounts.names}


@pytest.mark.parametrize("change", CHANGES)
def test_a_command_that_was_cut_off_is_typed_again(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Cut before each file that it writes or removes; ``lab.json`` says what counts until then."""
    steps = 0
    while True:
        lab = Folder(tmp_path / f"cut-{steps}")
        if change != "init":
            shutil.copytree(folder.path, lab.path)
        before = lab.accounts if change != "init" else None
        left = steps

        def counted(real: Callable[..., None], *arguments: Any) -> None:
            nonlocal left
            if left == 0:
                raise Cut
            left -= 1
            real(*arguments)

        with monkeypatch.context() as patched:
            for name in ("write", "remove"):
                real = getattr(files, name)
                patched.setattr(module, name, lambda *a, real=real: counted(real, *a))
            try:
                CHANGES[change](lab)
                break
            except Cut:
                pass
        if before is None:
            with pytest.raises(UsageError, match="is no lab"):
                _ = lab.accounts
        else:
            assert lab.accounts == before
        CHANGES[change](lab)
        whole(lab)
        steps += 1
    whole(lab)
    assert steps >= 4, "nothing was cut"


def test_two_commands_at_the_same_time_are_both_there(folder: Folder, tmp_path: Path) -> None:
    code = (
        "import sys; from hwsync.lab.folder import Folder\n"
        "lab = Folder(__import__('pathlib').Path(sys.argv[1]))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for number in range(10): lab.add_board(f'{sys.argv[2]}-{number}')\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(folder.path), name], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         env=environment(tmp_path))
        for name in ("a", "b")
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running:
        assert process.communicate(timeout=30)[1] == ""
    both = {f"{name}-{number}" for name in ("a", "b") for number in range(10)}
    assert set(folder.accounts.boards) == {"pi1"} | both
    whole(folder)


def test_of_two_that_make_a_lab_at_the_same_time_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_flush: None
) -> None:
    real = module.locked
    lab = Folder(tmp_path / "lab")

    def beaten(file: Path) -> Any:
        monkeypatch.setattr(module, "locked", real)
        Folder(lab.path).create(EMPTY, None, signing=False)
        return real(file)

    monkeypatch.setattr(module, "locked", beaten)
    with pytest.raises(UsageError, match="is a lab already"):
        lab.create(EMPTY, None, signing=True)
    assert lab.accounts.trust == ()
    whole(lab)


# -- the broker is told ----------------------------------------------------------------------------


def test_the_broker_of_this_folder_is_told_and_no_other(folder: Folder, tmp_path: Path) -> None:
    """Wherever it was started, and however the file was named."""
    code = "import signal, sys; print('up', flush=True); signal.sigwait([signal.SIGHUP])"
    waiting = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]); {code}"
    other = tmp_path / "other/broker.conf"
    other.parent.mkdir()
    other.touch()
    (tmp_path / "link").symlink_to(folder.path)

    def started(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
        words = [arguments[0], "-c", waiting, *arguments[1:]]
        process = subprocess.Popen(
            words, executable=sys.executable, stdout=subprocess.PIPE, text=True, cwd=cwd
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    conf = str(folder.path / "broker.conf")
    ours = [
        started("mosquitto", conf, cwd=tmp_path),
        started("/usr/sbin/mosquitto", "broker.conf", cwd=folder.path),
        started("mosquitto", "link/broker.conf", cwd=tmp_path),
        started("python3", "broker", conf, cwd=tmp_path),
    ]
    others = [
        started("mosquitto", str(other), cwd=tmp_path),
        started("mosquitto", "broker.conf", cwd=other.parent),
        started("less", conf, cwd=tmp_path),
    ]
    try:
        told, denied = Folder(tmp_path / "link").reload()
        assert sorted(told) == sorted(process.pid for process in ours)
        assert denied == []
        assert [process.wait(10) for process in ours] == [0] * len(ours)
        assert [process.poll() for process in others] == [None] * len(others)
        wait_until(lambda: folder.reload() == ([], []))
    finally:
        for process in (*ours, *others):
            process.kill()
            process.communicate()


def test_a_broker_of_another_account_is_named(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(pid: int, number: int) -> None:
        assert number == signal.SIGHUP
        raise PermissionError if pid == os.getpid() else ProcessLookupError

    monkeypatch.setattr(serving, "_serves", lambda pid, conf: pid in (1, os.getpid()))
    monkeypatch.setattr(os, "kill", kill)
    assert folder.reload() == ([], [os.getpid()])
