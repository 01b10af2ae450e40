"""The groups of a lab: their file as somebody wrote it, and who gains which board by them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hwsync import groups
from hwsync.cli import app
from hwsync.lab import serving
from hwsync.lab.accounts import Accounts, OperatorRights
from hwsync.lab.folder import Folder
from hwsync.lab.grouping import with_group, without_group
from hwsync.protocol.errors import UsageError
from tests.support.waiting import wait_until

BY_HAND = """\
# ours
lab1 = ["pi1",  # by the door
        "bench-*",
]
# the others
"lab.2" = ['pi2']
lab3 = []  # nobody yet"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Two boards, and alice, who was given one."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # nothing here loses its power
    made = Folder(tmp_path / "lab")
    made.create(Accounts(("lab.local",)), None, signing=False)
    for board in ("pi1", "pi2"):
        made.add_board(board)
    made.add_operator("alice", OperatorRights(("pi1",)))
    return made


def said(text: str) -> dict[str, tuple[str, ...]]:
    return dict(groups.parse(text.encode(), "file").entries)


@pytest.mark.parametrize("name", ["lab1", "lab.2", "lab3", "new", "new.one"])
def test_a_change_of_one_group_leaves_everything_else_as_it_was(name: str) -> None:
    changed = with_group(BY_HAND, name, ["pi7", "x-*"])
    assert said(changed) == said(BY_HAND) | {name: ("pi7", "x-*")}
    for other in {"lab1", "lab.2", "lab3"} - {name}:
        mark = {"lab1": "# by the door", "lab.2": "['pi2']", "lab3": "# nobody yet"}[other]
        assert mark in changed
    assert "# ours\n" in changed
    assert "# the others\n" in changed
    gone = without_group(changed, name)
    assert said(gone) == {key: one for key, one in said(BY_HAND).items() if key != name}
    assert "# the others\n" in gone


def test_a_long_list_has_several_lines() -> None:
    boards = [f"board-{number}" for number in range(100)]
    text = with_group("", "all-of-them", boards)
    assert said(text) == {"all-of-them": tuple(boards)}
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("# The groups of this lab")


def test_a_group_is_set_and_removed(folder: Folder) -> None:
    draft = folder.set_group("lab1", ("pi2", "bench-*", "pi2"))
    assert folder.groups.entries == {"lab1": ("pi2", "bench-*")}
    assert draft.groups_file == folder.groups_file
    assert folder.groups_file.stat().st_mode & 0o777 == 0o644
    assert folder.set_group("lab1", ("pi2", "bench-*")).groups_file is None  # nothing changed
    folder.change_operator("alice", OperatorRights((), groups=("lab1",)))
    rights = (folder.path / "broker/acl").read_text()
    assert "topic write hw/@lab1/request" in rights
    assert "topic write hw/pi2/request" not in rights
    folder.remove_group("lab1")
    assert folder.accounts.operators["alice"].groups == ()
    assert "@lab1" not in (folder.path / "broker/acl").read_text()


@pytest.mark.parametrize(
    ("name", "entries", "what"),
    [
        ("all", ("pi1",), "no group can be called all"),
        ("lab1", ("pi9",), "there is no board pi9"),
        ("lab1", ("@lab2",), "no board's name"),
    ],
)
def test_a_group_that_cannot_be_is_refused(
    folder: Folder, name: str, entries: tuple[str, ...], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        folder.set_group(name, entries)
    assert not folder.groups_file.exists()


def test_a_right_to_a_group_that_is_not_there_is_refused(folder: Folder) -> None:
    with pytest.raises(UsageError, match="there is no group lab9") as raised:
        folder.add_operator("bob", OperatorRights((), groups=("lab9",)))
    assert "hwsync group set lab9" in raised.value.hint
    folder.add_operator("bob", OperatorRights((), groups=("all",)))


def test_a_wrong_file_is_named_by_every_command(folder: Folder) -> None:
    folder.groups_file.write_text("lab1 = 'pi1'")
    with pytest.raises(UsageError, match=r"groups\.toml: lab1 is no list"):
        folder.add_board("pi3")
    assert folder.accounts.boards == ("pi1", "pi2")


def test_who_gains_what_by_a_pattern_is_said(folder: Folder) -> None:
    folder.set_group("lab1", ("pi1", "bench-*"))
    assert folder.add_operator("bob", OperatorRights(None)).gains == []
    gained = folder.add_operator("rita", OperatorRights((), True, ("lab1",))).gains
    assert [str(one) for one in gained] == ["rita may now look at pi1, by @lab1"]
    folder.change_operator("alice", OperatorRights(("pi1",), groups=("lab1",)))
    draft = folder.add_board("bench-1")
    assert [str(one) for one in draft.gains] == [
        "alice may now send programs to the whole of @lab1, and so to bench-1",
        "rita may now look at bench-1, by @lab1",
    ]
    assert folder.add_board("other").gains == []
    _, _, alice = (folder.path / "broker/acl").read_text().partition("\nuser alice\n")
    assert "topic read hw/bench-1/status" in alice.partition("\nuser ")[0]
    gained = folder.set_group("lab1", ("*",)).gains
    assert [str(one) for one in gained if one.operator == "alice"] == [
        "alice may now send programs to the whole of @lab1, and so to other, pi2"
    ]
    assert folder.set_group("lab2", ("*",)).gains == []


def test_a_board_that_is_removed_leaves_its_groups(folder: Folder) -> None:
    folder.set_group("lab1", ("pi1", "pi*"))
    folder.set_group("lab2", ("pi2",))
    assert folder.remove("pi1").groups_file == folder.groups_file
    assert folder.groups.entries == {"lab1": ("pi*",), "lab2": ("pi2",)}
    assert folder.remove("alice").groups_file is None


def test_an_older_lab_has_no_groups(folder: Folder) -> None:
    file = folder.path / "lab.json"
    text = file.read_text()
    fields = Accounts.of_json(folder.accounts.as_json())
    assert fields == folder.accounts
    assert '"groups": []' in text
    without = {**folder.accounts.as_json()}
    for one in without["operators"].values():
        del one["groups"]
    assert Accounts.of_json(without) == folder.accounts


def test_what_is_typed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HWSYNC_LAB", str(folder.path))
    monkeypatch.setattr(app.logs, "setup", lambda *_, **__: None)

    def typed(*words: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["hwsync", *words])
        code: object = 0
        try:
            app.start()
        except SystemExit as ended:
            code = ended.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    assert typed("group", "list")[2] == "there is no group: hwsync group set NAME BOARD...\n"
    code, out, _ = typed("group", "set", "@lab1", "pi1,pi2", "bench-*")
    assert (code, out.splitlines()[:2]) == (
        0,
        ["@lab1: pi1, pi2, bench-*", "  now pi1, pi2; bench-* also means boards that come later"],
    )
    assert "no coordinator of this lab runs here" in out
    assert str(folder.groups_file) in out
    code, out, _ = typed("operator", "change", "alice", "--groups", "lab1")
    assert "  alice may now send programs to the whole of @lab1, and so to pi2" in out
    assert typed("operator", "list")[1] == "alice: @lab1\n"
    assert typed("group", "list")[1] == (
        "@lab1: pi1, pi2, bench-*  (now pi1, pi2); for alice\n"
    )  # fmt: skip
    assert '"gains":[]' in typed("group", "remove", "lab1", "--json")[1]
    for words, what in (
        (("group", "set", "lab1"), "Missing argument"),
        (("group", "set", "lab1", ","), "no boards"),
        (("group", "set", "a b", "pi1"), "cannot be a group's name"),
        (("group", "set", "lab1", "pi9"), "there is no board pi9"),
        (("group", "remove", "lab1"), "there is no group lab1"),
        (("operator", "change", "alice"), "for which boards?"),
        (("operator", "change", "alice", "--boards", "pi1,"), "is no board's name"),
        (("operator", "change", "alice", "--boards", "@lab1"), "is no board's name"),
    ):
        code, out, err = typed(*words)
        assert (code, out) == (2, "")
        assert what in err


WAITS = """
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: sys.exit(7))
print("up", flush=True)
while True:
    signal.pause()
"""


def test_the_coordinator_of_this_lab_is_told_and_no_other(folder: Folder, tmp_path: Path) -> None:
    other = tmp_path / "coordinator.toml"
    other.touch()
    file = folder.file_of("coordinator", folder.accounts)
    deaf = WAITS.replace("lambda *_: sys.exit(7)", "signal.SIG_IGN")

    def started(*words: str, code: str = WAITS, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["python3", "-c", code, *words], executable=sys.executable, stdout=subprocess.PIPE,
            text=True, cwd=folder.path, env={"PATH": os.environ["PATH"], **variables},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    ours = [
        started("coordinator", "--config", str(file)),
        started("coordinator", "--config=coordinator.toml"),
        started("coordinator", "--groups", str(folder.groups_file)),
        started("coordinator", HWSYNC_CONFIG=str(file)),
    ]
    others = [
        started("coordinator", "--config", str(other)),
        started("coordinator", "--config=x", HWSYNC_CONFIG=str(other)),
        started("broker", "--config", str(file)),
    ]
    try:
        told, denied = folder.tell_coordinator()
        assert sorted(told) == sorted(process.pid for process in ours)
        assert denied == []
        assert [process.wait(10) for process in ours] == [7] * len(ours)
        assert [process.poll() for process in others] == [None] * len(others)
        wait_until(lambda: folder.tell_coordinator() == ([], []))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(serving, "STARTS_S", 0.2)
            others.append(started("coordinator", "--config", str(file), code=deaf))
            assert folder.tell_coordinator() == ([], [])  # it has its own mind, or begins
            patched.setattr(serving, "USUAL", str(folder.path))
            handed = {"CREDENTIALS_DIRECTORY": "/run/c", "HWSYNC_CONFIG": "/run/c/hwsync.toml"}
            others.append(started("coordinator", **handed))
            assert folder.tell_coordinator() == ([others[-1].pid], [])
        assert others[-1].wait(10) == 7
    finally:
        for process in (*ours, *others):
            process.send_signal(signal.SIGKILL)
            process.communicate()
