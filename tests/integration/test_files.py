"""Files of a run, in and out, with real processes: in each way, and at an instant."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwsync.protocol.errors import CannotRun
from hwsync.protocol.files import NOT_ASKED, File, NotKept
from hwsync.protocol.limits import MAX_COLLECTED_BYTES, MAX_FILES, MAX_FILES_BYTES
from hwsync.runner import (
    Instant,
    Job,
    Limits,
    Prepared,
    RunEnd,
    Runner,
    Settings,
    Start,
    StopSwitch,
    raw_ns,
)
from hwsync.runner.workplace import STAGED
from tests.support.programs import require_program
from tests.support.runs import OneRun

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs as somebody else")
LONG = 60.0  # seconds: a limit that no passing test reaches
WITHIN = 5_000_000  # µs: what a loaded machine keeps to


def given(**texts: str) -> tuple[File, ...]:
    """Files of a request; two underscores stand for a slash, one for a dot."""
    paths = {name.replace("__", "/").replace("_", "."): text for name, text in texts.items()}
    return tuple(File.of(path, text.encode()) for path, text in sorted(paths.items()))


def texts(end: RunEnd) -> dict[str, str]:
    return {one.path: (one.data or b"").decode() for one in end.files}


def reasons(end: RunEnd) -> dict[str, str]:
    return {one.path: one.reason for one in end.not_kept}


CONVERT = """
import os
from lib import tool
os.mkdir('out')
for name in ('a', 'b'):
    with open(f'out/{name}.txt', 'w') as file:
        file.write(tool.double(open(f'data/{name}.csv').read()))
open('data/a.csv', 'a').write('!')
open('forgotten.png', 'w').write('png')
print(sorted(os.listdir('.')), os.getuid() == os.stat('data/a.csv').st_uid)
"""
TOOL = given(data__a_csv="1", data__b_csv="2", lib__tool_py="def double(text): return text * 2")


def test_files_go_in_and_come_back(one_run: OneRun) -> None:
    end = one_run(CONVERT, files=TOOL, collect=("out/*", "data/**", "program.py"))
    assert (end.outcome, end.stderr) == ("ok", "")
    assert end.response == "['data', 'forgotten.png', 'lib', 'out', 'program.py'] True\n"
    assert texts(end) == {"data/a.csv": "1!", "out/a.txt": "11", "out/b.txt": "22"}
    assert end.not_kept == (NotKept("forgotten.png", 3, NOT_ASKED),)
    assert os.listdir(one_run.folder) == []


def test_as_much_as_there_may_be(one_run: OneRun) -> None:
    size = MAX_FILES_BYTES // MAX_FILES
    files = tuple(File.of(f"in/{number:02}", os.urandom(size)) for number in range(MAX_FILES))
    program = (
        "import os\nall = b''.join(open(f'in/{n:02}', 'rb').read() for n in range(64))\n"
        f"os.mkdir('out')\none = all[:{size * 3 // 2}]\n"
        "for n in range(64): open(f'out/{n:02}', 'wb').write(one)\n"
    )
    end = one_run(program, files=files, collect=("**",))
    assert (end.outcome, end.stderr) == ("ok", "")
    assert len(end.files) == 64
    assert sum(one.size for one in end.files) == MAX_COLLECTED_BYTES
    assert end.not_kept == ()


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        ("raise SystemExit(3)", "error"),
        ("import os\nos.kill(os.getpid(), 9)", "killed"),
        ("import time\ntime.sleep(600)", "timeout"),
        (
            "import signal, time\nsignal.signal(2, lambda *_: open('late', 'w').write('x'))\n"
            "time.sleep(600)",
            "timeout",
        ),
    ],
)
def test_whatever_the_outcome(tmp_path: Path, ending: str, outcome: str) -> None:
    program = f"open('log', 'w').write('begun')\n{ending}"
    one_run = OneRun(tmp_path / "work", {})
    end = one_run(program, collect=("log", "late"), timeout=0.5, grace=3.0)
    assert end.outcome == outcome
    assert texts(end) == {"log": "begun"} | ({"late": "x"} if "late" in ending else {})


def test_a_cancelled_run_brings_its_files(tmp_path: Path) -> None:
    one_run = OneRun(tmp_path / "work", {})
    end = one_run(
        "import time\nopen('log', 'w').write('begun')\nprint(1)\ntime.sleep(600)",
        collect=("log",),
        on_output=lambda piece: one_run.stop.set(),
    )
    assert (end.outcome, texts(end)) == ("cancelled", {"log": "begun"})


def test_what_a_program_leaves_behind_to_lead_us_out(one_run: OneRun, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    program = (
        "import os\n"
        f"os.symlink({str(tmp_path / 'secret')!r}, 'a')\n"
        f"os.symlink({str(tmp_path)!r}, 'b')\n"
        "os.mkfifo('c')\nos.symlink('/etc', 'd')\n"
        "open('e', 'w').write('e')\nos.chmod('.', 0)\n"
    )
    end = one_run(program, collect=("**", "b/secret", "d/passwd"))
    assert texts(end) == {"e": "e"}
    link = "it is a link"
    assert reasons(end) == {"a": link, "b": link, "c": "it is a named pipe", "d": link}


def test_a_program_that_puts_another_folder_in_the_place_of_its_own(one_run: OneRun) -> None:
    program = (
        "import os\nhere = os.getcwd()\nopen('mine', 'w').write('mine')\n"
        "os.rename(here, here + '-away')\nos.symlink('/etc', here)\n"
    )
    end = one_run(program, collect=("**", "passwd"))
    assert texts(end) == {"mine": "mine"}
    if "isolation" in one_run.settings:
        assert "Error" in end.stderr, "there it cannot"
    else:
        os.unlink(one_run.folder)


def test_what_cannot_be_written_is_said_and_nothing_runs(one_run: OneRun, tmp_path: Path) -> None:
    one_run.settings["limits"] = Limits(file_size_mb=1)
    files = (File.of("data/large", b"x" * 1_000_001),)
    with pytest.raises(CannotRun, match=r"data/large cannot be written in .*work: File too large"):
        one_run(f"open({str(tmp_path / 'ran')!r}, 'w')", files=files)
    assert not (tmp_path / "ran").exists()
    assert os.listdir(one_run.folder) == []


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../x", "", "a//b", "program.py", "a\nb"])
def test_a_path_that_leads_out_is_none(path: str, tmp_path: Path) -> None:
    """Also where it was not the wire that let it in."""
    with pytest.raises(CannotRun, match="is no path for a file of its own"):
        OneRun(tmp_path / "work", {})("pass", files=(File.of(path, b"x"),))
    assert not (tmp_path / "work").exists()


def test_with_another_interpreter(tmp_path: Path) -> None:
    run = OneRun(tmp_path / "work", {"interpreter": ("/bin/sh",)})
    end = run("cat in > out; echo more >> in", files=given(**{"in": "1\n"}), collect=("*",))
    assert texts(end) == {"in": "1\nmore\n", "out": "1\n"}


@only_root
@pytest.mark.parametrize("start", Start)
def test_of_another_account(start: Start, open_folder: Path) -> None:
    python = require_program("/usr/bin/python3", "python3")
    run = OneRun(open_folder / "work", {"run_as": "nobody", "start": start, "python": python})
    run.settings["limits"] = Limits(free_disk_mb=1)
    end = run(CONVERT, files=TOOL, collect=("out/*",))
    assert (end.outcome, end.stderr) == ("ok", "")
    assert texts(end) == {"out/a.txt": "11", "out/b.txt": "22"}
    assert set(reasons(end)) == {"data/a.csv", "forgotten.png"}


# -- a folder that is kept -------------------------------------------------------------------------


@pytest.fixture
def kept(way: dict[str, Any], tmp_path: Path) -> OneRun:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "old.csv").write_text("old")
    (folder / "data").mkdir()
    (folder / "data/a.csv").write_text("old")
    return OneRun(folder, way | {"empty_directory": False})


def test_in_a_kept_folder_what_is_new_or_changed_comes_back(kept: OneRun) -> None:
    end = kept(CONVERT, files=TOOL, collect=("*", "data/**", "out/**"))
    assert (end.outcome, end.stderr) == ("ok", "")
    assert texts(end) == {
        "data/a.csv": "1!", "out/a.txt": "11", "out/b.txt": "22", "forgotten.png": "png",
    }  # fmt: skip
    assert end.not_kept == ()
    assert sorted(os.listdir(kept.folder)) == ["data", "forgotten.png", "lib", "old.csv", "out"]
    end = kept("open('old.csv', 'w').write('new')")
    assert (texts(end), reasons(end)) == ({}, {"old.csv": NOT_ASKED})


def test_in_a_kept_folder_nothing_is_touched_where_one_cannot_be_written(kept: OneRun) -> None:
    kept.settings["limits"] = Limits(file_size_mb=1)
    files = (*given(data__a_csv="new"), File.of("z", b"x" * 1_000_001))
    with pytest.raises(CannotRun, match=r"did not begin: z cannot be written in .*kept"):
        kept("pass", files=files)
    assert (kept.folder / "data/a.csv").read_text() == "old"
    with pytest.raises(CannotRun, match=r"old.csv/x cannot be written .*a part of its path is no"):
        kept("pass", files=given(**{"old_csv__x": "1"}))
    os.symlink("/tmp", kept.folder / "link")
    with pytest.raises(CannotRun, match=r"link/x cannot be written .*a part of its path is no"):
        kept("pass", files=given(**{"link__x": "1"}))
    with pytest.raises(CannotRun, match=r"data cannot be written in .*: Is a directory"):
        kept("pass", files=given(data="1"))
    with pytest.raises(CannotRun, match=r"\.hwsync-a cannot be written"):
        kept("pass", files=(File.of(".hwsync-a", b""),))
    kept("pass")
    assert sorted(os.listdir(kept.folder)) == ["data", "link", "old.csv"]


def test_a_link_in_a_kept_folder_is_replaced_and_what_it_leads_to_stays(kept: OneRun) -> None:
    target = kept.folder.parent / "target"
    target.write_text("theirs")
    os.symlink(target, kept.folder / "a")
    end = kept("print(open('a').read())", files=given(a="ours"))
    assert end.response == "ours\n"
    assert target.read_text() == "theirs"
    assert stat.S_ISREG(os.lstat(kept.folder / "a").st_mode)


def test_what_a_dead_daemon_staged_is_gone_at_the_next_run(kept: OneRun) -> None:
    (kept.folder / STAGED).mkdir()
    (kept.folder / STAGED / "0").write_text("half")
    end = kept("import os\nprint(sorted(os.listdir('.')))", files=given(a="1"), collect=("**",))
    assert end.response == "['.hwsync-program.py', 'a', 'data', 'old.csv', 'program.py']\n"
    assert texts(end) == {}
    assert sorted(os.listdir(kept.folder)) == ["a", "data", "old.csv"]


# -- at an instant ---------------------------------------------------------------------------------


@pytest.fixture
def prepare(way: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Prepared]]:
    folder = tmp_path / "work"
    folder.mkdir()
    runners = []

    def prepared(program: str, *, emptied: bool, **job: Any) -> Prepared:
        runners.append(Runner(Settings(folder, empty_directory=emptied, **way)))
        return runners[-1].prepare(
            Job(program, "", (), LONG, **job), on_output=lambda piece: None, stop=StopSwitch()
        )

    yield prepared
    for runner in runners:
        runner.close()


def soon(ahead_ns: int = 150_000_000) -> Instant:
    at = raw_ns() + ahead_ns
    return Instant(1_700_000_000_000_000, at, at + 10**10, True, 500, WITHIN)


@pytest.mark.parametrize("emptied", [True, False])
def test_a_program_with_an_instant_finds_its_files(
    prepare: Callable[..., Prepared], tmp_path: Path, emptied: bool
) -> None:
    program = "print(open('data/a').read(), end='')\nopen('b', 'w').write('b')"
    prepared = prepare(program, emptied=emptied, files=given(data__a="1\n"), collect=("**",))
    # Nobody sees them in a folder that is kept before the grant.
    assert (tmp_path / "work/data").exists() is emptied
    prepared.aim(soon())
    end = prepared.run()
    assert (end.outcome, end.response, end.stderr) == ("ok", "1\n", "")
    assert (texts(end), end.not_kept) == ({"b": "b"}, ())
    assert sorted(os.listdir(tmp_path / "work")) == ([] if emptied else ["b", "data"])


def test_files_of_what_never_begins_are_nowhere(
    prepare: Callable[..., Prepared], tmp_path: Path
) -> None:
    (tmp_path / "work/a").write_text("old")
    prepared = prepare("pass", emptied=False, files=given(a="new"))
    prepared.drop()
    assert (tmp_path / "work/a").read_text() == "old"
    prepared = prepare("pass", emptied=False, files=given(b="new"))
    assert os.listdir(tmp_path / "work").count("b") == 0
    prepared.drop()


def test_what_cannot_take_its_place_at_the_grant_is_not_released(
    prepare: Callable[..., Prepared], tmp_path: Path
) -> None:
    program = f"open({str(tmp_path / 'ran')!r}, 'w')"
    prepared = prepare(program, emptied=False, files=given(a="1"))
    (tmp_path / "work/a").mkdir()  # somebody did so meanwhile
    prepared.aim(soon())
    with pytest.raises(CannotRun, match=r"a cannot be written in .*: Is a directory"):
        prepared.run()
    assert not (tmp_path / "ran").exists()


# -- how long it takes -----------------------------------------------------------------------------


def test_the_end_and_the_files_take_half_of_the_grace(tmp_path: Path) -> None:
    """Of a program that heeds nothing."""
    one_run = OneRun(tmp_path / "work", {})
    program = (
        "import signal, time\nfor number in (2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "open('a', 'w').write('a')\nprint(1)\ntime.sleep(600)"
    )
    end = one_run(program, collect=("a",), timeout=0.5, grace=2.0)
    assert end.outcome == "timeout"
    assert texts(end) == {"a": "a"}
    # 1 s in all: of what is wished for, 2 s, 0.5 s and 2 s, so much is there to end it.
    assert end.reason.endswith("it did not end by itself within 0.555556 s")
