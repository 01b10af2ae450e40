"""What is in a teacher's folder: which analysers, in which version, and what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hwsync.analysers import folder as folder_of
from hwsync.analysers.folder import Folder, Kind
from hwsync.analysers.written import Limits, Written, Wrong, read
from hwsync.protocol.errors import UsageError

GOOD = "def analyse(run):\n    return True\n"


class Clock:
    """Seconds that pass where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(folder: Path, **files: str) -> None:
    """A file for each name; ``__`` is a dot, and a name that ends in ``_x`` is executable."""
    for name, text in files.items():
        executable = name.endswith("_x")
        file = folder / name.removesuffix("_x").replace("__", ".")
        file.write_text(text)
        if executable:
            file.chmod(0o755)


def versions(folder: Folder) -> dict[str, str]:
    return {name: one.version for name, one in folder.scan().items() if name != "outcome"}


def test_each_kind_is_found(tmp_path: Path) -> None:
    make(tmp_path, a__py=GOOD, b_x="#!/bin/sh\n", c__toml='builtin = "outcome"', d__py=GOOD)
    make(tmp_path, d__toml="[arguments]\nx = 1\n[limits]\ntime_s = 2\n")
    folder = Folder(tmp_path)
    found = folder.scan()
    kinds = {name: one.kind for name, one in found.items()}
    assert kinds == {
        "outcome": Kind.BUILTIN,
        "a": Kind.PYTHON,
        "b": Kind.EXECUTABLE,
        "c": Kind.BUILTIN,
        "d": Kind.PYTHON,
    }
    assert found["d"].arguments == {"x": 1}
    assert found["d"].limits == Limits(time_s=2)
    assert folder.problems == ()
    assert all(len(one.version) == 12 for one in found.values())


def test_what_is_no_analyser_is_passed_over(tmp_path: Path) -> None:
    make(
        tmp_path, _helper__py="x = 1", README="", README__md="", notes="", data__csv="", LICENSE=""
    )
    make(tmp_path, a__py__bak=GOOD, test_a__py="", conftest__py="", pyproject__toml="")
    for name in (".a.py.swp", "a.py~", "#a.py#", ".#a.py", "4913"):
        (tmp_path / name).write_text("")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "b.py").mkdir()
    (tmp_path / "gone.py").symlink_to("/no/such")
    os.mkfifo(tmp_path / "pipe.py")
    folder = Folder(tmp_path)
    assert folder.scan().keys() == {"outcome"}
    assert folder.problems == ()


PROBLEMS = {
    "a name with a capital": (
        {"Check1__py": GOOD},
        "'Check1.py' is no name of an analyser (1 to 32 of a-z 0-9 _ -, beginning with a letter): "
        "rename it",
    ),
    "manual": ({"manual__py": GOOD}, "manual.py: manual is hwsync's own: rename it"),
    "two of a name": (
        {"a__py": GOOD, "a_x": "#!/bin/sh"},
        "a: there are a and a.py: keep one of them",
    ),
    "a builtin beside a file": (
        {"a__py": GOOD, "a__toml": 'builtin = "equals"'},  # whose arguments are missing as well
        "a: a.toml: it has builtin = 'equals', and there is a.py, too: which one judges? Take the "
        "key out, or the file away",
    ),
    "a TOML alone": (
        {"a__toml": ""},
        "a: there is neither a.py nor an executable a, and a.toml names no builtin, such as "
        'builtin = "equals"',
    ),
    "not executable": ({"a": "#!/bin/sh"}, "a: a is not executable: chmod +x a"),
    "not executable, with a TOML": (
        {"a": "", "a__toml": ""},
        "a: a is not executable: chmod +x a",
    ),
    "a syntax error": (
        {"a__py": "x = ("},
        "a: it cannot be read: SyntaxError: '(' was never closed (a.py, line 1)",
    ),
    "a NUL": (
        {"a__py": "\0"},
        "a: it cannot be read: ",
    ),
    "nested": ({"a__py": "(" * 500}, "a: it cannot be read: SyntaxError: too many nested "),
    "a helper": (
        {"a__py": "def help(): pass"},
        "a: it is no analyser: there is no function analyse in a.py; a file that others import "
        'begins with _, and is named in their TOML: files = ["_a.py"]',
    ),
    "a file that lacks": (
        {"a__py": GOOD, "a__toml": 'files = ["x.csv"]'},
        "a: a.toml: files: x.csv cannot be read: No such file or directory",
    ),
    "itself": (
        {"a__py": GOOD, "a__toml": 'files = ["a.py"]'},
        "a: there is neither a.py nor an executable a, and a.toml names no builtin",
    ),
    "a misspelt key": (
        {"a__py": GOOD, "a__toml": "argument = 1"},
        "a: a.toml: there is no key argument: did you mean arguments?",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    files, problem = PROBLEMS[case]
    make(tmp_path, **files)
    folder = Folder(tmp_path)
    found = folder.scan()
    assert len(folder.problems) == 1
    assert folder.problems[0].startswith(problem)
    assert all(one.problem for name, one in found.items() if name != "outcome")


@pytest.mark.parametrize(
    "source",
    [
        "from own import analyse",
        "from own import *",
        "from own import judge as analyse",
        "analyse = lambda run: 1",
        "if 1:\n    class analyse: pass",
        "async def analyse(run): pass",
    ],
)
def test_analyse_may_be_bound_in_any_way(tmp_path: Path, source: str) -> None:
    make(tmp_path, a__py=source)
    assert Folder(tmp_path).scan()["a"].problem is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a b", "it is no TOML: Expected '=' after a key"),
        ("x = 1", "there is no key x: there are arguments, builtin, files, limits"),
        ("builtin = 'equal'", "builtin = 'equal' is none of hwsync's: did you mean equals?"),
        ("builtin = 3", "builtin = 3 is none of hwsync's: there are contains, "),
        ("builtin = []", "builtin = [] is none of hwsync's: there are contains, "),
        ("files = 'a'", "files has to be a list of at most 64 paths"),
        ("files = ['../a']", "files: '../a' is no path of this folder: relative, "),
        ("files = ['/etc/passwd']", "files: '/etc/passwd' is no path of this folder"),
        ("files = [3]", "files: 3 is no path"),
        ("files = ['hwsync-answer']", "files: hwsync-answer: names with hwsync- are hwsync's own"),
        ("arguments = 1", "arguments has to be a table: [arguments] on a line of its own"),
        ("[arguments]\nx = 2020-01-01", "arguments.x has no JSON: write dates and nan as texts"),
        ("[arguments]\nx = nan", "arguments.x has no JSON"),
        ("[limits]\ntime = 1", "limits: there is no key time: did you mean time_s?"),
        ("[limits]\ntime_s = 0", "limits.time_s = 0 is not allowed: expected a number from 0.1 to"),
        ("[limits]\ntime_s = true", "limits.time_s = True is not allowed"),
        ("[limits]\nmemory_mb = 64.5", "limits.memory_mb = 64.5 is not allowed: expected a whole"),
        ("[limits]\nmemory_mb = 1", "limits.memory_mb = 1 is not allowed"),
        ("builtin = 'equals'", "arguments: give either expected or expected_file"),
        (
            "builtin = 'equals'\n[arguments]\nexpect = '1'",
            "arguments of equals: there is no key expect: did you mean expected?",
        ),
        (
            "builtin = 'equals'\n[arguments]\nexpected = 1",
            "arguments.expected = 1 is not allowed: expected a text",
        ),
        (
            "builtin = 'equals'\n[arguments]\nexpected_file = '../a'",
            "files: '../a' is no path of this folder",
        ),
        (
            "builtin = 'outcome'\n[arguments]\nx = 1",
            "arguments of outcome: there is no key x: there are none",
        ),
    ],
)
def test_a_mistake_in_the_toml_is_said(text: str, said: str) -> None:
    with pytest.raises(Wrong) as caught:
        read(text.encode())
    assert str(caught.value).startswith(said)


def test_a_toml_is_text() -> None:
    with pytest.raises(Wrong, match=r"it is not UTF-8 \(byte 0\)"):
        read(b"\xff")


def test_each_file_of_an_analyser_counts_in_its_version(tmp_path: Path) -> None:
    make(tmp_path, a__py=GOOD, own__py="x = 1", b__py=GOOD)
    make(tmp_path, a__toml='files = ["own.py"]\n[arguments]\nx = 1\n')
    seen = [versions(Folder(tmp_path))]
    for name, text in (
        ("a.py", GOOD + "\n"),
        ("own.py", "x = 2"),
        ("a.toml", 'files = ["own.py"]\n[arguments]\nx = 2\n'),
        ("a.toml", 'files = ["own.py"]\n[limits]\ntime_s = 20\n'),
    ):
        (tmp_path / name).write_text(text)
        seen.append(versions(Folder(tmp_path)))
    assert len({one["a"] for one in seen}) == 5
    assert len({one["b"] for one in seen}) == 1
    assert seen[0]["a"] != seen[0]["b"]  # of the same text


def test_the_version_says_nothing_of_where_the_folder_is(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make(tmp_path / name, a__py=GOOD)
    assert versions(Folder(tmp_path / "one")) == versions(Folder(tmp_path / "two"))


def test_a_change_is_taken_once_it_has_settled(tmp_path: Path) -> None:
    make(tmp_path, a__py=GOOD)
    clock = Clock()
    folder = Folder(tmp_path, clock=clock)
    first = folder.scan()["a"]
    make(tmp_path, a__py="def ana")  # half of a file
    assert folder.scan()["a"] == first
    clock.now = 0.9
    assert folder.scan()["a"] == first
    make(tmp_path, a__py=GOOD + "# more\n")
    clock.now = 1.5
    assert folder.scan()["a"] == first
    clock.now = 2.4
    assert folder.scan()["a"] == first
    clock.now = 2.5
    second = folder.scan()["a"]
    assert second.problem is None
    assert second.version != first.version
    assert folder.scan()["a"] is second  # not read again


def test_a_change_that_makes_it_none_leaves_the_version_of_before(tmp_path: Path) -> None:
    make(tmp_path, a__py=GOOD)
    folder = Folder(tmp_path, settle_s=0)
    first = folder.scan()["a"]
    make(tmp_path, a__py="def analyse(run)\n")
    for _ in range(2):
        assert folder.scan()["a"] == first
        assert folder.problems == (
            "a: it cannot be read: SyntaxError: expected ':' (a.py, line 1); until that is mended "
            f"{first.version} goes on",
        )
    assert Folder(tmp_path).scan()["a"].problem is not None  # a new look knows of none before
    make(tmp_path, a__py=GOOD + "# mended\n")
    second = folder.scan()["a"]
    assert second.version != first.version
    assert folder.problems == ()
    (tmp_path / "a.py").unlink()
    assert folder.scan().keys() == {"outcome"}


def test_a_new_one_is_offered_once_it_has_settled(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder(tmp_path, clock=clock)
    assert folder.scan().keys() == {"outcome"}
    make(tmp_path, a__py=GOOD)
    assert folder.scan()["a"].problem is not None
    clock.now = 1.0
    assert folder.scan()["a"].problem is None
    (tmp_path / "a.py").unlink()
    assert folder.scan().keys() == {"outcome"}


def test_a_toml_that_comes_later_is_seen_and_so_is_a_file_that_it_names(tmp_path: Path) -> None:
    make(tmp_path, a__py=GOOD)
    folder = Folder(tmp_path, settle_s=0)
    before = folder.scan()["a"]
    make(tmp_path, a__toml='files = ["data.csv"]\n')
    assert folder.scan()["a"] == before
    assert "data.csv cannot be read" in folder.problems[0]
    make(tmp_path, data__csv="1")
    found = folder.scan()["a"]
    assert (found.problem, dict(found.files)) == (None, {"data.csv": b"1"})
    make(tmp_path, data__csv="2")
    assert dict(folder.scan()["a"].files) == {"data.csv": b"2"}
    (tmp_path / "a.toml").unlink()
    assert folder.scan()["a"] == before


def test_a_file_that_another_needs_is_no_analyser(tmp_path: Path) -> None:
    make(tmp_path, a__py=GOOD, own__py="x = 1", a__toml='files = ["own.py"]')
    folder = Folder(tmp_path)
    assert folder.scan().keys() == {"outcome", "a"}
    assert folder.problems == ()


def test_a_look_at_what_has_not_changed_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at twice a second, for ever; a large one took half a minute each time."""
    make(tmp_path, a__py=GOOD, a__toml='files = ["b.py"]', b__py="x = 1", c__toml="x" * 2_000)
    monkeypatch.setattr(folder_of, "MAX_FILE", 1_000)
    parsed: list[bytes] = []

    def reading(data: bytes, *more: str) -> Written:
        parsed.append(data)
        return read(data, *more)

    monkeypatch.setattr(folder_of, "read", reading)
    folder = Folder(tmp_path, settle_s=0)
    assert folder.scan().keys() == {"outcome", "a", "c"}
    assert folder.problems == ("c: c.toml: c.toml is larger than 1,000 bytes",)
    assert set(parsed) == {b'files = ["b.py"]'}
    parsed.clear()
    assert folder.scan().keys() == {"outcome", "a", "c"}
    assert parsed == []
    (tmp_path / "a.toml").write_text("")
    assert "b" in folder.scan()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        Folder(tmp_path / "none").scan()
