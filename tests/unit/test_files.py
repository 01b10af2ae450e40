"""What paths and patterns of files may be, which files a pattern means, and what is listed."""

from __future__ import annotations

import time

import pytest

from hwsync.protocol import files
from hwsync.protocol.files import NOT_ASKED, TOO_LONG, File, NotKept, only_asked_for
from hwsync.protocol.jsons import dumps

PATHS = ["a", "a.b", ".hidden", "a/b/c", "ä/ö", "a b", "a\\b", "*", "~", "-", "...", "a" * 255]
NO_PATHS = [
    *("", "/", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/..", "a/../b", "a/./b", "a/."),
    *("a\0", "a\n", "\x1b[2J", "a\x7f", "a\x85", "\ud800", "a" * 256, "é" * 128),
    *(None, 1, b"a", ["a"]),
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_names_one_file_below_the_folder(path: str) -> None:
    assert files.is_path(path)
    assert files.is_pattern(path)


@pytest.mark.parametrize("path", NO_PATHS, ids=ascii)
def test_what_is_no_path(path: object) -> None:
    assert not files.is_path(path)
    assert not files.is_pattern(path)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a", "b/c"], None),
        (["a", "ab/c"], None),
        (["a", "a/c"], ("a", "a/c")),
        (["x/y/z", "x"], ("x", "x/y/z")),
        (["x/y/z", "x/y"], ("x/y", "x/y/z")),
        ([], None),
    ],
)
def test_a_path_is_a_file_or_a_folder(paths: list[str], found: tuple[str, str] | None) -> None:
    assert files.clash(paths) == found


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a.csv", ["a.csv"], ["b.csv", "x/a.csv", "a.csv/x", "A.csv"]),
        ("*.csv", ["a.csv", ".csv", "a.b.csv"], ["a.csv2", "x/a.csv"]),
        ("data/*.csv", ["data/a.csv"], ["data/x/a.csv", "a.csv", "data"]),
        ("?.txt", ["a.txt", "ä.txt", "?.txt"], ["ab.txt", ".txt", "/.txt"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("**/*.csv", ["a.csv", "x/a.csv", "x/y/a.csv"], ["x/a.png"]),
        ("data/**/a", ["data/a", "data/x/a", "data/x/y/a"], ["a", "x/data/a", "data/b"]),
        ("data/**", ["data/a", "data/x/y"], ["a", "datax/a"]),
        ("**/b/**/d", ["b/d", "a/b/c/d", "b/b/d", "b/x/y/d"], ["a/d", "b/x"]),
        ("a**b", ["ab", "axxb"], ["a/b"]),
        ("*a*b*", ["ab", "xaxbx"], ["ba", "a/b"]),
        ("*", ["a", ".a", "*"], ["a/b"]),
        ("[ab]", ["[ab]"], ["a"]),
    ],
)
def test_what_a_pattern_means(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes if not files.means(pattern, path)] == []
    assert [path for path in no if files.means(pattern, path)] == []
    assert files.is_asked_for(["nothing", pattern], yes[0])
    assert not files.is_asked_for([], yes[0])


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    for pattern in ("*a" * 126 + "b", "**/" * 84 + "x", "*a*/" * 63 + "*b"):
        assert not files.means(pattern, "a" * 254)
        assert not files.means(pattern, "/".join("a" * 127) + "/c")
    assert time.process_time() - began < 1.0


def test_what_has_room_among_the_files_that_come_back() -> None:
    mib = 1024 * 1024
    assert files.room_for([("a", mib + mib // 2)]) == [""]
    assert files.room_for([("a", mib + mib // 2 + 1)]) == [files.TOO_LARGE]
    assert files.room_for([("a", mib), ("b", mib), ("c", mib // 2)]) == ["", files.TOO_LARGE, ""]
    many = [(f"{number:03}", 0) for number in range(65)]
    assert files.room_for(many[:63] + many[:1]) == [""] * 64
    assert files.room_for(many) == [""] * 64 + [files.TOO_MANY]


def entry(path: str, reason: str = "a link") -> NotKept:
    return NotKept(path, 7, reason)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_so_many_are_listed_and_the_others_counted(count: int) -> None:
    found = files.listed(entry(f"f{number}") for number in range(count))
    kept = min(count, 64)
    assert found[:kept] == tuple(entry(f"f{number}") for number in range(kept))
    assert found[kept:] == ((NotKept("", 0, "", count - 64),) if count > 64 else ())
    assert files.listed(found) == found


def test_what_was_not_asked_for_comes_last() -> None:
    many = [entry(f"n{number}", NOT_ASKED) for number in range(100)]
    found = files.listed([*many, entry("wanted")])
    assert found[0] == entry("wanted")
    assert found[1:64] == tuple(many[:63])
    assert found[64] == NotKept("", 0, "", 37)
    again = files.listed([*found, entry("moved"), NotKept("", 0, "", 2)])
    assert again[:2] == (entry("wanted"), entry("moved"))
    assert again[64] == NotKept("", 0, "", 40)


@pytest.mark.parametrize("length", range(180, 200))
def test_the_list_has_its_bytes(length: int) -> None:
    found = files.listed(entry("é" * (length // 2) + f"{number:02}") for number in range(64))
    size = len(dumps([files.not_kept_json(one) for one in found]).encode())
    assert size <= 16_384
    assert (found[-1].others > 0) is (len(found) < 64)
    assert found[-1].others == 0 or size > 16_384 - 64 - 300  # it was used


def test_all_of_them_can_be_counted_alone() -> None:
    assert files.counted([]) == ()
    assert files.counted([entry("a"), NotKept("", 0, "", 3)]) == (NotKept("", 0, "", 4),)


def test_a_file_is_known_by_its_bytes() -> None:
    one = File.of("a", b"1")
    assert (one.size, one.data, one.bare.data) == (1, b"1", None)
    assert one == one.bare
    assert one.sha256 == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    assert "data" not in repr(one)


def test_long_patterns_and_long_paths_are_not_compared_for_ever() -> None:
    """Whoever asks on his own board chooses both: 32 x 64 of the worst took a minute."""
    patterns = ["**/" + "/".join(["*a"] * 60) + f"/{number}b" for number in range(32)]
    deep = "/".join("a" * 120)
    some = tuple(File.of(f"{deep}{number:02}", b"") for number in range(64))
    began = time.process_time()
    kept, left = only_asked_for(patterns, some, ())
    assert time.process_time() - began < 5.0
    assert not kept
    assert TOO_LONG in {one.reason for one in left}
    exact = [one.path for one in some[:30]]
    assert only_asked_for([*exact, "*/x"], some, ())[0] == some[:30]
