"""``--with``, ``--get`` and ``--out``: what is sent along, written here, and said of the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hwsync.cli import brought_back
from hwsync.cli.brought_back import bring, missing, not_asked_for, save
from hwsync.cli.hints import hints
from hwsync.cli.request import Asked
from hwsync.cli.say import bytes_of
from hwsync.cli.sent_along import gather, patterns
from hwsync.operator.run import RunRequest
from hwsync.protocol.errors import OutputError, UsageError

MIB = 1024 * 1024


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*paths: str, size: int = 1) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"x" * size)


def names(words: list[str], program: str | None = "exp.py", name: str = "exp.py") -> list[str]:
    return sorted(gather(words, program, name))


# -- what goes along -------------------------------------------------------------------------------


def test_a_file_is_called_as_it_is_beside_the_program(here: Path) -> None:
    make("a.csv", "proj/exp.py", "proj/b.py", "proj/data/c.csv", "elsewhere/d.csv")
    assert names(["a.csv"]) == ["a.csv"]
    assert names(["proj/data/c.csv"]) == ["proj/data/c.csv"]
    beside = "proj/exp.py"
    assert names(["proj/b.py", "proj/data/c.csv", "elsewhere/d.csv"], beside) == [
        "b.py", "d.csv", "data/c.csv",
    ]  # fmt: skip
    assert names([str(here / "proj/b.py")], beside) == ["b.py"]
    assert names(["elsewhere/d.csv=in/x.csv"], None) == ["in/x.csv"]
    assert gather(["a.csv"], None, "program.py") == {"a.csv": b"x"}


def test_a_folder_goes_with_all_that_is_in_it(here: Path) -> None:
    make("lib/a.py", "lib/sub/b.py", "lib/.git/x", "lib/__pycache__/a.pyc", "lib/.hidden")
    os.symlink("/etc/passwd", "lib/link")
    os.mkfifo("lib/pipe")
    assert names(["lib/"]) == names(["lib"]) == ["lib/a.py", "lib/sub/b.py"]
    assert names(["lib=m"]) == ["m/a.py", "m/sub/b.py"]
    assert names(["lib"], "lib/exp.py", "exp.py") == ["a.py", "sub/b.py"]


def test_a_name_with_an_equals_sign_is_a_name(here: Path) -> None:
    make("a=b.csv")
    assert names(["a=b.csv"]) == ["a=b.csv"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["never.csv"], "--with never.csv: cannot be read: No such file or directory"),
        (["a.csv/x"], "--with a.csv/x: cannot be read: Not a directory"),
        (["x" * 300], "cannot be read: File name too long"),
        (["empty"], "there are no files in it"),
        (["pipe"], "it is no file"),
        (["a.csv", "sub/a.csv=a.csv"], "two files would be a.csv"),
        (["a.csv=../up"], "'../up' cannot be"),
        (["a.csv=/etc/x"], "'/etc/x' cannot be"),
        (["a.csv=exp.py"], "exp.py is what the program itself"),
        (["a.csv=exp.py/x"], "exp.py cannot be a file and the folder"),
        (["a.csv", "sub/a.csv=a.csv/x"], "a.csv cannot be a file and the folder of a.csv/x"),
    ],
    ids=str,
)
def test_what_cannot_go_along_is_said(here: Path, words: list[str], said: str) -> None:
    make("a.csv", "sub/a.csv")
    Path("empty").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(UsageError) as error:
        gather(words, "exp.py", "exp.py")
    assert said in error.value.message


def test_the_limits_of_what_goes_along(here: Path) -> None:
    make(*(f"many/{number}" for number in range(64)))
    assert len(names(["many"])) == 64
    make("one.more")
    with pytest.raises(UsageError, match="too many files"):
        gather(["many", "one.more"], None, "p.py")
    make("big", size=MIB)
    assert len(gather(["big"], None, "p.py")["big"]) == MIB
    with pytest.raises(UsageError, match=r"1\.05 MB in all, with one\.more"):
        gather(["big", "one.more"], None, "p.py")


def test_patterns_and_folders_that_come_back() -> None:
    assert patterns(["plot.png", "data/*.csv", "results/"]) == (
        "plot.png", "data/*.csv", "results/**",
    )  # fmt: skip
    for wrong in ("../x", "/etc/passwd", "", "a//b"):
        with pytest.raises(UsageError, match="no file below"):
            patterns([wrong])
    assert len(patterns(["a"] * 32)) == 32
    with pytest.raises(UsageError, match="33 patterns"):
        patterns(["a"] * 33)


# -- what comes back -------------------------------------------------------------------------------


def written(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_are_written_below_the_folder(here: Path) -> None:
    found = {"plot.png": b"\x89", "data/may/a.csv": b"1,2"}
    assert save(Path("out/deep"), found, ()) == {}
    assert written(here / "out/deep") == found
    assert save(Path("out/deep"), found, ()) == {}  # the same again is no change


@pytest.mark.parametrize("path", ["../a", "/tmp/a", "a/../../b", "", "a\0b", "./a"])
def test_no_name_leads_out_of_the_folder(here: Path, path: str) -> None:
    assert "not written" in save(Path("out"), {path: b"x"}, [path])[path]
    assert written(here) == {}


def test_no_link_leads_out_of_the_folder(here: Path) -> None:
    make("elsewhere/secret", "out/x")
    os.symlink(here / "elsewhere", here / "out/data")
    os.symlink(here / "elsewhere/secret", here / "out/link")
    found = {"data/secret": b"stolen", "link": b"new", "x/y": b"z"}
    assert list(save(Path("out"), found, found)) == ["data/secret", "x/y"]
    assert (here / "elsewhere/secret").read_bytes() == b"x"
    assert not (here / "out/link").is_symlink()
    assert (here / "out/link").read_bytes() == b"new"


def test_only_what_was_named_is_replaced(here: Path) -> None:
    make("a.csv", "b.csv")
    found = {"a.csv": b"new", "b.csv": b"new"}
    brought = bring({"files": found}, ["b.csv", "*.csv"], found, Path())
    assert brought.remarks == ["hwsync: got b.csv, 3 bytes"]
    said = "hwsync: a.csv is here already with another content: kept as it was"
    assert brought.wrong[0].startswith(said)
    assert brought.saved == {"b.csv": "b.csv"}
    assert written(here) == {"a.csv": b"x", "b.csv": b"new"}


def test_nothing_is_written_that_was_not_asked_for(here: Path) -> None:
    found = {"plot.png": b"1", ".ssh/authorized_keys": b"stolen", "json.py": b"mine"}
    brought = bring({"files": found}, ["plot.png"], found, Path())
    assert brought.saved == {"plot.png": "plot.png"}
    said = "was not asked for, and the board has sent it: not written"
    assert brought.wrong == [
        f"hwsync: {path} {said}" for path in (".ssh/authorized_keys", "json.py")
    ]
    assert bring({"files": found}, [], found, Path()).saved == {}  # without --get
    assert written(here) == {"plot.png": b"1"}


@pytest.mark.parametrize("patterns", [[], ["**"], ["*", "*/*/*"], [".x/?.csv", "**"]])
def test_what_is_hidden_is_written_only_where_a_pattern_says_so(
    here: Path, patterns: list[str]
) -> None:
    """``hwsync get`` in a home: nobody's board writes a ``.profile`` there."""
    found = {".profile": b"1", "a/.git/hooks": b"1", "plot.png": b"1"}
    brought = bring({"files": found}, patterns, found, Path(), later=True)
    assert brought.saved == {"plot.png": "plot.png"}
    assert brought.wrong[0].startswith("hwsync: .profile begins with a dot: not written")
    assert "begins with a dot" in brought.wrong[1]
    assert written(here) == {"plot.png": b"1"}
    typed = [".profile", "**/.git/*"]
    assert list(bring({"files": found}, typed, found, Path()).saved) == [".profile", "a/.git/hooks"]


@pytest.mark.parametrize("name", ["a" * 255, "\N{GRINNING FACE}" * 63])
def test_the_longest_names_are_written(here: Path, name: str) -> None:
    assert save(Path(), {name: b"x"}, ()) == {}
    assert written(here) == {name: b"x"}


def test_a_file_is_whole_or_absent(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("a.csv")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(brought_back.os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write a\.csv: No space left"):
        save(Path(), {"a.csv": b"new"}, ["a.csv"])
    assert written(here) == {"a.csv": b"x"}


def test_a_folder_in_the_place_of_a_file_is_said(here: Path) -> None:
    Path("a.csv").mkdir()
    assert "kept as it was" in save(Path(), {"a.csv": b"x"}, ())["a.csv"]
    with pytest.raises(OutputError, match=r"cannot write a\.csv"):
        save(Path(), {"a.csv": b"x"}, ["a.csv"])
    Path("plain").touch()
    with pytest.raises(OutputError, match="cannot write to plain: "):
        save(Path("plain"), {"a": b""}, ())


def entry(path: str, reason: str, size: int = 31_000) -> dict[str, Any]:
    return {"path": path, "size": size, "reason": reason}


def test_what_was_not_kept_is_said_with_what_to_type() -> None:
    end = {"not_kept": [
        entry("big.bin", "more than 1,572,864 bytes in all", 12_000_000),
        entry("test.png", "not asked for"), entry("a b.png", "not asked for", 1),
        *(entry(f"{number}.csv", "not asked for") for number in range(4)), {"others": 3},
    ]}  # fmt: skip
    assert list(missing(end, ["big.bin"], {})) == [
        "hwsync: big.bin, 12 MB, did not come back: more than 1,572,864 bytes in all",
        "hwsync: test.png, 31 kB, was written on the board and not kept: --get test.png",
        "hwsync: a b.png, 1 byte, was written on the board and not kept: --get 'a b.png'",
        "hwsync: 0.csv, 31 kB, was written on the board and not kept: --get 0.csv",
        "hwsync: 1.csv, 31 kB, was written on the board and not kept: --get 1.csv",
        "hwsync: 5 more files were written on the board and not kept",
    ]


def test_a_file_that_was_named_and_did_not_come_is_said() -> None:
    line, more = missing({"files": {}, "not_kept": []}, ["plot.png", "*.csv"], {})
    assert more == "hwsync: nothing came back for '*.csv': no such file was written"
    assert line.startswith("hwsync: plot.png did not come back: there was no such file")
    (line,) = missing({"files": {"plot.png": {}}}, ["plot.png"], {})
    assert "cannot be had now" in line
    assert list(missing({"files": {"plot.png": {}}}, ["plot.png"], {"plot.png": b""})) == []
    assert list(missing({}, [], {})) == []  # a coordinator of before


def test_a_folder_is_named_with_what_to_type() -> None:
    end = {"files": {}, "not_kept": [entry("out/a", "not asked for"), entry("b.csv", "a link")]}
    *_, line = missing(end, ["out", "out", "b.csv"], {})
    assert line == "hwsync: out is a folder there: --get out/ brings what is in it"
    *_, line = missing({"files": {}, "not_kept": []}, patterns(["results/"]), {})
    assert line == "hwsync: nothing came back for results/: no such file was written"
    assert list(missing({"files": {"out/a": {}}}, ["out/**"], {"out/a": b""})) == []


def test_a_folder_that_nobody_may_read_is_no_empty_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("lib/a.py", "lib/sub/b.py")
    scan = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match="--with lib/sub: cannot be read: Permission denied"):
        gather(["lib"], None, "p.py")


def test_what_several_boards_wrote_is_said_once() -> None:
    ends = [{"not_kept": [entry("a", "not asked for"), entry("b", "a link")]}] * 3
    assert list(not_asked_for([*ends, {}])) == [
        "hwsync: a was written on 3 boards and not kept: --get a"
    ]


def test_what_came_is_said_in_one_line(here: Path) -> None:
    many = {f"f{number}": b"x" * 500 for number in range(7)}
    brought = bring({"files": many}, ["*"], many, Path("out"))
    assert brought.remarks == ["hwsync: got 7 files, 3.5 kB: f0, f1, f2, f3, f4 and 2 more in out"]
    assert brought.saved["f0"] == "out/f0"
    one = bring({"files": {"a": {}}}, ["a"], {"a": b"1"}, Path())
    assert one.remarks == ["hwsync: got a, 1 byte"]


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (31_234, "31.2 kB"),
     (999_999, "1 MB"), (1_048_576, "1.05 MB"), (None, "?"), ("x", "?")],
)  # fmt: skip
def test_sizes_for_people(size: Any, said: str) -> None:
    assert bytes_of(size) == said


def test_a_module_beside_the_program_that_was_not_sent_is_named(here: Path) -> None:
    make("proj/helper.py", "proj/package/__init__.py")
    asked = Asked(RunRequest(program="import helper"), "proj/exp.py")
    end: Any = {"outcome": "error", "reason": "exit code 1"}
    for module, said in (("helper", "proj/helper.py"), ("package.part", "proj/package")):
        end["stderr"] = f"Traceback\nModuleNotFoundError: No module named '{module}'\n"
        assert list(hints(end, asked)) == [
            f"hwsync: {said} stands beside proj/exp.py and was not sent: --with {said}"
        ]
    end["stderr"] = "ModuleNotFoundError: No module named 'numpy'"
    assert list(hints(end, asked)) == []
